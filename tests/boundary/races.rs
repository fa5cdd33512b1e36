//! Whoever may write a volume, or owns a directory beside a bind's source, swaps things while a container starts.

use std::os::unix::fs::symlink;

use super::*;

/// A volume `vol` with the directory `sub`, and in it `f`.
fn with_subpath() -> (Sandbox, PathBuf) {
    let s = sandbox();
    shown(
        &s,
        "run --rm -v vol:/v app:1 -- mkdir /v/sub; echo inside > /v/sub/f",
    );
    let data = data(&s, "vol");
    (s, data)
}

const SUBPATH: &str =
    "run --rm --mount type=volume,source=vol,volume-subpath=sub,target=/m app:1 cat /m/f /m/key";

#[test]
fn root_regression_subpath_swapped_for_a_link_before_it_is_opened() {
    let (s, data) = with_subpath();
    let secret = secret(&s);
    for target in [
        secret.clone(),
        PathBuf::from("/proc/1/root").join(secret.strip_prefix("/").unwrap()),
    ] {
        let held = Held::at(&s, "sources", SUBPATH);
        fs::rename(data.join("sub"), data.join("kept")).unwrap();
        symlink(&target, data.join("sub")).unwrap();
        let output = held.end();
        assert_eq!(text(&output.stdout), "");
        let errors = text(&output.stderr);
        assert!(
            errors.contains("cannot access path \"sub\" in the volume"),
            "{errors}"
        );
        assert_eq!(output.status.code(), Some(125));
        fs::remove_file(data.join("sub")).unwrap();
        fs::rename(data.join("kept"), data.join("sub")).unwrap();
    }
    assert!(left(&s).is_empty());
}

#[test]
fn root_regression_subpath_swapped_for_a_link_after_it_was_opened() {
    let (s, data) = with_subpath();
    let held = Held::at(&s, "found", SUBPATH);
    fs::rename(data.join("sub"), data.join("kept")).unwrap();
    symlink(secret(&s), data.join("sub")).unwrap();
    let output = held.end();
    // What was found, wherever it is now.
    assert_eq!(text(&output.stdout), "inside\n");
}

#[test]
fn root_regression_subpath_through_links_that_stay_inside_or_do_not() {
    let (s, data) = with_subpath();
    let secret = secret(&s);
    symlink("sub", data.join("in")).unwrap();
    symlink("../../../../../../../../../../etc", data.join("up")).unwrap();
    symlink(&secret, data.join("out")).unwrap();
    let run = |path: &str| {
        mica(
            &s,
            &format!(
                "run --rm --mount type=volume,src=vol,volume-subpath={path},dst=/m app:1 ls /m"
            ),
        )
    };
    assert_eq!(run("in").ok().stdout(), "f\n");
    for path in ["up", "out", "out/key", "in/../../../..", "/etc"] {
        let refused = run(path).code(125);
        assert!(
            refused.stderr().contains("cannot access path"),
            "{}",
            refused.describe()
        );
    }
    s.load(&image("tree:1").layer(|l| {
        l.dir("set", 0o755)
            .file("set/one", "1\n")
            .symlink("out", "../../app")
            .symlink("abs", "/etc")
    }));
    for path in ["out", "../", "set/../../..", "abs/../.."] {
        mica(
            &s,
            &format!(
                "run --rm --mount type=image,src=tree:1,image-subpath={path},dst=/m app:1 ls /m"
            ),
        )
        .code(125);
    }
}

#[test]
fn root_regression_bind_swapped_into_the_store_before_it_is_opened() {
    let s = sandbox();
    let outer = s.mkdir("outer");
    let source = s.mkdir("outer/source");
    for target in [
        s.store(),
        s.store().join("volumes"),
        s.dir().to_owned(),
        PathBuf::from("/"),
    ] {
        let line = format!("run --rm -v {}:/m app:1 ls /m", source.display());
        let held = Held::at(&s, "sources", &line);
        fs::rename(&source, outer.join("kept")).unwrap();
        symlink(&target, &source).unwrap();
        let output = held.end();
        assert_eq!(text(&output.stdout), "", "{}", target.display());
        let errors = text(&output.stderr);
        assert!(
            errors.contains("the store") || errors.contains("does not exist"),
            "{errors}"
        );
        fs::remove_file(&source).unwrap();
        fs::rename(outer.join("kept"), &source).unwrap();
    }
    // A file of the store.
    fs::write(outer.join("file"), "").unwrap();
    let line = format!(
        "run --rm -v {}:/m app:1 cat /m",
        outer.join("file").display()
    );
    let held = Held::at(&s, "sources", &line);
    fs::remove_file(outer.join("file")).unwrap();
    symlink(s.store().join("index.json"), outer.join("file")).unwrap();
    let output = held.end();
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("is part of the store"));
}

#[test]
fn root_regression_bind_swapped_into_the_store_after_it_was_checked() {
    let s = sandbox();
    let source = s.mkdir("outer/source");
    fs::write(source.join("f"), "meant\n").unwrap();
    let line = format!("run --rm -v {}:/m app:1 -- cat", source.display());
    let held = Held::at(&s, "found", line.replace("-- cat", "cat /m/f").as_str());
    fs::rename(&source, s.path("outer/kept")).unwrap();
    symlink(s.store(), &source).unwrap();
    let output = held.end();
    assert_eq!(text(&output.stdout), "meant\n");
}

/// M does not follow it either.
#[test]
fn root_regression_bind_volume_whose_directory_became_a_link() {
    let s = sandbox();
    let secret = secret(&s);
    for part in ["outer", "outer/www"] {
        let www = s.mkdir("outer/www");
        fs::write(www.join("f"), "meant\n").unwrap();
        shown(&s, &format!("volume create --bind {} www", www.display()));
        assert_eq!(shown(&s, "run --rm -v www:/m app:1 cat /m/f"), "meant\n");
        let swapped = s.path(part);
        fs::rename(&swapped, s.path("kept")).unwrap();
        s.mkdir("elsewhere/www");
        let target = if part == "outer" {
            s.path("elsewhere")
        } else {
            secret.clone()
        };
        symlink(target, &swapped).unwrap();
        let run = mica(&s, "run --rm -v www:/m app:1 ls /m").code(125);
        assert_eq!(run.stdout(), "");
        assert!(run.stderr().contains("symbolic link"), "{}", run.describe());
        fs::remove_file(&swapped).unwrap();
        fs::rename(s.path("kept"), &swapped).unwrap();
        assert_eq!(shown(&s, "run --rm -v www:/m app:1 cat /m/f"), "meant\n");
        shown(&s, "volume rm www");
    }
}

/// A second container puts something on a place in a volume that the first swaps for a link.
#[test]
fn root_regression_mount_destination_swapped_in_a_shared_volume() {
    let s = sandbox();
    let secret = secret(&s);
    shown(
        &s,
        "run --rm -v vol:/a -v other:/o app:1 -- mkdir -p /a/b/c; touch /o/mine",
    );
    let data = data(&s, "vol");
    for line in [
        "run --rm -v vol:/a -v other:/a/b/c app:1 ls /a/kept/c",
        "run --rm -v vol:/a -v other:/a/b/new/deep app:1 ls /a",
    ] {
        let held = Held::at(&s, "place", line);
        // Whatever it is about to mount, on the way there is a link to the host now.
        fs::rename(data.join("b"), data.join("kept")).unwrap();
        symlink(&secret, data.join("b")).unwrap();
        let _ = held.end();
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
        fs::remove_file(data.join("b")).unwrap();
        fs::rename(data.join("kept"), data.join("b")).unwrap();
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains("secret"), "{mounts}");
}

/// A directory of the host that is renamed without end keeps the kernel from telling where a path leads: the start gives up.
#[test]
fn root_regression_a_place_that_is_never_told_ends_the_start() {
    let (s, _) = with_subpath();
    let source = s.path("source");
    fs::create_dir(&source).unwrap();
    let trace = s.path("trace");
    let mica = s.command().get_program().to_owned();
    let mut strace = std::process::Command::new("strace");
    let inject = ["-e", "trace=openat2", "-e", "inject=openat2:error=EAGAIN"];
    strace.args(["-f", "-o"]).arg(&trace).args(inject);
    strace.arg(mica).arg("--store").arg(s.store());
    let bind = format!("{}:/data", source.display());
    strace.args(["run", "--rm", "-v", &bind, "app:1", "true"]);
    let run = s.run(strace).code(125);
    let text = run.stderr();
    assert!(text.contains("Resource temporarily unavailable"), "{text}");
    let tries = fs::read_to_string(&trace)
        .unwrap()
        .matches("INJECTED")
        .count();
    assert!((2..100_000).contains(&tries), "{tries}");
}
