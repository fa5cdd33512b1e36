//! Hostile Dockerfiles, contexts, base images and archives, named after what has been done to other builders.

use super::*;
use std::os::unix::fs::symlink;

/// CVE-2024-23651, CVE-2024-1753, CVE-2024-9675: a part of a mount that leads out of it.
#[test]
fn regression_root_mount_sources_stay_inside() {
    let s = sandbox();
    s.load(
        &crate::running::image("evil:1")
            .layer(|l| l.symlink("x", "/").symlink("up", "../../../..")),
    );
    context(&s, "c", &[("f", "f")]);
    symlink("/", s.path("c/root")).unwrap();
    fs::write(s.path("host-secret"), "host").unwrap();
    let outside = s.path("host-secret").display().to_string();
    for mount in [
        format!("type=bind,from=evil:1,source=x{outside},target=/m"),
        format!("type=bind,from=evil:1,source=up{outside},target=/m"),
        format!("type=bind,source=root{outside},target=/m"),
        format!("type=bind,source=../../..{outside},target=/m"),
    ] {
        fs::write(
            s.path("c/Dockerfile"),
            format!("FROM app:1\nRUN --mount={mount} cat /m > /got\n"),
        )
        .unwrap();
        let run = build(&s, "c", &["-t", "m:1"]);
        assert_ne!(run.status.code(), Some(0), "{mount}: {}", run.describe());
    }
    // Names of shared directories are names.
    let file =
        "FROM app:1\nRUN --mount=type=cache,target=/m,id=../../../../tmp/evil touch /m/evil\n";
    build_text(&s, file, &[]).ok();
    assert!(!Path::new("/tmp/evil").exists());
}

/// CVE-2024-23652: what was made to mount on is replaced by a link before it is cleaned up.
#[test]
fn regression_root_mount_points_are_not_removed_through_links() {
    let s = sandbox();
    let victim = s.mkdir("victim");
    fs::create_dir(victim.join("empty")).unwrap();
    let file = format!(
        "FROM app:1\nRUN --mount=type=tmpfs,target=/run/a/empty busybox mv /run/a /run/b; busybox ln -s {} /run/a; true\n",
        victim.display()
    );
    let run = build_text(&s, &file, &["-t", "l:1"]);
    assert!(run.status.code().is_some());
    assert!(victim.join("empty").is_dir());
}

/// CVE-2024-23653, BuildKit: a frontend image has no say, and no step gets further rights.
#[test]
fn regression_root_syntax_and_security_give_nothing() {
    let s = sandbox();
    let file = "# syntax=evil/frontend:1\nFROM app:1\nRUN grep CapEff /proc/self/status > /caps; grep -c . /proc/self/status > /dev/null\n";
    build_text(&s, file, &["-t", "s:1"]).ok();
    let line = content(&s, "s:1", "/caps");
    let bits = u64::from_str_radix(line.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    // Neither CAP_SYS_ADMIN nor CAP_NET_RAW nor CAP_SYS_PTRACE.
    assert_eq!(bits & ((1 << 21) | (1 << 19)), 0, "{line}");
}

/// CVE-2020-10696, CVE-2026-28406: a tar that writes through its own links, as context and by ADD.
#[test]
fn regression_root_archives_do_not_leave_the_layer() {
    let s = sandbox();
    let victim = s.mkdir("victim");
    let path = victim.display().to_string();
    let tar = ImageBuilder::new("x:1").layer(|l| {
        l.file("Dockerfile", "FROM app:1\nCOPY . /all/\n")
            .symlink("way", &path)
            .file("way/evil", "evil")
            .file("plain", "plain")
    });
    let layer = s.path("layer.tar");
    // The layer's bytes as an archive of their own.
    tar.docker_archive(&layer);
    let bytes = Command::new("tar")
        .arg("-xOf")
        .arg(&layer)
        .args(["--wildcards", "*.tar"])
        .output()
        .unwrap()
        .stdout;
    let bytes = match bytes.is_empty() {
        true => {
            Command::new("sh")
                .arg("-c")
                .arg(format!(
                    "tar -xOf {} $(tar -tf {} | grep -m1 layer.tar)",
                    layer.display(),
                    layer.display()
                ))
                .output()
                .unwrap()
                .stdout
        }
        false => bytes,
    };
    let _ = piped(&s, &["build", "-t", "e:1", "-"], &bytes);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    let root = context(&s, "c", &[("Dockerfile", "FROM app:1\nADD evil.tar /x/\n")]);
    fs::write(root.join("evil.tar"), &bytes).unwrap();
    let _ = build(&s, "c", &["-t", "e:2"]);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

/// CVE-2022-4122: the Dockerfile or .dockerignore is a link to a file of the host.
#[test]
fn regression_root_a_contexts_own_files_are_no_links_to_the_host() {
    let s = sandbox();
    fs::write(s.path("host-secret"), "SECRET TEXT OF THE HOST\n").unwrap();
    for name in ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"] {
        let root = context(&s, &format!("c{name}"), &[("f", "f")]);
        if name != "Dockerfile" {
            fs::write(root.join("Dockerfile"), "FROM app:1\nCOPY . /all\n").unwrap();
        }
        symlink(s.path("host-secret"), root.join(name)).unwrap();
        let run = build(&s, &format!("c{name}"), &[]).fails();
        assert!(!run.describe().contains("SECRET"), "{}", run.describe());
    }
    // A pipe does not make it wait, a directory is none.
    let root = context(&s, "pipe", &[]);
    assert!(
        Command::new("mkfifo")
            .arg(root.join("Dockerfile"))
            .status()
            .unwrap()
            .success()
    );
    build(&s, "pipe", &[]).fails();
    context(&s, "dir", &[("Dockerfile/x", "")]);
    build(&s, "dir", &[]).fails();
}

/// Links of the context that lead out are links; nothing of the host is copied.
#[test]
fn regression_root_links_out_of_the_context_are_not_followed() {
    let s = sandbox();
    fs::write(s.path("host-secret"), "SECRET").unwrap();
    let root = context(&s, "c", &[("in/real", "real")]);
    symlink(s.path("host-secret"), root.join("out")).unwrap();
    symlink("../host-secret", root.join("up")).unwrap();
    symlink("..", root.join("parent")).unwrap();
    symlink("in/real", root.join("inside")).unwrap();
    for (source, fails) in [
        ("out", false),
        ("up", false),
        ("inside", false),
        ("parent/host-secret", true),
        (".", false),
    ] {
        fs::write(
            root.join("Dockerfile"),
            format!("FROM app:1\nCOPY {source} /t/\n"),
        )
        .unwrap();
        let run = build(&s, "c", &["-t", "t:1", "--no-cache"]);
        assert_eq!(
            run.status.code() != Some(0),
            fails,
            "{source}: {}",
            run.describe()
        );
        if !fails {
            s.sh("! grep -rl SECRET \"$MICA_STORE\"").ok();
        }
    }
    fs::write(root.join("Dockerfile"), "FROM app:1\nCOPY inside /t/\n").unwrap();
    build(&s, "c", &["-t", "t:1"]).ok();
    assert_eq!(content(&s, "t:1", "/t/inside"), "real");
}

/// A link of the stage at COPY's destination that leads to the host.
#[test]
fn regression_root_links_of_the_stage_do_not_lead_out() {
    let s = sandbox();
    let victim = s.mkdir("victim");
    let path = victim.display().to_string();
    s.load(&crate::running::image("evil:1").layer(|l| {
        l.symlink("out", &path)
            .symlink("up", format!("../../../../../..{path}"))
            .symlink("loop", "loop")
    }));
    context(&s, "c", &[("f", "f"), ("d/out/x", "x")]);
    for (copy, fails) in [
        ("COPY f /out/f", false),
        ("COPY f /up/", false),
        ("COPY f /loop/f", true),
        ("COPY d /", true),
        ("WORKDIR /out/x/y", false),
        ("COPY f /../../../../tmp/../out/g", false),
    ] {
        fs::write(s.path("c/Dockerfile"), format!("FROM evil:1\n{copy}\n")).unwrap();
        let run = build(&s, "c", &[]);
        assert_eq!(
            run.status.code() != Some(0),
            fails,
            "{copy}: {}",
            run.describe()
        );
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{copy}");
    }
}

/// CVE-2021-3602: what the caller has in his environment is none of the step's business. And secrets are in no document.
#[test]
fn regression_root_the_callers_environment_stays_outside() {
    let s = sandbox();
    context(&s, "c", &[("Dockerfile", "FROM app:1\nRUN env > /env\n")]);
    let mut command = s.command();
    command
        .args([
            "build",
            "-t",
            "e:1",
            "--build-arg",
            "HTTP_PROXY=http://user:pass@proxy",
        ])
        .arg(s.path("c"))
        .env("SECRET_OF_MINE", "x");
    s.run(command).ok();
    let env = content(&s, "e:1", "/env");
    assert!(!env.contains("SECRET_OF_MINE"), "{env}");
    assert!(env.contains("HTTP_PROXY=http://user:pass@proxy"));
    let all = s.mica(["history", "--no-trunc", "e:1"]).ok().stdout()
        + &s.mica(["inspect", "e:1"]).ok().stdout();
    assert!(!all.contains("proxy"), "{all}");
}

/// CVE-2025-4953: what a build puts on disk on the way is its owner's alone.
#[test]
fn regression_root_files_on_the_way_are_private() {
    let s = sandbox();
    let modes = s
        .sh("stat -c %a \"$MICA_STORE\" \"$MICA_STORE/tmp\"")
        .ok()
        .stdout();
    assert!(
        modes.lines().next().is_some_and(|mode| mode == "700"),
        "{modes}"
    );
}

/// CVE-2026-41567: a program of the image is no decompressor of ours.
#[test]
fn regression_root_no_program_of_the_image_is_run_for_an_archive() {
    let s = sandbox();
    s.load(&crate::running::image("evil:1").layer(|l| {
        l.file("usr/bin/unpigz", "#!/bin/sh\ntouch /tmp/pwned-by-build\n")
            .mode(0o755)
    }));
    let root = context(
        &s,
        "c",
        &[
            ("Dockerfile", "FROM evil:1\nADD x.tar.gz /x/\n"),
            ("f", "f"),
        ],
    );
    assert!(
        Command::new("tar")
            .arg("-czf")
            .arg(root.join("x.tar.gz"))
            .arg("-C")
            .arg(&root)
            .arg("f")
            .status()
            .unwrap()
            .success()
    );
    build(&s, "c", &["-t", "x:1"]).ok();
    assert!(!Path::new("/tmp/pwned-by-build").exists());
}

/// Pipes and devices are refused by name, and nothing waits for them.
#[test]
fn regression_root_special_files_are_refused_by_name() {
    let s = sandbox();
    let root = context(&s, "c", &[("Dockerfile", "FROM app:1\nCOPY . /t/\n")]);
    for (make, what) in [
        ("mkfifo odd", "a named pipe"),
        ("mknod odd c 1 5", "a device"),
    ] {
        let done = Command::new("sh")
            .arg("-c")
            .arg(make)
            .current_dir(&root)
            .status();
        assert!(done.unwrap().success());
        let error = build(&s, "c", &[]).code(1).stderr();
        assert!(error.contains("\"odd\"") && error.contains(what), "{error}");
        fs::remove_file(root.join("odd")).unwrap();
    }
}

/// A name of the context, or of the Dockerfile, does not drive the terminal.
#[test]
fn regression_root_output_has_no_control_sequences() {
    let s = sandbox();
    let run = build_text(
        &s,
        "FROM app:1\nLABEL a=\u{1b}[31mred\nCOPY \u{1b}[2Jx /\n",
        &[],
    )
    .code(1);
    assert!(!run.describe().contains('\u{1b}'), "{}", run.describe());
}
