use super::{Sandbox, chains, image, short, sleeper, store};
use crate::common::image::ImageBuilder;

/// Disk space of blobs and indexes, as `du` counts.
fn used(sandbox: &Sandbox) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = sandbox.store_files();
    let data = files.iter().filter(|(path, _)| {
        let path = path.to_string_lossy();
        path.contains("/store/blobs/") || path.contains("/store/layers/")
    });
    data.map(|(path, _)| std::fs::metadata(path).expect("stat").blocks() * 512)
        .sum()
}

/// docker's `Total reclaimed space:` of some bytes, as an independent reading of four significant digits.
pub(super) fn human(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{}", ["B", "kB", "MB"][unit])
}

/// Three images, of which one has lost its name to another.
fn with_dangling() -> Sandbox {
    let sandbox = store(&["app:1", "old:1", "other:1"]);
    sandbox.mica(["tag", "other:1", "old:1"]).ok();
    sandbox
}

#[test]
fn prune_asks_as_docker_does() {
    let sandbox = with_dangling();
    let files = sandbox.store_files();
    let id = image("old:1").id();
    for answer in ["", "n", "no", "yes", "N"] {
        let run = sandbox
            .sh(&format!(
                "echo {answer} | {} image prune",
                env!("CARGO_BIN_EXE_mica")
            ))
            .ok();
        let text = run.stdout();
        assert!(
            text.starts_with(&format!(
                "WARNING! This will remove all dangling images.\n  would delete: {}\n",
                short(&id)
            )) && text.ends_with("Are you sure you want to continue? [y/N] "),
            "{text}"
        );
        assert_eq!(sandbox.store_files(), files, "{answer}");
    }
    let run = sandbox
        .sh(&format!(
            "echo y | {} image prune",
            env!("CARGO_BIN_EXE_mica")
        ))
        .ok();
    let after = run
        .stdout()
        .split("[y/N] ")
        .last()
        .unwrap_or_default()
        .to_owned();
    assert!(
        after.starts_with(&format!(
            "Deleted Images:\ndeleted: {id}\ndeleted: {}\n\nTotal reclaimed space: ",
            chains(&image("old:1"))[0]
        )),
        "{after}"
    );
    // End of input is a no.
    let run = sandbox.mica(["image", "prune", "-a"]).ok();
    assert!(
        run.stdout().starts_with(
            "WARNING! This will remove all images that no process, mount or lease uses.\n"
        ),
        "{}",
        run.describe()
    );
    assert_eq!(
        sandbox.mica(["images", "-q"]).ok().stdout().lines().count(),
        2
    );
}

#[test]
fn dry_runs_say_what_is_done_and_what_is_freed() {
    let table: [&[&str]; 6] = [
        &["image", "prune"],
        &["image", "prune", "-a", "--filter", "label!=x"],
        &["image", "prune", "--keep", "0", "--filter", "reference=app"],
        &["system", "prune"],
        &["rmi", "old:1", "other:1"],
        &["rmi", "--filter", "dangling=true"],
    ];
    for arguments in table {
        let sandbox = with_dangling();
        if arguments[0] == "system" {
            let stray = sandbox.store().join("blobs/sha256").join("0".repeat(64));
            std::fs::write(stray, vec![0; 100_000]).expect("write");
        }
        let (files, before) = (sandbox.store_files(), used(&sandbox));
        let dry = sandbox
            .mica(arguments.iter().chain(&["--dry-run"]))
            .ok()
            .stdout();
        let forced: &[&str] = if arguments[0] == "rmi" {
            &[]
        } else {
            &["--force"]
        };
        // With both, nothing goes.
        let both = arguments.iter().chain(&["-f", "--dry-run"]);
        assert_eq!(sandbox.mica(both).ok().stdout(), dry, "{arguments:?}");
        assert_eq!(sandbox.store_files(), files, "{arguments:?}");
        let real = sandbox.mica(arguments.iter().chain(forced)).ok().stdout();
        let total = format!(
            "Total reclaimable space: {}\n",
            human(before - used(&sandbox))
        );
        assert!(dry.ends_with(&total), "{arguments:?}: {total}{dry}");
        match arguments[0] {
            "rmi" => assert_eq!(format!("{real}{total}"), dry, "{arguments:?}"),
            _ => assert_eq!(
                real,
                dry.replace("reclaimable", "reclaimed"),
                "{arguments:?}"
            ),
        }
        assert!(real.len() > 40, "nothing went: {arguments:?}");
        sandbox.mica(["check"]).ok();
        let again = sandbox.mica(["gc"]).ok().stdout();
        assert_eq!(again, "Total reclaimed space: 0B\n", "{arguments:?}");
    }
}

#[test]
fn prune_of_nothing_is_one_line() {
    let sandbox = store(&["app:1"]);
    for arguments in [
        &["image", "prune", "-f"][..],
        &["system", "prune", "-f"],
        &["image", "prune", "-af", "--filter", "until=100000d"],
        &["image", "prune", "-f", "--filter", "reference=app"],
    ] {
        let run = sandbox.mica(arguments).ok();
        assert_eq!(run.stdout(), "Total reclaimed space: 0B\n", "{arguments:?}");
    }
}

#[test]
fn keep_leaves_the_newest_versions() {
    let sandbox = store(&["app:1.9", "app:1.10", "app:1.8", "other:1"]);
    sandbox.mica(["tag", "app:1.10", "app:latest"]).ok();
    let keep = [
        "image",
        "prune",
        "-f",
        "--keep",
        "1",
        "--keep-by",
        "version",
    ];
    let run = sandbox.mica(keep).ok();
    let gone: Vec<_> = run
        .stdout()
        .lines()
        .filter_map(|line| line.strip_prefix("untagged: ").map(str::to_owned))
        .collect();
    assert_eq!(gone.len(), 2, "{}", run.describe());
    for name in ["app:1.8", "app:1.9"] {
        assert!(gone.contains(&name.to_owned()), "{gone:?}");
        sandbox.mica(["inspect", name]).code(1);
    }
    for name in ["app:1.10", "app:latest", "other:1"] {
        sandbox.mica(["inspect", name]).ok();
    }
}

#[test]
fn system_prune_asks_as_docker_does() {
    let sandbox = with_dangling();
    let run = sandbox
        .mica([
            "system",
            "prune",
            "-a",
            "--filter",
            "until=1h",
            "--filter",
            "label!=keep",
        ])
        .ok();
    let text = run.stdout();
    assert!(
        text.starts_with(
            "WARNING! This will remove:\n  - all stopped containers\n  - all images that no process, mount or lease uses\n  - what interrupted work has left\n\n  \
             Items to be pruned will be filtered with:\n  - until=1h\n  - label!=keep\n\n"
        ) && text.ends_with("\n\nAre you sure you want to continue? [y/N] "),
        "{text}"
    );
    let left = sandbox.mica(["images", "-aq"]).ok().stdout();
    assert_eq!(left.lines().count(), 3);
}

#[test]
fn filters_are_the_same_everywhere() {
    let sandbox = Sandbox::new();
    for (name, label) in [("app:1", "test"), ("app:2", "live")] {
        let mut image = image(name);
        image.config["config"]["Labels"] = serde_json::json!({ "stage": label });
        sandbox.load(&image);
    }
    let shown = |filter: &str| {
        let run = sandbox.mica(["images", "-f", filter]).ok();
        let rows = run.stdout();
        rows.lines()
            .skip(1)
            .filter_map(|row| row.split_whitespace().nth(1).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("label=stage"), ["1", "2"]);
    assert_eq!(shown("label=stage=live"), ["2"]);
    assert_eq!(shown("label!=stage=live"), ["1"]);
    assert_eq!(shown("reference=*:1"), ["1"]);
    let none: [&str; 0] = [];
    assert_eq!(shown("dangling=true"), none);
    let verbs: [&[&str]; 4] = [
        &["images"],
        &["rmi", "--dry-run"],
        &["image", "prune", "--dry-run"],
        &["system", "prune", "--dry-run"],
    ];
    let errors = [
        ("x=1", "Error response from daemon: invalid filter 'x'\n"),
        (
            "dangling=x",
            "Error response from daemon: invalid filter 'dangling=[x]'\n",
        ),
        (
            "until=x",
            "Error response from daemon: invalid filter 'until=[x]'\n",
        ),
        (
            "since=x",
            "Error response from daemon: No such image: x:latest\n",
        ),
    ];
    for verb in verbs {
        for (filter, error) in errors {
            let run = sandbox
                .mica(verb.iter().chain(&["--filter", filter]))
                .code(1);
            assert_eq!(
                (run.stdout().as_str(), run.stderr().as_str()),
                ("", error),
                "{verb:?}"
            );
        }
        let run = sandbox
            .mica(verb.iter().chain(&["--filter", "x"]))
            .code(125);
        assert!(
            run.stderr()
                .contains("bad format of filter (expected name=value)"),
            "{}",
            run.describe()
        );
    }
    let run = sandbox
        .mica(["rmi", "--filter", "label=stage=live", "app:*"])
        .ok();
    assert!(
        run.stdout().starts_with("Untagged: app:2\n"),
        "{}",
        run.describe()
    );
    assert_eq!(shown("label=stage"), ["1"]);
}

#[test]
fn df_is_dockers_table_and_what_prune_frees() {
    let sandbox = with_dangling();
    let before = used(&sandbox);
    assert_eq!(
        sandbox.mica(["system", "df"]).ok().stdout(),
        format!(
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          3         0         {:10}{} (100%)\n\
             Containers      0         0         0B        0B\n\
             Local Volumes   0         0         0B        0B\n\
             Build Cache     0         0         0B        0B\n",
            human(before),
            human(before)
        )
    );
    let long = sandbox.mica(["system", "df", "-v"]).ok().stdout();
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[..2], ["Images space usage:", ""], "{long}");
    assert!(
        lines[2].starts_with("REPOSITORY   TAG       IMAGE ID       CREATED"),
        "{long}"
    );
    assert!(
        lines[2].ends_with("SIZE      SHARED SIZE   UNIQUE SIZE   USERS"),
        "{long}"
    );
    let end = [
        "",
        "Containers space usage:",
        "",
        "CONTAINER ID   IMAGE     COMMAND   LOCAL VOLUMES   SIZE      CREATED   STATUS    NAMES",
        "",
        "Local Volumes space usage:",
        "",
        "VOLUME NAME   LINKS     SIZE",
        "",
        "Build cache usage: 0B",
        "",
    ];
    assert_eq!(lines[3 + 4..], end, "{long}");
    assert!(
        lines[3..7].iter().all(|line| line.ends_with(" 0")),
        "{long}"
    );
    sandbox.mica(["image", "prune", "-af"]).ok();
    assert_eq!(used(&sandbox), 0);
    assert_eq!(
        sandbox.mica(["system", "df"]).ok().stdout(),
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
         Images          0         0         0B        0B\n\
         Containers      0         0         0B        0B\n\
         Local Volumes   0         0         0B        0B\n\
         Build Cache     0         0         0B        0B\n"
    );
}

#[test]
fn fuse_what_is_used_is_neither_pruned_nor_reclaimable() {
    let sandbox = with_dangling();
    let mount = sandbox.mount();
    let mut user = sleeper(&mount.image("app/1"));
    let long = sandbox.mica(["images", "-l", "app"]);
    let df = sandbox.mica(["system", "df"]);
    let info = std::fs::read_to_string(mount.path("info/df"));
    let before = used(&sandbox);
    let pruned = sandbox.mica(["image", "prune", "-af"]);
    user.kill().and_then(|()| user.wait()).expect("kill");
    let freed = human(before - used(&sandbox));
    let long = long.ok().stdout();
    assert!(
        long.contains("SIZE      USERS\n") && long.ends_with(" 1\n"),
        "{long}"
    );
    let df = df.ok().stdout();
    let row = df.lines().nth(1).unwrap_or_default().to_owned();
    assert!(row.starts_with("Images          3         1 "), "{df}");
    assert!(row.contains(&format!(" {freed} (")), "{freed} {df}");
    let info = info.expect("info/df");
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let shown = words(info.lines().nth(1).unwrap_or_default());
    assert_eq!(shown[..shown.len() - 1], words(&row), "{info}");
    let pruned = pruned.ok().stdout();
    assert!(
        pruned.ends_with(&format!("Total reclaimed space: {freed}\n")),
        "{pruned}"
    );
    assert!(!pruned.contains("app:1"), "{pruned}");
    assert_eq!(
        sandbox.mica(["images", "-aq"]).ok().stdout(),
        format!("{}\n", short(&image("app:1").id()))
    );
    mount.unmount();
}

#[test]
fn sort_and_the_footer() {
    let sandbox = Sandbox::new();
    for (name, size) in [("b:1", 10), ("a:1", 30), ("c:1", 20)] {
        sandbox.load(&ImageBuilder::new(name).layer(|l| l.file("f", vec![b'x'; size])));
    }
    let order = |key: &str| {
        let table = sandbox.mica(["images", "--sort", key]).ok().stdout();
        table
            .lines()
            .skip(1)
            .filter_map(|row| row.chars().next())
            .collect::<String>()
    };
    assert_eq!(order("repository"), "abc");
    assert_eq!(order("size"), "bca");
    sandbox.mica(["images", "--sort", "x"]).code(125);
    // Only at a terminal: scripts that count lines see the table alone.
    let terminal = sandbox.sh(&format!(
        "script -qec '{} images' /dev/null </dev/null",
        env!("CARGO_BIN_EXE_mica")
    ));
    let terminal = terminal.ok().stdout();
    assert!(terminal.contains("3 names, 3 images, "), "{terminal}");
    assert_eq!(sandbox.mica(["images"]).ok().stdout().lines().count(), 4);
}
