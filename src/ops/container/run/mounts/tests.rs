use crate::ops::container::run::mounts::*;

fn volume(text: &str) -> (String, PathBuf, bool) {
    let wanted = parse_volume(text).unwrap();
    let source = match wanted.source {
        WantedSource::Anonymous => "anonymous".to_owned(),
        WantedSource::Named { name, .. } => format!("name {name}"),
        WantedSource::Bind(path) => format!("bind {}", path.display()),
        other => format!("{other:?}"),
    };
    (source, wanted.destination, wanted.read_only)
}

#[test]
fn volume_arguments_are_read_as_docker_reads_them() {
    let table = [
        ("/data", ("anonymous", "/data", false)),
        ("/data/", ("anonymous", "/data", false)),
        ("data:/data", ("name data", "/data", false)),
        ("/host:/data", ("bind /host", "/data", false)),
        ("/host:/data:ro", ("bind /host", "/data", true)),
        ("/host:/data:ro,z", ("bind /host", "/data", true)),
        ("data:/a/../b/./c:rw", ("name data", "/b/c", false)),
        ("data:/data:nocopy", ("name data", "/data", false)),
        ("x/y:/data", ("name x/y", "/data", false)),
    ];
    let here = std::env::current_dir().unwrap().join("x");
    let relative = (
        "bind ".to_owned() + here.to_str().unwrap(),
        "/data".into(),
        false,
    );
    assert_eq!(volume("./x:/data"), relative);
    for (text, (source, destination, read_only)) in table {
        let expected = (source.to_owned(), PathBuf::from(destination), read_only);
        assert_eq!(volume(text), expected, "{text}");
    }
}

#[test]
fn wrong_volume_arguments_get_dockers_words() {
    let table = [
        (
            "",
            "invalid volume specification: '': invalid mount path: '' mount path must be absolute",
        ),
        (":", "invalid volume specification: ':'"),
        ("/a:", "invalid volume specification: '/a:'"),
        (":/a", "invalid volume specification: ':/a'"),
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        (
            "/a:/b:foo",
            "invalid volume specification: '/a:/b:foo': invalid mode: foo",
        ),
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid specification: destination can't be '/'",
        ),
        (
            "/a:/b:nocopy",
            "invalid volume specification: '/a:/b:nocopy': invalid mode: nocopy",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parse_volume(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn mount_arguments_are_read() {
    let bind = parse_mount("type=bind,src=/h,dst=/c,ro").unwrap();
    assert_eq!(bind.source, WantedSource::Bind("/h".into()));
    assert!(bind.read_only);
    let tmpfs = parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
    let expected = WantedSource::Tmpfs {
        size: Some(1 << 20),
        mode: Some(0o700),
        options: Vec::new(),
    };
    assert_eq!(tmpfs.source, expected);
    let image = parse_mount("type=image,source=a:1,destination=/i,image-subpath=etc").unwrap();
    assert!(image.read_only);
    let volume = parse_mount("source=v,target=/v,volume-nocopy").unwrap();
    assert!(volume.no_copy);
    assert_eq!(
        parse_mount("dst=/x").unwrap().source,
        WantedSource::Anonymous
    );
    for (text, expected) in [
        ("type=bind,src=/h", "target is required"),
        ("type=nfs,src=/h,dst=/c", "mount type unknown: \"nfs\""),
        ("dst=/c,foo", "invalid field 'foo' must be a key=value pair"),
        ("dst=/c,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("type=bind,dst=/c", "field Source must not be empty"),
        ("type=bind,src=h,dst=/c", "mount path must be absolute"),
        (
            "type=tmpfs,src=/x,dst=/c",
            "field Source must not be specified",
        ),
    ] {
        let error = parse_mount(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn subpaths_do_not_go_up() {
    for good in ["", "sub", "a/./b"] {
        assert!(part(good).is_ok(), "{good}");
    }
    for bad in ["../v", "a/../../v", "/etc"] {
        assert!(part(bad).is_err(), "{bad}");
    }
}
