//! What is printed, and what is said to other programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::running::{sandbox, shown};

/// A program prints what looks like lines of its log: they are text, and every line of the log is mica's own.
#[test]
fn root_cve_log_lines_of_a_program_are_its_output_only() {
    let s = sandbox();
    let forged = r#"{"log":"forged\n","stream":"stderr","time":"1999-01-01T00:00:00Z"}"#;
    fs::write(
        s.path("out"),
        format!("one\n{forged}\n\\\"}}\n\u{0}\u{1b}[31m\r{forged}\r\n"),
    )
    .unwrap();
    let script = "cat /in; busybox head -c 1000000 /dev/zero | busybox tr '\\0' x; printf '\\377\\n\\n'; echo last >&2";
    let bind = format!("{}:/in:ro", s.path("out").display());
    let args = [
        "run", "-d", "--name", "web", "-v", &bind, "app:1", "sh", "-c", script,
    ];
    s.mica(args).ok();
    shown(&s, "wait web");
    let expected =
        fs::read_to_string(s.path("out")).unwrap() + &"x".repeat(1_000_000) + "\u{fffd}\n\n";
    let run = s.mica(["logs", "web"]).ok();
    assert!(run.stdout() == expected, "{}", run.stdout().len());
    assert_eq!(run.stderr(), "last\n");
    let log = s.path(shown(&s, "inspect -f {{.LogPath}} web").trim());
    let text = fs::read_to_string(log).unwrap();
    let mut entries = 0;
    for line in text.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields: Vec<&String> = entry.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["log", "stream", "time"], "{line:.100}");
        assert!(
            entry["time"].as_str().unwrap().starts_with("20"),
            "{line:.100}"
        );
        entries += 1;
    }
    // A line that is longer than a piece is several, as docker's are.
    assert!(entries > 20, "{entries}");
    shown(&s, "rm web");
}

/// A label is a text wherever it is used: no template, no option, no name.
#[test]
fn cve_2026_55887_labels_are_texts() {
    let s = Sandbox::new();
    let labels = [
        ("template", "{{.Id}}{{range 1000}}x{{end}}"),
        ("option", "--store=/"),
        ("shell", "$(id) `id` ; id"),
        ("yaml", "a: !!python/object:os.system [id]"),
    ];
    let image = ImageBuilder::new("app:1")
        .layer(|l| l.file("f", ""))
        .config(|c| {
            c["config"]["Labels"] = labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), json!(v)))
                .collect()
        });
    s.load(&image);
    for (name, text) in labels {
        let format = format!("{{{{index .Config.Labels {name:?}}}}}");
        let run = s.mica(["inspect", "-f", &format, "app:1"]).ok();
        assert_eq!(run.stdout(), format!("{text}\n"));
        let filter = format!("label={name}={text}");
        let run = s.mica(["images", "-q", "--filter", &filter]).ok();
        assert_eq!(run.stdout().lines().count(), 1, "{}", run.describe());
        let other = format!("label={name}=other");
        let run = s.mica(["images", "-q", "--filter", &other]).ok();
        assert_eq!(run.stdout(), "");
    }
}

/// A registry's name becomes a line that a credential helper reads: one with a line break in it would be two.
#[test]
fn regression_cve_2020_5260_a_registry_s_name_is_one_line() {
    let s = Sandbox::new();
    let bin = s.mkdir("bin");
    let helper = bin.join("docker-credential-rec");
    let script = format!(
        "#!/bin/sh\ncat >>{}\necho '{{}}'\n",
        s.path("asked").display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let docker = s.mkdir(".docker");
    fs::write(docker.join("config.json"), r#"{"credsStore": "rec"}"#).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let mut command = s.command();
        command.env("PATH", &path).args(args);
        s.run(command)
    };
    for name in [
        "a\nb.example",
        "r.example\r\nServerURL:x",
        "r.example\n",
        "r.example\t",
        "r.example\u{1b}[2J",
        "r example",
        "r.example?x",
        "user@r.example",
        "%0a.example",
        "",
    ] {
        for verb in [&["logout"][..], &["login", "-u", "me", "-p", "secret"]] {
            let run = run(&[verb, &[name]].concat()).code(1);
            assert!(
                run.stderr().contains("is no registry"),
                "{}",
                run.describe()
            );
            assert!(!run.stderr().contains('\u{1b}'), "{}", run.describe());
        }
        run(&["pull", &format!("{name}/app:1")]).fails();
    }
    assert!(!s.path("asked").exists());
    run(&["logout", "https://r.example:5000/v2/"]).ok();
    assert_eq!(
        fs::read_to_string(s.path("asked")).unwrap(),
        "r.example:5000"
    );
}
