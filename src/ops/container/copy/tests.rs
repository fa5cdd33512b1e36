use super::*;

#[test]
fn arguments_are_a_containers_or_the_hosts() {
    for (text, container, path) in [
        ("c:/a", Some("c"), "/a"),
        ("c:a:b", Some("c"), "a:b"),
        ("c:", Some("c"), ""),
        ("/a:b", None, "/a:b"),
        ("./a:b", None, "./a:b"),
        ("../a:b", None, "../a:b"),
        (":a", None, ":a"),
        ("a", None, "a"),
        ("-", None, "-"),
    ] {
        assert_eq!(split_argument(text), (container, path), "{text}");
    }
}

#[test]
fn paths_are_cleaned_and_their_end_counts() {
    for (text, clean, directory, content) in [
        ("/a/b", "/a/b", false, false),
        ("a", "/a", false, false),
        ("/a/", "/a", true, false),
        ("/a/.", "/a", true, true),
        ("/a/b/..", "/a", true, false),
        ("/", "/", true, true),
        (".", "/", true, true),
        ("//a//./b", "/a/b", false, false),
        ("/../../etc", "/etc", false, false),
    ] {
        let path = Path::new(text.as_bytes());
        assert_eq!(path.clean, clean.as_bytes(), "{text}");
        assert_eq!(
            (path.is_directory, path.is_content),
            (directory, content),
            "{text}"
        );
    }
    let path = Path::new(b"/a/b");
    assert_eq!((path.parent(), path.name()), (&b"/a"[..], &b"b"[..]));
    let path = Path::new(b"/a");
    assert_eq!((path.parent(), path.name()), (&b"/"[..], &b"a"[..]));
    assert_eq!(Path::new(b"/").name(), b"");
}

#[test]
fn what_goes_where_is_dockers_table() {
    use Kind::{Directory, File};
    for (source, content, to, there, expected) in [
        (File, false, "/d", Some(Directory), Ok(("/d", "s"))),
        (File, false, "/f", Some(File), Ok(("/", "f"))),
        (File, false, "/n", None, Ok(("/", "n"))),
        (File, false, "/n/", None, Err("no such directory")),
        (File, false, "/f/", Some(File), Err("not a directory")),
        (Directory, false, "/d", Some(Directory), Ok(("/d", "s"))),
        (Directory, true, "/d", Some(Directory), Ok(("/d", ""))),
        (Directory, false, "/n", None, Ok(("/", "n"))),
        (Directory, false, "/x/n/", None, Ok(("/x", "n"))),
        (Directory, true, "/n", None, Ok(("/", "n"))),
        (
            Directory,
            false,
            "/f",
            Some(File),
            Err("cannot copy directory"),
        ),
    ] {
        let destination = Destination {
            path: Path::new(to.as_bytes()),
            kind: there,
        };
        let plan = place(source, b"s", content, &destination);
        let plan = plan.map_err(|error| error.to_string());
        let expected = expected.map(|(directory, name)| Plan {
            directory: directory.as_bytes().to_vec(),
            name: name.as_bytes().to_vec(),
        });
        let expected = expected.map_err(str::to_owned);
        assert_eq!(plan, expected, "{source:?} {content} {to} {there:?}");
    }
}
