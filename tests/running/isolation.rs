//! What a process does not have and does not reach.

use super::*;

#[test]
fn root_run_gives_docker_s_capabilities_and_no_new_privileges() {
    let s = sandbox();
    let status = shown(&s, "run --rm app:1 cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(name), "00000000a80405fb", "{name}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let status = shown(&s, "run --rm -u bob app:1 cat /proc/self/status");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let status = shown(&s, "run --rm --cap-drop ALL app:1 cat /proc/self/status");
    assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
}

#[test]
fn root_run_hides_what_tells_of_the_host() {
    let s = sandbox();
    // The kernel's own files are covered or cannot be written to.
    mica(&s, "run --rm app:1 -- echo 1 > /proc/sys/kernel/panic").code(1);
    mica(&s, "run --rm app:1 -- echo b > /proc/sysrq-trigger").code(1);
    mica(&s, "run --rm app:1 -- touch /sys/x").code(1);
    assert_eq!(
        shown(
            &s,
            "run --rm app:1 -- cat /proc/keys /proc/timer_list | wc -c"
        ),
        "0\n"
    );
    assert_eq!(
        shown(&s, "run --rm app:1 -- ls /sys/firmware | wc -l"),
        "0\n"
    );
    // It cannot mount, nor make a device that works.
    mica(&s, "run --rm app:1 mount -t tmpfs none /tmp").code(1);
    let device = shown(
        &s,
        "run --rm app:1 -- mknod /d b 7 0; mknod /dev/d c 1 1; cat /d /dev/d 2>&1; true",
    );
    assert_eq!(device.matches("ermission denied").count(), 2, "{device}");
    // Only its own processes.
    let processes = shown(&s, "run --rm app:1 -- ls -d /proc/[0-9]* | wc -l");
    assert!(processes.trim().parse::<u32>().unwrap() <= 4, "{processes}");
}

#[test]
fn root_run_keeps_the_host_s_files_and_other_containers_out_of_reach() {
    let s = sandbox();
    fs::write(s.path("secret"), "secret").unwrap();
    let secret = s.path("secret");
    let up = format!("../../../../../../../..{}", secret.display());
    for path in [
        secret.display().to_string(),
        up.clone(),
        format!("/proc/1/root{}", secret.display()),
        format!("/proc/1/cwd/{up}"),
        format!("/proc/self/fd/3/{up}"),
    ] {
        mica(&s, &format!("run --rm app:1 cat {path}")).code(1);
    }
    // A descriptor handed down by whoever starts it.
    let script = format!(
        "exec 9</; {} run --rm app:1 sh -c 'ls /proc/self/fd | wc -l; ls /proc/self/fd/9/ 2>&1 | wc -l'",
        env!("CARGO_BIN_EXE_mica")
    );
    let out = s.sh(&script).ok().stdout();
    assert_eq!(out.lines().nth(1), Some("1"), "{out}");
    // The image's own links lead nowhere else.
    s.load(&image("evil:1").layer(|l| {
        l.symlink("out", secret.parent().unwrap().to_str().unwrap())
            .dir("etc", 0o755)
            .symlink("etc/hosts", "/secret-made-here")
    }));
    mica(&s, "run --rm evil:1 cat /out/secret").code(1);
    // A link that leads nowhere is followed inside.
    shown(&s, "run --rm evil:1 grep -q localhost /secret-made-here");
    let run = mica(&s, "run --rm -v data:/out/inside evil:1 true");
    assert!(!s.path("inside").exists(), "{}", run.describe());
    assert!(!std::path::Path::new("/secret-made-here").exists());
    shown(
        &s,
        "run -d --name one app:1 -- echo mine > /tmp/mine; sleep 60",
    );
    let other = shown(&s, "run --rm app:1 -- ls /tmp | wc -l");
    assert_eq!(other, "0\n");
    shown(&s, "rm -f one");
}

#[test]
fn root_run_refuses_a_bind_around_the_store() {
    let s = sandbox();
    for source in [
        "/".to_owned(),
        s.dir().display().to_string(),
        s.store().display().to_string(),
    ] {
        let run = mica(&s, &format!("run --rm -v {source}:/h app:1 true")).code(125);
        assert!(
            run.stderr().contains("contains the store"),
            "{}",
            run.describe()
        );
    }
    let inside = s.store().join("blobs");
    let run = mica(
        &s,
        &format!("run --rm -v {}:/h app:1 true", inside.display()),
    )
    .code(125);
    assert!(
        run.stderr().contains("part of the store"),
        "{}",
        run.describe()
    );
    assert!(left(&s).is_empty());
}

/// A list of users that never ends, or never begins, is none.
#[test]
fn root_lists_of_users_are_files() {
    let s = sandbox();
    let zero = |l: LayerBuilder| l.symlink("etc/passwd", "/dev/zero");
    let fifo = |l: LayerBuilder| l.fifo("etc/passwd");
    for (name, list) in [
        ("zero:1", image("zero:1").layer(zero)),
        ("fifo:1", image("fifo:1").layer(fifo)),
    ] {
        s.load(&list);
        let run = format!("run --rm {name} grep Uid: /proc/self/status");
        assert_eq!(shown(&s, &run), "Uid:\t0\t0\t0\t0\n");
        let run = mica(&s, &format!("run --rm -u bob {name} id")).code(126);
        assert!(
            run.stderr().contains("unable to find user bob"),
            "{}",
            run.describe()
        );
        assert_eq!(shown(&s, &format!("run --rm -u 7 {name} true")), "");
    }
}

/// The binary on the host that starts the programs is not to be got hold of.
#[test]
fn root_the_binary_of_mica_is_not_seen_inside() {
    let s = sandbox();
    let look =
        "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done; done >/tmp/seen 2>/dev/null";
    s.mica(["run", "-d", "--name", "web", "app:1", "sh", "-c", look])
        .ok();
    for _ in 0..40 {
        shown(&s, "exec web true");
    }
    let seen = shown(&s, "exec web -- grep -v ^/bin/busybox /tmp/seen; true");
    assert_eq!(seen, "");
    shown(&s, "rm -f web");
    mica(&s, "run --rm --init app:1 readlink /proc/1/exe").code(1);
}
