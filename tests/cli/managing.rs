//! Pins, the trash, events, the log of a tag, the tree, and pruning by use: whole outputs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::{Sandbox, chains, image, short, store};
use crate::common::image::ImageBuilder;

/// One event per line, without its time.
fn events(sandbox: &Sandbox, more: &[&str]) -> Vec<String> {
    let args = ["events", "--since", "1h", "--until", "0s"];
    let run = sandbox.mica(args.iter().chain(more)).ok();
    let lines = run.stdout();
    lines
        .lines()
        .map(|line| line.split_once(' ').unwrap_or_default().1.to_owned())
        .collect()
}

#[test]
fn a_pin_holds_whatever_the_verb() {
    let sandbox = store(&["app:1", "other:1"]);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    assert_eq!(sandbox.mica(["pin", "app:1"]).ok().stdout(), "");
    sandbox.mica(["pin", "app"]).code(1);
    assert_eq!(sandbox.mica(["pin"]).ok().stdout(), "app:1\n");
    let files = sandbox.store_files();
    let id = short(&image("app:1").id());
    for verb in [
        &["rmi", "app:1"][..],
        &["rmi", "-f", "app:1"],
        &["rmi", "-f", &id],
        &["tag", "other:1", "app:1"],
    ] {
        let run = sandbox.mica(verb).code(1);
        assert_eq!(
            (run.stdout().as_str(), run.stderr().as_str()),
            ("", "mica: app:1 is pinned; `mica unpin app:1` lets it go\n"),
            "{verb:?}"
        );
    }
    // Loading would move it.
    let archive = sandbox.path("new.tar");
    image("app:1")
        .layer(|l| l.file("third", "x"))
        .docker_archive(&archive);
    let run = sandbox.load_file(&archive).code(1);
    assert!(
        run.stderr().contains("app:1 is pinned"),
        "{}",
        run.describe()
    );
    assert_eq!(sandbox.store_files(), files);
    let all = sandbox.mica(["image", "prune", "-a", "-f"]).ok().stdout();
    assert!(
        all.contains("untagged: other:1\n") && !all.contains("app"),
        "{all}"
    );
    let df = sandbox.mica(["system", "df"]).ok().stdout();
    assert!(
        df.lines().nth(1).unwrap_or_default().ends_with(" 0B (0%)"),
        "{df}"
    );
    // Another name of the image is free to go.
    assert_eq!(
        sandbox.mica(["rmi", "app:2"]).ok().stdout(),
        "Untagged: app:2\n"
    );
    let run = sandbox.mica(["unpin", &id]).code(1);
    assert!(
        run.stderr().contains("only tags can be pinned"),
        "{}",
        run.describe()
    );
    sandbox.mica(["unpin", "app:1"]).ok();
    sandbox.mica(["rmi", "app:1"]).ok();
}

#[test]
fn retention_leaves_pinned_tags() {
    let sandbox = store(&["app:1.0", "app:1.1", "app:1.2"]);
    sandbox.mica(["pin", "app:1.0"]).ok();
    let keep = [
        "image",
        "prune",
        "--keep",
        "1",
        "--keep-by",
        "version",
        "-f",
    ];
    let run = sandbox.mica(keep).ok();
    assert!(
        run.stdout().contains("untagged: app:1.1\n"),
        "{}",
        run.describe()
    );
    let left = sandbox.mica(["images", "--format", "{{.Tag}}", "--sort", "tag"]);
    assert_eq!(left.ok().stdout(), "1.0\n1.2\n");
}

#[test]
fn what_is_in_the_trash_comes_back_with_its_names() {
    let sandbox = store(&["app:1", "other:1"]);
    sandbox.mica(["tag", "app:1", "app:2", "team/app:1"]).ok();
    let id = image("app:1").id();
    sandbox.mica(["trash", "--keep", "1h"]).ok();
    let removed = sandbox.mica(["rmi", "app:1", "app:2", "team/app:1"]).ok();
    assert_eq!(
        removed.stdout(),
        "Untagged: app:1\nUntagged: app:2\nUntagged: team/app:1\n"
    );
    let left = sandbox.mica(["images", "-aq"]).ok().stdout();
    assert_eq!(left.lines().count(), 1);
    let table = sandbox.mica(["trash"]).ok().stdout();
    let mut lines = table.lines();
    assert_eq!(
        lines
            .next()
            .map(|line| line.split_whitespace().collect::<Vec<_>>()),
        Some(vec![
            "REPOSITORY",
            "TAG",
            "IMAGE",
            "ID",
            "REMOVED",
            "KEPT",
            "FOR"
        ])
    );
    assert_eq!(lines.count(), 3, "{table}");
    let names = ["trash", "--format", "{{.Repository}}:{{.Tag}}"];
    assert!(sandbox.mica(names).ok().stdout().contains("team/app:1\n"));
    sandbox.mica(["check"]).ok();
    assert_eq!(
        sandbox.mica(["restore", "app"]).ok().stdout(),
        "Restored: app:1\nRestored: app:2\n"
    );
    // The rest by the image's ID, under another name.
    sandbox.mica(["rmi", "app:1", "app:2"]).ok();
    sandbox.mica(["tag", "other:1", "team/app:1"]).ok();
    let run = sandbox.mica(["restore", "team/app:1"]).code(1);
    assert!(
        run.stderr().contains("team/app:1 is on an image again"),
        "{}",
        run.describe()
    );
    let restored = sandbox.mica(["restore", "team/app:1", "back:1"]).ok();
    assert_eq!(restored.stdout(), "Restored: back:1\n");
    let shown = ["inspect", "-f", "{{.Id}}", "back:1"];
    assert_eq!(sandbox.mica(shown).ok().stdout(), format!("{id}\n"));
    let run = sandbox.mica(["restore", "never:1"]).code(1);
    assert!(run.stderr().contains("never:1"), "{}", run.describe());
}

#[test]
fn the_trash_ends_by_time_by_hand_and_by_option() {
    let sandbox = store(&["app:1", "other:1"]);
    let own = |name: &str| {
        let hex = image(name).diff_ids()[1].replace("sha256:", "");
        sandbox.store().join("blobs/sha256").join(hex)
    };
    sandbox.mica(["rmi", "--trash", "1s", "app:1"]).ok();
    assert!(own("app:1").exists());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(sandbox.mica(["trash", "-q"]).status.code(), Some(125));
    // The next change frees it.
    sandbox.mica(["tag", "other:1", "other:2"]).ok();
    assert!(!own("app:1").exists());
    sandbox.mica(["trash", "--keep", "7d"]).ok();
    sandbox.mica(["rmi", "other:1", "other:2"]).ok();
    let df = sandbox.mica(["system", "df"]).ok().stdout();
    assert!(df.contains("\nTrash           1         0 "), "{df}");
    let dry = sandbox
        .mica(["trash", "--empty", "-f", "--dry-run"])
        .ok()
        .stdout();
    let real = sandbox.mica(["trash", "--empty", "--force"]).ok().stdout();
    let id = image("other:1").id();
    assert!(real.starts_with(&format!(
        "Deleted Images:\ndeleted: {id}\n\nTotal reclaimed space: "
    )));
    assert_eq!(dry.replace("reclaimable", "reclaimed"), real);
    assert!(!own("other:1").exists());
    assert_eq!(sandbox.mica(["trash"]).ok().stdout().lines().count(), 1);
    // Off for one verb; and pruning never uses it.
    sandbox.load(&image("app:1"));
    let gone = sandbox
        .mica(["rmi", "--trash", "off", "app:1"])
        .ok()
        .stdout();
    assert!(gone.contains("Deleted: "), "{gone}");
    sandbox.load(&image("app:1"));
    sandbox.mica(["image", "prune", "-af"]).ok();
    assert!(!own("app:1").exists());
}

#[test]
fn events_are_dockers_text() {
    let sandbox = Sandbox::new();
    let labels = serde_json::json!({"team": "x"});
    let labelled = image("app:1").config(|config| config["config"]["Labels"] = labels);
    sandbox.load(&labelled);
    sandbox.load(&image("other:1"));
    let (app, other) = (labelled.id(), image("other:1").id());
    sandbox.mica(["tag", "other:1", "app:1"]).ok();
    sandbox.mica(["rmi", "other:1", "app:1"]).ok();
    assert_eq!(
        events(
            &sandbox,
            &["--filter", "event=tag", "--filter", "event=untag"]
        ),
        [
            format!("image tag {app} (name=app:1, team=x)"),
            format!("image tag {other} (name=other:1)"),
            format!("image tag {other} (name=app:1, previous={app})"),
            format!("image untag {other} (name=other:1)"),
            format!("image untag {other} (name=app:1)"),
        ]
    );
    let of = |filter: &str| events(&sandbox, &["-f", filter]).len();
    assert_eq!(of("image=app"), 3);
    assert_eq!(of("image=app:1"), 3);
    assert_eq!(of("label=team=x"), 2);
    assert_eq!(of("type=volume"), 0);
    let deleted = events(&sandbox, &["-f", "event=delete"]);
    assert!(
        deleted[0].starts_with(&format!("image delete {other} (freed=")),
        "{deleted:?}"
    );
    let json = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "event=load",
    ];
    let run = sandbox.mica(json.iter().chain(&["--format", "json"])).ok();
    let first: serde_json::Value =
        serde_json::from_str(run.stdout().lines().next().expect("an event")).expect("JSON");
    assert_eq!(
        (
            &first["Type"],
            &first["Action"],
            &first["Actor"]["ID"],
            &first["scope"]
        ),
        (
            &"image".into(),
            &"load".into(),
            &app.clone().into(),
            &"local".into()
        )
    );
    assert_eq!(first["Actor"]["Attributes"]["name"], app);
    let run = sandbox.mica(
        json.iter()
            .chain(&["--format", "{{.Action}} {{.Actor.Attributes.team}}"]),
    );
    assert_eq!(run.ok().stdout(), "load x\nload <no value>\n");
    sandbox
        .mica(["volume", "create", "--label", "a=b", "data"])
        .ok();
    sandbox.mica(["volume", "rm", "data"]).ok();
    assert_eq!(
        events(&sandbox, &["-f", "type=volume"]),
        [
            "volume create data (a=b, driver=local)",
            "volume destroy data (a=b, driver=local)"
        ]
    );
    let of = |filter: &str| events(&sandbox, &["-f", filter]).len();
    assert_eq!(of("volume=data"), 2);
    let run = sandbox
        .mica(["events", "--until", "0s", "-f", "x=y"])
        .code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: invalid filter 'x'\n"
    );
    sandbox.mica(["events", "--since", "yesterday"]).code(125);
    sandbox.mica(["events", "--format", "{{"]).code(64);
}

#[test]
fn events_are_followed() {
    let sandbox = store(&["app:1"]);
    let mut command = sandbox.command();
    command.args(["events", "--filter", "event=tag"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("mica events");
    let out = child.stdout.take().expect("stdout");
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        // Nobody may wait any more.
        let _ = send.send(read.map(|_| line));
    });
    // It has to be there to see it: tags are put until one is seen.
    let mut seen = None;
    for n in 0..200 {
        sandbox.mica(["tag", "app:1", &format!("app:n{n}")]).ok();
        if let Ok(line) = receive.recv_timeout(std::time::Duration::from_millis(100)) {
            seen = Some(line.expect("a line"));
            break;
        }
    }
    child.kill().and_then(|()| child.wait()).expect("kill");
    let seen = seen.expect("an event within 20 s");
    assert!(
        seen.contains(" image tag sha256:") && seen.contains("(name=app:n"),
        "{seen}"
    );
}

#[test]
fn a_tag_knows_what_it_was_on() {
    let sandbox = store(&["app:latest", "other:1"]);
    sandbox.mica(["tag", "other:1", "app:latest"]).ok();
    sandbox.mica(["rmi", "app:latest"]).ok();
    sandbox.mica(["tag", "other:1", "app:latest"]).ok();
    let table = sandbox.mica(["tag", "--log", "app"]).ok().stdout();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let (first, second) = (
        short(&image("app:latest").id()),
        short(&image("other:1").id()),
    );
    assert_eq!(rows[0], ["IMAGE", "ID", "SINCE", "UNTIL"]);
    let ids: Vec<&str> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(ids, [second.as_str(), &second, &first]);
    assert_eq!(rows[1].last(), Some(&"now"));
    // One ends where the next begins.
    assert_eq!(rows[3][4..], rows[2][1..4]);
    let run = sandbox.mica(["tag", "--log", "never:1"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such image: never:1\n"
    );
    sandbox.mica(["tag", "--log", "app", "x"]).code(125);
    // Without the log what is now is known all the same.
    std::fs::remove_file(sandbox.store().join("events.log")).expect("the log");
    let table = sandbox
        .mica(["tag", "--log", "--no-trunc", "app"])
        .ok()
        .stdout();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains(&image("other:1").id()), "{table}");
}

#[test]
fn the_tree_shows_each_shared_layer_once() {
    let sandbox = store(&["app:1", "other:1"]);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    let layer = |image: &ImageBuilder, at: usize| short(&image.diff_ids()[at]);
    let (app, other) = (image("app:1"), image("other:1"));
    let expected = format!(
        "{}  4.61kB\n├── {}  5B  app:1, app:2 ({})\n└── {}  7B  other:1 ({})\n",
        layer(&app, 0),
        layer(&app, 1),
        short(&app.id()),
        layer(&other, 1),
        short(&other.id()),
    );
    assert_eq!(sandbox.mica(["tree"]).ok().stdout(), expected);
    assert_eq!(sandbox.mica(["images", "--tree"]).ok().stdout(), expected);
    let one = sandbox.mica(["tree", "other", "--no-trunc"]).ok().stdout();
    assert_eq!(one.lines().count(), 2, "{one}");
    assert!(
        one.contains(&other.id()) && one.contains(&app.diff_ids()[0]),
        "{one}"
    );
    // What is put on another image hangs below it.
    let child = ImageBuilder::new("child:1")
        .layer(|l| l.file("shared", vec![b's'; 4_613]))
        .layer(|l| l.file("own", "app:1"))
        .layer(|l| l.file("third", "x"));
    sandbox.load(&child);
    let tree = sandbox.mica(["image", "tree"]).ok().stdout();
    assert!(tree.contains("\n│   └── "), "{tree}");
    assert_eq!(Sandbox::new().mica(["tree"]).ok().stdout(), "");
}

#[test]
fn the_least_recently_used_go_first() {
    let sandbox = store(&["a:1", "b:1", "c:1"]);
    let names = ["a:1", "b:1", "c:1"];
    // What is used is noted at most once an hour; the times are set back.
    let manifest = |name: &str| -> std::path::PathBuf {
        let run = sandbox.mica(["images", "-q", "--no-trunc", name]).ok();
        let index = std::fs::read_to_string(sandbox.store().join("index.json")).expect("index");
        let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
        let entries = index["manifests"].as_array().expect("entries").clone();
        let is_it = |e: &&serde_json::Value| {
            e["annotations"]["io.mica.image"].as_str() == Some(run.stdout().trim())
        };
        let found = entries.iter().find(is_it).expect("the image");
        let hex = found["digest"]
            .as_str()
            .expect("a digest")
            .replace("sha256:", "");
        sandbox.store().join("blobs/sha256").join(hex)
    };
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    // In the future: an image is never used before it came here.
    for (name, hours) in names.iter().zip([3, 1, 2]) {
        let file = std::fs::File::open(manifest(name)).expect("the manifest");
        file.set_modified(now + hour * hours).expect("utimens");
    }
    let shown = |filter: &str| {
        let args = [
            "images",
            "--filter",
            filter,
            "--format",
            "{{.Repository}}",
            "--sort",
            "repository",
        ];
        sandbox.mica(args).ok().stdout()
    };
    assert_eq!(shown("used=1h"), "");
    assert_eq!(shown("used=-90m"), "b\n");
    assert_eq!(shown("used=-150m"), "b\nc\n");
    assert_eq!(
        sandbox
            .mica(["images", "--filter", "used=x"])
            .code(1)
            .stderr(),
        "Error response from daemon: invalid filter 'used=[x]'\n"
    );
    let prune = |size: &str| {
        sandbox
            .mica(["image", "prune", "-f", "--max-size", size])
            .ok()
            .stdout()
    };
    assert_eq!(prune("1GB"), "Total reclaimed space: 0B\n");
    let chain = |name: &str, at: usize| chains(&image(name))[at].clone();
    let gone = prune("60kB");
    assert!(
        gone.starts_with(&format!(
            "Deleted Images:\nuntagged: b:1\ndeleted: {}\ndeleted: {}\n",
            image("b:1").id(),
            chain("b:1", 0)
        )),
        "{gone}"
    );
    sandbox.mica(["pin", "a:1"]).ok();
    let gone = prune("0");
    assert!(
        gone.contains("untagged: c:1\n") && !gone.contains("a:1"),
        "{gone}"
    );
    sandbox
        .mica(["image", "prune", "--max-size", "1x"])
        .code(125);
}

/// A name that goes to another image leaves the one it was on without any, for the lists and for pruning.
#[test]
fn a_name_that_moves_leaves_a_dangling_image() {
    let archive = |sandbox: &Sandbox, content: &str, name: &str| {
        let script = format!("echo {content} >content; tar -cf {name}.tar content; rm content");
        sandbox.sh(&script).ok();
    };
    let newer = image("app:1").layer(|l| l.file("third", "x"));
    for verb in ["load", "import", "tag"] {
        let sandbox = Sandbox::new();
        if verb == "import" {
            archive(&sandbox, "one", "old");
            archive(&sandbox, "two", "new");
            sandbox.mica(["import", "old.tar", "app:1"]).ok();
        } else {
            sandbox.load(&image("app:1"));
        }
        let old = sandbox.mica(["images", "-q"]).ok().stdout();
        let old = old.trim();
        match verb {
            "import" => drop(sandbox.mica(["import", "new.tar", "app:1"]).ok()),
            "load" => {
                let said = sandbox.load(&newer).stdout();
                let words = "The image app:1 already exists, renaming the old one with ID ";
                assert!(said.contains(words), "{said}");
            }
            _ => {
                sandbox.load(&image("other:1"));
                sandbox.mica(["tag", "other:1", "app:1"]).ok();
            }
        }
        let dangling = ["images", "-f", "dangling=true"];
        let table = sandbox.mica(dangling).ok().stdout();
        let lines: Vec<_> = table.lines().collect();
        let row = format!("<none>       <none>    {old}   ");
        assert!(
            lines.len() == 2 && lines[1].starts_with(&row),
            "{verb}: {table}"
        );
        let all = sandbox.mica(["images", "-a"]).ok().stdout();
        assert!(all.contains(&format!("\n{row}")), "{verb}: {all}");
        let named = sandbox.mica(["images"]).ok().stdout();
        assert!(!named.contains(old), "{verb}: {named}");
        let pruned = sandbox.mica(["image", "prune", "-f"]).ok().stdout();
        let words = format!("Deleted Images:\ndeleted: sha256:{old}");
        assert!(pruned.starts_with(&words), "{verb}: {pruned}");
        let left = sandbox.mica(["images", "-a"]).ok().stdout();
        assert!(!left.contains(old) && left.contains("app "), "{left}");
        sandbox.mica(["check"]).ok();
    }
}

/// Whatever is changed through a mount, volumes as well.
#[test]
fn regression_fuse_every_event_of_a_mount_says_who_asked() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let mount = sandbox.mount();
    let before = events(&sandbox, &[]).len();
    let host = sandbox.mkdir("host");
    let volumes = mount.path("volumes");
    fs::create_dir(volumes.join("first")).unwrap();
    fs::rename(volumes.join("first"), volumes.join("second")).unwrap();
    fs::remove_dir(volumes.join("second")).unwrap();
    // The kernel is told that it is a link, and shows a directory.
    let _ = std::os::unix::fs::symlink(&host, volumes.join("bound"));
    fs::remove_dir(volumes.join("bound")).unwrap();
    std::os::unix::fs::symlink("1", mount.image("app/2")).unwrap();
    fs::rename(mount.image("app/2"), mount.image("app/3")).unwrap();
    fs::remove_dir(mount.image("app/3")).unwrap();
    let all = events(&sandbox, &[]);
    let (_, ours) = all.split_at(before);
    let actions: Vec<&str> = ours
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let expected = [
        "create", "destroy", "create", "destroy", "create", "destroy", "tag", "untag", "tag",
        "untag",
    ];
    assert_eq!(actions, expected, "{ours:#?}");
    let who = format!("pid={}, uid=0", std::process::id());
    for line in ours {
        assert!(line.contains(&who), "{line}");
    }
}
