//! What is not done again, what is, and what of it goes.

use super::*;

const FILE: &str = "FROM app:1\nARG A=1\nENV E=1\nCOPY a /a\nRUN ls / > /out\nLABEL l=1\n";

fn fresh() -> Sandbox {
    let s = sandbox();
    context(
        &s,
        "c",
        &[("Dockerfile", FILE), ("a", "one"), ("b", "other")],
    );
    build(&s, "c", &["-t", "t:1"]).ok();
    s
}

/// How many of the five steps are done anew.
fn anew(s: &Sandbox, more: &[&str]) -> usize {
    let run = build(s, "c", more).ok();
    5 - cached(&run)
}

#[test]
fn root_build_cache_knows_what_a_step_depends_on() {
    let s = fresh();
    assert_eq!(anew(&s, &[]), 0);
    let file = s.path("c/Dockerfile");
    let a = s.path("c/a");
    // What changes nothing: another file of the context, times, owners, blanks and comments.
    fs::write(s.path("c/b"), "changed").unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::options()
        .append(true)
        .open(&a)
        .unwrap()
        .set_modified(old)
        .unwrap();
    std::os::unix::fs::chown(&a, Some(5), Some(6)).unwrap();
    fs::write(
        &file,
        format!("# a comment\n{}", FILE.replace("ENV ", "\n   ENV   ")),
    )
    .unwrap();
    assert_eq!(anew(&s, &[]), 0);
    // What does, and from which step on.
    for (what, more, steps) in [
        (FILE.replace("l=1", "l=2"), vec![], 1),
        (FILE.replace("/out", "/out2"), vec![], 2),
        (FILE.replace("COPY a /a", "COPY a /b"), vec![], 3),
        (FILE.replace("COPY a", "COPY --chown=1 a"), vec![], 3),
        (FILE.replace("COPY a", "COPY --chmod=600 a"), vec![], 3),
        (FILE.replace("COPY a", "COPY b"), vec![], 3),
    ] {
        fs::write(&file, &what).unwrap();
        assert_eq!(anew(&s, &more), steps, "{what}");
        assert_eq!(anew(&s, &more), 0, "{what}");
    }
    fs::write(&file, FILE).unwrap();
    // An argument in scope is part of RUN; ENV too, but of COPY neither is.
    assert_eq!(anew(&s, &["--build-arg", "A=2"]), 2);
    fs::write(&file, FILE.replace("E=1", "E=2")).unwrap();
    assert_eq!(anew(&s, &[]), 3);
    fs::write(&file, FILE).unwrap();
    fs::write(&a, "two").unwrap();
    assert_eq!(anew(&s, &[]), 3);
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut fs::metadata(&a).unwrap().permissions(),
        0o755,
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&a, mode).unwrap();
    assert_eq!(anew(&s, &[]), 3);
    assert_eq!(anew(&s, &["--no-cache"]), 5);
    assert_eq!(anew(&s, &[]), 0);
}

#[test]
fn root_build_cache_is_no_image_and_survives_removals() {
    let s = fresh();
    assert_eq!(shown(&s, "images -aq").lines().count(), 2);
    assert_eq!(shown(&s, "images -q -f dangling=true"), "");
    let before = id(&s, "t:1");
    shown(&s, "rmi t:1");
    shown(&s, "image prune -af");
    shown(&s, "gc");
    s.load(&crate::running::image("app:1"));
    assert_eq!(anew(&s, &["-t", "t:1"]), 0);
    assert_eq!(id(&s, "t:1"), before);
    assert_eq!(shown(&s, "check"), shown(&s, "check"));
}

#[test]
fn root_build_cache_is_pruned() {
    let s = fresh();
    let row = |s: &Sandbox| -> Vec<String> {
        let text = shown(s, "system df");
        let line = text
            .lines()
            .find(|line| line.starts_with("Build Cache"))
            .unwrap();
        line["Build Cache".len()..]
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    // Two layers, both of which the image has.
    assert_eq!(row(&s)[..3], ["2", "2", "0B"]);
    assert!(shown(&s, "builder prune -f").ends_with("Total reclaimed space: 0B\n"));
    shown(&s, "rmi t:1");
    assert_eq!(row(&s)[..2], ["2", "0"]);
    let plan = shown(&s, "builder prune --dry-run");
    assert!(plan.contains("Deleted build cache objects:\n"), "{plan}");
    assert_eq!(row(&s)[0], "2");
    assert!(shown(&s, "builder prune -f --filter until=1h").ends_with(" 0B\n"));
    assert!(shown(&s, "builder prune -f --keep-storage 1GB").ends_with(" 0B\n"));
    let pruned = shown(&s, "builder prune -f");
    assert!(!pruned.ends_with(" 0B\n"), "{pruned}");
    assert_eq!(row(&s)[..3], ["0", "0", "0B"]);
    assert_eq!(anew(&s, &["-t", "t:1"]), 5);
    assert!(shown(&s, "builder prune -af").contains("Deleted build cache objects:"));
    assert_eq!(anew(&s, &[]), 5);
    // `system prune` takes what no image has.
    shown(&s, "rmi t:1");
    shown(&s, "system prune -af");
    assert_eq!(row(&s)[0], "0");
    for bad in [
        "builder prune -f --filter x=1",
        "builder prune -f --filter until=never",
        "builder prune -f --keep-storage much",
    ] {
        crate::running::mica(&s, bad).fails();
    }
}

#[test]
fn root_build_cache_from_an_image_counts_when_it_is_named() {
    let s = fresh();
    let tar = s.path("t.tar");
    s.mica(["save", "-o", tar.to_str().unwrap(), "t:1"]).ok();
    shown(&s, "rmi t:1");
    shown(&s, "builder prune -af");
    s.load_file(&tar).ok();
    // A loaded image never makes a hit by itself.
    let first = build(&s, "c", &["-t", "u:1"]).ok();
    assert_eq!(cached(&first), 0);
    shown(&s, "builder prune -af");
    let trusting = build(
        &s,
        "c",
        &["-t", "u:2", "--cache-from", "t:1", "--cache-from", "none:1"],
    )
    .ok();
    assert_eq!(cached(&trusting), 5);
    assert_eq!(id(&s, "u:2"), id(&s, "t:1"));
}

/// CVE-2024-24557: an image that claims to be what the Dockerfile would make.
#[test]
fn regression_root_a_poisoned_image_is_no_cache() {
    let s = sandbox();
    let evil = ImageBuilder::new("evil:1")
        .layer(|l| l.file("evil", "evil"))
        .config(|config| {
            config["history"] =
                serde_json::json!([{"created_by": "/bin/sh -c #(nop) COPY file:0 in /f "}]);
        });
    s.load(&evil);
    context(
        &s,
        "c",
        &[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "good")],
    );
    let run = build(&s, "c", &["-t", "t:1"]).ok();
    assert_eq!(cached(&run), 0);
    let run = build(
        &s,
        "c",
        &["-t", "t:2", "--no-cache", "--cache-from", "evil:1"],
    )
    .ok();
    assert_eq!(cached(&run), 0);
    assert_eq!(listing(&s, "t:1", ""), listing(&s, "t:2", ""));
}

#[test]
fn root_build_two_at_once_end_alike() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[
            (
                "Dockerfile",
                "FROM app:1\nRUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /id\nCOPY a /a\nRUN cp /id /again 2>/dev/null || cat /id > /again\n",
            ),
            ("a", "a"),
        ],
    );
    let start = || {
        let mut command = s.command();
        command.args(["build", "-q"]).arg(s.path("c"));
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()];
    let ids: Vec<String> = both
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(ids[0].len(), 72);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn root_build_that_is_killed_leaves_its_cache_and_nothing_else() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[(
            "Dockerfile",
            "FROM app:1\nRUN echo one > /one\nRUN echo two > /two; echo now; sleep 1000\n",
        )],
    );
    let mut command = s.command();
    command.arg("build").arg(s.path("c")).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    while lines.next().unwrap().unwrap() != "now" {}
    child.kill().unwrap();
    child.wait().unwrap();
    // Its processes are gone when nobody has its output any more.
    for line in lines {
        line.unwrap();
    }
    fs::write(s.path("c/Dockerfile"), "FROM app:1\nRUN echo one > /one\n").unwrap();
    let run = build(&s, "c", &["-q"]).ok();
    assert_eq!(run.stdout().len(), 72);
    assert_eq!(left(&s), [] as [PathBuf; 0]);
    assert_eq!(fs::read_dir(s.store().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(s.store().join("leases")).unwrap().count(), 0);
}
