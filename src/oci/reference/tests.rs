//! The grammar as tables, and the properties that the tree under `images/` relies on.

use proptest::prelude::*;

use super::*;

const HEX64: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

#[test]
fn valid_references_normalise() {
    let digest = format!("sha256:{HEX64}");
    // text, canonical repository, tag, has a digest, as printed
    let table: &[(&str, &str, Option<&str>, bool, &str)] = &[
        ("nginx", "docker.io/library/nginx", None, false, "nginx"),
        (
            "nginx:1.21",
            "docker.io/library/nginx",
            Some("1.21"),
            false,
            "nginx:1.21",
        ),
        (
            "org/app:1.0",
            "docker.io/org/app",
            Some("1.0"),
            false,
            "org/app:1.0",
        ),
        (
            "docker.io/nginx",
            "docker.io/library/nginx",
            None,
            false,
            "nginx",
        ),
        (
            "docker.io/library/nginx",
            "docker.io/library/nginx",
            None,
            false,
            "nginx",
        ),
        (
            "index.docker.io/org/app",
            "docker.io/org/app",
            None,
            false,
            "org/app",
        ),
        (
            "index.docker.io/nginx:x",
            "docker.io/library/nginx",
            Some("x"),
            false,
            "nginx:x",
        ),
        (
            "library/a/b",
            "docker.io/library/a/b",
            None,
            false,
            "library/a/b",
        ),
        (
            "localhost:5000",
            "docker.io/library/localhost",
            Some("5000"),
            false,
            "localhost:5000",
        ),
        (
            "localhost/app",
            "localhost/app",
            None,
            false,
            "localhost/app",
        ),
        (
            "localhost:5000/app:t",
            "localhost:5000/app",
            Some("t"),
            false,
            "localhost:5000/app:t",
        ),
        (
            "registry.example.com:5000/org/app:2",
            "registry.example.com:5000/org/app",
            Some("2"),
            false,
            "registry.example.com:5000/org/app:2",
        ),
        (
            "[2001:db8::1]:5000/app",
            "[2001:db8::1]:5000/app",
            None,
            false,
            "[2001:db8::1]:5000/app",
        ),
        ("[::1]/app:t", "[::1]/app", Some("t"), false, "[::1]/app:t"),
        ("Foo/bar", "Foo/bar", None, false, "Foo/bar"),
        (
            "a--b/c__d/e.f_g",
            "docker.io/a--b/c__d/e.f_g",
            None,
            false,
            "a--b/c__d/e.f_g",
        ),
        (
            "a:_T.-x",
            "docker.io/library/a",
            Some("_T.-x"),
            false,
            "a:_T.-x",
        ),
        (
            "docker.io/example.com/app",
            "docker.io/example.com/app",
            None,
            false,
            "docker.io/example.com/app",
        ),
        (
            "docker.io/localhost/app",
            "docker.io/localhost/app",
            None,
            false,
            "docker.io/localhost/app",
        ),
    ];
    for (text, canonical, tag, has_digest, printed) in table {
        let r = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(r.repository.canonical(), *canonical, "{text}");
        assert_eq!(r.tag.as_ref().map(Tag::as_str), *tag, "{text}");
        assert_eq!(r.digest.is_some(), *has_digest, "{text}");
        assert_eq!(r.to_string(), *printed, "{text}");
    }
    for (text, tag) in [("nginx@", None), ("nginx:1@", Some("1"))] {
        let r = Reference::parse(&format!("{text}{digest}")).unwrap();
        assert_eq!(r.tag.as_ref().map(Tag::as_str), tag);
        assert_eq!(r.digest.map(|d| d.to_string()), Some(digest.clone()));
        assert_eq!(r.to_string(), format!("{text}{digest}"));
    }
}

#[test]
fn invalid_references_say_why() {
    use ReferenceError::*;
    let table: &[(&str, ReferenceError)] = &[
        ("", Empty),
        (HEX64, Identifier(HEX64.to_owned())),
        ("Foo", Uppercase("library/Foo".to_owned())),
        ("Foo:x", Uppercase("library/Foo".to_owned())),
        ("docker.io/Foo/x", Uppercase("Foo/x".to_owned())),
        ("/a", Format),
        ("a/", Format),
        ("a//b", Format),
        (":a", Format),
        ("a:", Format),
        ("a:b:c", Format),
        ("@sha256:00", Format),
        ("a@", Format),
        ("a@sha256", Format),
        ("a@sha256:00", Format),
        ("a@sha256:00@b", Format),
        ("a..b", Format),
        ("a._b", Format),
        ("a___b", Format),
        ("a-", Format),
        ("-a", Format),
        (".a", Format),
        ("..", Format),
        ("../a", Format),
        ("a/../b", Format),
        ("a/.wh.b", Format),
        ("a b", Format),
        ("a%b", Format),
        ("a~b", Format),
        ("a\nb", Format),
        ("a\0b", Format),
        ("ä", Format),
        ("a:.b", Format),
        ("a:-b", Format),
        ("a:b/c", Format),
        ("-x.y/a", Format),
        ("x-.y/a", Format),
        ("x..y/a", Format),
        ("x.y:/a", Format),
        ("x.y:1a/a", Format),
        ("a_b.c/foo", Format),
        ("[::1/app", Format),
        ("[]/app.x:/a", Format),
        ("[fe80::1%eth0]:5000/app", Format),
        ("https://x.y/a", Format),
        (
            "a@sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebc",
            DigestLength,
        ),
        (
            "a@sha512:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebc",
            DigestAlgorithm,
        ),
        (
            "a@sha256:7CC4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa",
            DigestFormat,
        ),
    ];
    for (text, error) in table {
        assert_eq!(Reference::parse(text).as_ref(), Err(error), "{text:?}");
    }
    assert_eq!(
        TagRef::parse(&format!("a@sha256:{HEX64}"))
            .unwrap_err()
            .to_string(),
        "refusing to create a tag with a digest reference"
    );
    assert_eq!(Repository::parse("a:b"), Err(Format));
}

#[test]
fn lengths_are_limited() {
    let ok = "a".repeat(255);
    let text = format!("x.y/{ok}:{}", "t".repeat(128));
    assert_eq!(Reference::parse(&text).unwrap().repository.path(), ok);
    assert_eq!(
        Reference::parse(&format!("x.y/{}", "a".repeat(256))),
        Err(ReferenceError::TooLong)
    );
    assert_eq!(
        Reference::parse(&format!("{}.b/x", "a".repeat(254))),
        Err(ReferenceError::TooLong)
    );
    assert_eq!(
        Reference::parse(&"a".repeat(100_000)),
        Err(ReferenceError::TooLong)
    );
    assert_eq!(Tag::parse(&"t".repeat(129)), Err(ReferenceError::Format));
    // "library/" counts.
    assert_eq!(
        Reference::parse(&"a".repeat(248)),
        Err(ReferenceError::TooLong)
    );
    assert!(Reference::parse(&"a".repeat(247)).is_ok());
}

#[test]
fn a_name_of_64_hex_digits_keeps_a_prefix() {
    let repository = Repository::parse(&format!("library/{HEX64}")).unwrap();
    assert_eq!(repository.familiar(), format!("library/{HEX64}"));
    assert_eq!(Repository::parse(&repository.familiar()), Ok(repository));
}

#[test]
fn tag_ref_defaults_to_latest() {
    let tag = TagRef::parse("nginx").unwrap();
    assert_eq!(tag.to_string(), "nginx:latest");
    assert_eq!(tag.canonical(), "docker.io/library/nginx:latest");
}

proptest! {
    #[test]
    fn parse_never_panics(text in ".{0,80}") {
        let _ = Reference::parse(&text);
    }

    /// Both forms of whatever parses lead back to it, and every component is a plain file name.
    #[test]
    fn both_forms_parse_back(text in "([A-Za-z0-9.:\\[\\]-]{1,9}/)?[a-z0-9._/-]{1,16}(:[A-Za-z0-9_.-]{1,5})?") {
        if let Ok(r) = Reference::parse(&text) {
            let again = |s: String| Reference::parse(&s).map(|r| r.repository);
            prop_assert_eq!(again(r.repository.familiar()), Ok(r.repository.clone()));
            prop_assert_eq!(again(r.repository.canonical()), Ok(r.repository.clone()));
            prop_assert_eq!(Reference::parse(&r.to_string()), Ok(r.clone()));
            for component in r.repository.familiar().split('/') {
                prop_assert!(!component.is_empty() && !component.starts_with('.') && component.len() <= 255);
            }
        }
    }
}
