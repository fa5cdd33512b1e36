//! Which image an argument means, as a table.

use crate::ops::fixtures::{id, image, names, tag, with_origins};
use crate::ops::image::resolve::*;

#[test]
fn arguments_resolve_in_dockers_order() {
    // "a" and "b" have IDs that begin with ca978112 and 3e23e816.
    let prefix = &id("b").hex()[..4];
    let named_like_an_id = format!("{prefix}:latest");
    let names = names([
        with_origins(
            image("a", &["nginx:1.21", "nginx", &named_like_an_id], &[]),
            &[("nginx", "m"), ("", "archive")],
        ),
        image("b", &["org/app:1"], &[]),
    ]);
    let (a, b, m) = (id("a"), id("b"), Digest::of(b"m"));
    let nginx = Repository::parse("nginx").unwrap();
    let by_tag = |text: &str| How::Tag(tag(text));
    let table = [
        ("nginx".to_owned(), a, by_tag("nginx:latest")),
        (
            "docker.io/library/nginx:1.21".to_owned(),
            a,
            by_tag("nginx:1.21"),
        ),
        ("org/app:1".to_owned(), b, by_tag("org/app:1")),
        (a.hex(), a, How::Id),
        (a.to_string(), a, How::Id),
        (a.short(), a, How::Id),
        (format!("sha256:{}", a.short()), a, How::Id),
        (b.hex()[..5].to_owned(), b, How::Id),
        // A name wins over the beginning of an ID.
        (prefix.to_owned(), a, by_tag(&named_like_an_id)),
        (format!("nginx@{m}"), a, How::Digest(nginx.clone(), m)),
        (format!("nginx:whatever@{m}"), a, How::Digest(nginx, m)),
        // The IDs of docker's containerd store.
        (m.to_string(), a, How::Id),
        (m.short(), a, How::Id),
        (Digest::of(b"archive").to_string(), a, How::Id),
        (Digest::of(b"manifest of b").hex(), b, How::Id),
        // An ID where a digest stands.
        (format!("nginx@{a}"), a, How::Id),
        (format!("org/app@{b}"), b, How::Id),
    ];
    for (text, id, how) in table {
        let found = image_of(&names, &text);
        assert_eq!(found, Ok(Resolved { id, how }), "{text}");
    }
}

#[test]
fn misses_say_what_was_looked_for() {
    let names = names([image("a", &["nginx"], &[]), image("b", &[], &[])]);
    let digest = Digest::of(b"m");
    let table = [
        ("x".to_owned(), "No such image: x:latest".to_owned()),
        ("nginx:2".to_owned(), "No such image: nginx:2".to_owned()),
        (
            "docker.io/library/x".to_owned(),
            "No such image: x:latest".to_owned(),
        ),
        (
            "abcdef12".to_owned(),
            "No such image: abcdef12:latest".to_owned(),
        ),
        // Too short to be looked for as an ID.
        (
            id("a").hex()[..3].to_owned(),
            format!("No such image: {}:latest", &id("a").hex()[..3]),
        ),
        (digest.to_string(), format!("No such image: {digest}")),
        (digest.hex(), format!("No such image: {digest}")),
        (
            format!("nginx@{digest}"),
            format!("No such image: nginx@{digest}"),
        ),
        (
            format!("nginx@{}", id("b")),
            format!("No such image: nginx@{}", id("b")),
        ),
        (
            "Foo".to_owned(),
            "invalid reference format: repository name (library/Foo) must be lowercase".to_owned(),
        ),
        ("a..b".to_owned(), "invalid reference format".to_owned()),
        (
            String::new(),
            "repository name must have at least one component".to_owned(),
        ),
    ];
    for (text, error) in table {
        assert_eq!(image_of(&names, &text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_beginning_of_two_ids_is_ambiguous() {
    let mut a = image("a", &[], &[]);
    let mut b = a.clone();
    let hex = a.id.hex();
    let other = format!("{}{}", &hex[..20], "0".repeat(44));
    b.id = ImageId(Digest::from_hex(&other).unwrap());
    a.manifest.digest = Digest::of(b"another");
    let names = names([a, b]);
    let error = image_of(&names, &hex[..12]).unwrap_err();
    assert_eq!(
        error,
        format!(
            "ambiguous reference: {} is the beginning of several image IDs",
            &hex[..12]
        )
    );
    assert!(image_of(&names, &hex[..25]).is_ok());
}

fn image_of(names: &Names, text: &str) -> Result<Resolved, String> {
    crate::ops::image::resolve::image(names, text).map_err(|error| error.to_string())
}
