use super::{Sandbox, created, image, short, store};

#[test]
fn images_by_format() {
    let sandbox = store(&["app:1"]);
    let (id, created) = (short(&image("app:1").id()), created(&sandbox, "app:1"));
    let table: [(&[&str], String); 7] = [
        (
            &["--format", "{{.Repository}}:{{.Tag}} {{.Size}}"],
            "app:1 4.62kB\n".to_owned(),
        ),
        (
            &["--format", r"{{.ID}}\t{{.Digest}}"],
            format!("{id}\t<none>\n"),
        ),
        (&["-q", "--format", "{{.Tag}}"], "1\n".to_owned()),
        (&["-q", "--format", "table"], format!("{id}\n")),
        (
            &["--no-trunc", "--format", "{{.ID}}"],
            format!("{}\n", image("app:1").id()),
        ),
        (
            &[
                "--format",
                r"table {{.ID}}\t{{upper .Repository}}\t{{.CreatedAt}}",
            ],
            format!(
                "IMAGE ID       REPOSITORY   CREATED AT\n{id}   APP          2024-05-06 07:08:09 +0000 UTC\n"
            ),
        ),
        (
            &["--format", "json"],
            format!(
                "{{\"Containers\":\"N/A\",\"CreatedAt\":\"2024-05-06 07:08:09 +0000 UTC\",\"CreatedSince\":\"{created}\",\
                 \"Digest\":\"<none>\",\"ID\":\"{id}\",\"Repository\":\"app\",\"SharedSize\":\"N/A\",\"Size\":\"4.62kB\",\
                 \"Tag\":\"1\",\"UniqueSize\":\"N/A\"}}\n"
            ),
        ),
    ];
    for (arguments, expected) in table {
        let run = sandbox.mica(["images"].iter().chain(arguments)).ok();
        assert_eq!(run.stdout(), expected, "{arguments:?}");
    }
    // A header and nothing below it, without a store too.
    let empty = Sandbox::new();
    let run = empty
        .mica(["images", "--format", r"table {{.ID}}\t{{.Tag}}"])
        .ok();
    assert_eq!(run.stdout(), "IMAGE ID   TAG\n");
    assert_eq!(empty.mica(["images", "--format", "json"]).ok().stdout(), "");
}

#[test]
fn inspect_by_format() {
    let sandbox = Sandbox::new();
    let mut one = image("app:1");
    one.config["config"]["Labels"] = serde_json::json!({"stage": "test", "a.b": "c\u{1b}[31m"});
    sandbox.load(&one);
    let table = [
        ("{{.Architecture}}", "amd64\n"),
        ("{{.Id}}", &format!("{}\n", one.id())),
        ("{{.Created}}", "2024-05-06T07:08:09.123456789Z\n"),
        ("{{index .RepoTags 0}}", "app:1\n"),
        (
            "{{json .Config.Labels}}",
            "{\"a.b\":\"c\\u001b[31m\",\"stage\":\"test\"}\n",
        ),
        (
            "{{.Config.Labels.stage}} {{.Config.Labels.none}}",
            "test <no value>\n",
        ),
        (
            "{{range $k, $v := .Config.Labels}}{{$k}} {{end}}",
            "a.b stage \n",
        ),
        ("{{range .RepoTags}}{{println .}}{{end}}", "app:1\n\n"),
        (
            "{{json .Config.Cmd}} {{.Config.Cmd}}",
            "[\"/bin/sh\"] [/bin/sh]\n",
        ),
        // What the config does not have is empty, and not in JSON.
        (
            "[{{.Config.User}}]{{len .Config.Volumes}}{{.Config.OnBuild}}{{.Variant}}",
            "[]0[]\n",
        ),
        ("{{len .RootFS.Layers}} {{.RootFS.Type}}", "2 layers\n"),
        ("{{.Config.Labels | json | len}}", "36\n"),
    ];
    for (format, expected) in table {
        let run = sandbox.mica(["inspect", "-f", format, "app:1"]).ok();
        assert_eq!(run.stdout(), expected, "{format}");
    }
    let run = sandbox
        .mica([
            "inspect", "--format", "{{.Os}}", "app:1", "nothing", "app:1",
        ])
        .code(1);
    assert_eq!(run.stdout(), "linux\nlinux\n");
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such object: nothing\n"
    );
    let run = sandbox
        .mica(["image", "inspect", "-f", "json", "app:1"])
        .ok();
    assert!(
        run.stdout().starts_with("[{\"Id\":\"sha256:"),
        "{}",
        run.describe()
    );
    assert_eq!(run.stdout().lines().count(), 1);
    // Bytes for a script, nothing that drives a terminal for a person.
    let label = "{{index .Config.Labels \"a.b\"}}";
    let raw = sandbox
        .mica(["inspect", "-f", label, "app:1"])
        .ok()
        .stdout();
    assert_eq!(raw, "c\u{1b}[31m\n");
    let shown = sandbox
        .sh(&format!(
            "script -qec \"{} inspect -f '{{{{json .Config.Labels}}}}{{{{.Config.Labels}}}}' app:1\" /dev/null </dev/null",
            env!("CARGO_BIN_EXE_mica")
        ))
        .ok();
    assert!(!shown.stdout().contains('\u{1b}'), "{}", shown.describe());
    assert!(
        shown.stdout().contains("\\u{1b}[31m"),
        "{}",
        shown.describe()
    );
}

#[test]
fn history_and_df_by_format() {
    let sandbox = store(&["app:1"]);
    let id = short(&image("app:1").id());
    let run = sandbox
        .mica([
            "history",
            "--format",
            "{{.ID}} {{.CreatedBy}} {{.Size}} {{.CreatedAt}}",
            "app:1",
        ])
        .ok();
    assert_eq!(
        run.stdout(),
        format!(
            "{id} layer 2 5B 2024-05-06T07:08:09Z\n<missing> layer 1 4.61kB 2024-05-06T07:08:09Z\n"
        )
    );
    let run = sandbox
        .mica([
            "history",
            "--format",
            r"table {{.ID}}\t{{.Size}}",
            "-H=false",
            "app:1",
        ])
        .ok();
    assert_eq!(
        run.stdout(),
        format!("IMAGE          SIZE\n{id}   5\n<missing>      4613\n")
    );
    let run = sandbox
        .mica(["history", "-q", "--format", "table", "app:1"])
        .ok();
    assert_eq!(run.stdout(), format!("{id}\n<missing>\n"));
    let run = sandbox
        .mica([
            "system",
            "df",
            "--format",
            "{{.Type}} {{.TotalCount}} {{.Active}}",
        ])
        .ok();
    assert_eq!(
        run.stdout(),
        "Images 1 0\nContainers 0 0\nLocal Volumes 0 0\nBuild Cache 0 0\n"
    );
    let run = sandbox.mica(["system", "df", "--format", "json"]).ok();
    let rows = run.stdout();
    let row = super::json(rows.lines().next().unwrap_or_default());
    assert_eq!(
        (&row["Type"], &row["TotalCount"]),
        (&"Images".into(), &"1".into())
    );
    assert_eq!(row.as_object().map(serde_json::Map::len), Some(5));
}

#[test]
fn bad_templates_are_status_64_and_failing_ones_1() {
    let sandbox = store(&["app:1"]);
    let verbs: [&[&str]; 4] = [
        &["images", "--format"],
        &["inspect", "app:1", "-f"],
        &["history", "app:1", "--format"],
        &["system", "df", "--format"],
    ];
    for verb in verbs {
        let run = sandbox.mica(verb.iter().chain(&["{{nope .ID}}"])).code(64);
        assert_eq!(
            (run.stdout().as_str(), run.stderr().as_str()),
            (
                "",
                "mica: template parsing error: template: :1: function \"nope\" not defined\n"
            ),
            "{verb:?}"
        );
        sandbox.mica(verb.iter().chain(&["{{.ID"])).code(64);
        let run = sandbox.mica(verb.iter().chain(&["{{.Nope}}"])).code(1);
        assert_eq!(
            (run.stdout().as_str(), run.stderr().as_str()),
            (
                "",
                "mica: template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"\n"
            ),
            "{verb:?}"
        );
    }
}
