use super::{ImageBuilder, Sandbox, created, image, json, short, store};

/// `images` counts the bytes of files, `system df` the disk's; each says so.
#[test]
fn regression_sizes_say_what_they_count() {
    let sandbox = store(&["app:1"]);
    let size = sandbox
        .mica(["images", "--format", "{{.Size}}"])
        .ok()
        .stdout();
    let inspected = sandbox
        .mica(["inspect", "-f", "{{.Size}}", "app:1"])
        .ok()
        .stdout();
    assert_eq!((size.as_str(), inspected.as_str()), ("4.62kB\n", "4618\n"));
    let help = |words: &[&str]| sandbox.mica(words).ok().stdout();
    let images = help(&["images", "--help"]);
    assert!(
        images.contains("SIZE is the bytes of an image's files") && images.contains("system df -v"),
        "{images}"
    );
    let df = help(&["system", "df", "--help"]);
    assert!(df.contains("Bytes are those on disk"), "{df}");
}

#[test]
fn images_is_dockers_table() {
    let sandbox = store(&["app:1"]);
    sandbox
        .mica(["tag", "app:1", "registry.example.com:5000/org/app:x"])
        .ok();
    let (id, created) = (short(&image("app:1").id()), created(&sandbox, "app:1"));
    let width = created.len().max("CREATED".len());
    assert_eq!(
        sandbox.mica(["images"]).ok().stdout(),
        format!(
            "REPOSITORY                          TAG       IMAGE ID       {:width$}   SIZE\n\
             app                                 1         {id}   {created:width$}   4.62kB\n\
             registry.example.com:5000/org/app   x         {id}   {created:width$}   4.62kB\n",
            "CREATED"
        )
    );
    assert_eq!(
        sandbox.mica(["images", "-q"]).ok().stdout(),
        format!("{id}\n")
    );
    assert_eq!(
        sandbox.mica(["images", "-q", "--all-rows"]).ok().stdout(),
        format!("{id}\n{id}\n")
    );
    let whole = format!("{}\n", image("app:1").id());
    assert_eq!(
        sandbox
            .mica(["image", "ls", "-q", "--no-trunc", "app"])
            .ok()
            .stdout(),
        whole
    );
    let digests = sandbox.mica(["images", "--digests"]).ok().stdout();
    assert!(
        digests.starts_with("REPOSITORY                          TAG       DIGEST    IMAGE ID"),
        "{digests}"
    );
}

#[test]
fn images_without_a_match_is_a_header() {
    let sandbox = store(&["app:1"]);
    let header = "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n";
    for pattern in ["nothing", "app:2", "ap", "x/*"] {
        let run = sandbox.mica(["images", pattern]).ok();
        assert_eq!((run.stdout().as_str(), run.stderr().as_str()), (header, ""));
    }
    let run = sandbox.mica(["images", "ls"]).ok();
    assert_eq!(run.stdout(), header);
    assert_eq!(
        run.stderr(),
        "No images found matching \"ls\": did you mean \"mica image ls\"?\n"
    );
    assert!(
        sandbox
            .mica(["images", "["])
            .code(1)
            .stderr()
            .starts_with("Error response from daemon: syntax error in pattern")
    );
    // Before the first load there is nothing, and looking makes nothing.
    let empty = Sandbox::new();
    assert_eq!(empty.mica(["images"]).ok().stdout(), header);
    assert!(!empty.store().exists());
}

#[test]
fn inspect_is_dockers_array() {
    let sandbox = store(&["app:1", "other:1"]);
    let run = sandbox
        .mica(["inspect", "app:1", "nothing", "other:1"])
        .code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such object: nothing\n"
    );
    assert!(
        run.stdout()
            .starts_with("[\n    {\n        \"Id\": \"sha256:"),
        "{}",
        run.stdout()
    );
    let value = json(&run.stdout());
    assert_eq!(value.as_array().map(Vec::len), Some(2));
    let (found, expected) = (&value[0], image("app:1"));
    assert_eq!(found["Id"], expected.id().as_str());
    assert_eq!(found["RepoTags"], serde_json::json!(["app:1"]));
    assert_eq!(found["Created"], "2024-05-06T07:08:09.123456789Z");
    assert_eq!(found["Config"]["Cmd"], serde_json::json!(["/bin/sh"]));
    assert_eq!(found["Config"]["Env"], expected.config["config"]["Env"]);
    assert_eq!(found["Size"], 4_613 + 5);
    assert_eq!(
        found["RootFS"]["Layers"],
        serde_json::json!(expected.diff_ids())
    );

    let run = sandbox.mica(["inspect", "nothing"]).code(1);
    assert_eq!(run.stdout(), "[]\n");
    let run = sandbox.mica(["inspect", "Foo"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: invalid reference format: repository name (library/Foo) must be lowercase\n"
    );
}

#[test]
fn history_is_dockers_table() {
    let sandbox = Sandbox::new();
    let image = image("app:1").empty_layer(
        "/bin/sh -c #(nop)  CMD [\"a\tvery long command line that is cut\"]\u{1b}[31m",
    );
    sandbox.load(&image);
    let (id, created) = (short(&image.id()), created(&sandbox, "app:1"));
    let width = created.len().max("CREATED".len());
    assert_eq!(
        sandbox.mica(["history", "app:1"]).ok().stdout(),
        format!(
            "IMAGE          {:width$}   CREATED BY                                      SIZE      COMMENT\n\
             {id}   {created:width$}   /bin/sh -c #(nop)  CMD [\"a very long command…   0B        \n\
             <missing>      {created:width$}   layer 2                                         5B        \n\
             <missing>      {created:width$}   layer 1                                         4.61kB    \n",
            "CREATED"
        )
    );
    let exact = sandbox
        .mica(["history", "--no-trunc", "-H=false", "app:1"])
        .ok()
        .stdout();
    let lines: Vec<&str> = exact.lines().collect();
    assert!(lines[0].contains("CREATED AT"), "{exact}");
    assert!(
        lines[1].starts_with(&format!("{}   2024-05-06T07:08:09Z   /bin/sh", image.id())),
        "{exact}"
    );
    assert!(lines[1].contains("that is cut\"]\\u{1b}[31m"), "{exact}");
    assert!(
        lines[3].contains("layer 1") && lines[3].contains(" 4613 "),
        "{exact}"
    );
    let quiet = sandbox.mica(["history", "-q", "app:1"]).ok().stdout();
    assert_eq!(quiet, format!("{id}\n<missing>\n<missing>\n"));
    let run = sandbox.mica(["history", "nothing"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such image: nothing:latest\n"
    );
}

#[test]
fn images_of_one_id_are_one() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("").layer(|l| l.file("a", "a")));
    assert_eq!(sandbox.mica(["images", "-q"]).ok().stdout(), "");
    let left = sandbox.mica(["images", "-aq"]).ok().stdout();
    assert_eq!(left.lines().count(), 1);
}
