//! Images whose `/proc`, `/sys`, `/dev` and `/etc` are not what they should be: where every other runtime has fallen.

use super::*;

const PLACES: [&str; 4] = ["proc", "sys", "dev", "etc"];

/// The host's root and the sandbox, by name: nothing may appear.
fn names(s: &Sandbox) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for dir in [
        Path::new("/"),
        Path::new("/dev"),
        Path::new("/root"),
        s.dir(),
    ] {
        all.extend(
            fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
    }
    all.sort();
    all
}

/// Says what is not covered of every procfs in sight, and what devices work that should not.
const LOOK: &str = "while read -r _ at kind _; do \
    [ \"$kind\" = proc ] || continue; \
    (echo h > \"$at/sysrq-trigger\") 2>/dev/null && echo written; \
    (echo x > \"$at/sys/kernel/core_pattern\") 2>/dev/null && echo written; \
    [ -s \"$at/timer_list\" ] && echo seen; \
    done < /proc/self/mounts 2>/dev/null; true";

#[test]
fn root_regression_every_link_in_the_place_of_a_system_directory() {
    let s = sandbox();
    let outside = secret(&s);
    for place in PLACES {
        let up = format!("../../../../../..{}", outside.display());
        let others = PLACES.iter().filter(|other| **other != place);
        let mut targets: Vec<String> = others.map(|other| format!("/{other}")).collect();
        targets.extend(
            [
                "/",
                "/dangling/deep",
                place,
                "/proc/1/root",
                "/proc/self/cwd",
            ]
            .map(str::to_owned),
        );
        targets.push(up);
        let before = names(&s);
        for target in targets {
            s.load(&image("evil:1").layer(|l| l.symlink(place, &target)));
            for options in ["", "-v vol:/dev -t "] {
                let run = mica(&s, &format!("run --rm {options}evil:1 -- {LOOK}"));
                let code = run.status.code();
                assert!(
                    matches!(code, Some(0 | 125..=127)),
                    "{place} -> {target}: {}",
                    run.describe()
                );
                let out = run.stdout();
                assert!(
                    !out.contains("written") && !out.contains("seen"),
                    "{place} -> {target}: {}",
                    run.describe()
                );
            }
            assert_eq!(
                fs::read_dir(&outside).unwrap().count(),
                1,
                "{place} -> {target}"
            );
        }
        assert_eq!(names(&s), before, "{place}");
    }
    assert!(left(&s).is_empty());
}

#[test]
fn root_regression_files_of_etc_and_parents_of_destinations_that_lead_out() {
    let s = sandbox();
    let outside = secret(&s);
    let up = |name: &str| format!("/../../../..{}/{name}", outside.display());
    s.load(&image("evil:1").layer(|l| {
        l.symlink("etc/hosts", up("hosts"))
            .symlink("etc/resolv.conf", "../../proc/1/root/made")
            .symlink("etc/hostname", "/proc/self/cwd/made")
            .symlink("a", "/proc/1/root")
            .symlink("b", "/oldroot")
            .symlink("c", outside.to_str().unwrap())
    }));
    for options in [
        "",
        "-v vol:/a/etc/y",
        "-v vol:/b/etc/y",
        "-v vol:/c/y",
        "--tmpfs /c/t",
        "-w /c/w",
    ] {
        let run = mica(&s, &format!("run --rm {options} evil:1 true"));
        assert!(
            matches!(run.status.code(), Some(0 | 125 | 126)),
            "{}",
            run.describe()
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{options}");
        assert!(!Path::new("/made").exists() && !Path::new("/etc/y").exists());
    }
    assert!(left(&s).is_empty());
}

/// The terminal that `exec` opens, where somebody else has been at `/dev`: one of the container's, or none.
#[test]
fn root_regression_a_terminal_of_exec_is_no_pipe_and_no_link() {
    let s = sandbox();
    shown(&s, "run --rm -v dev:/v app:1 -- mkdir /v/pts /v/other");
    let dev = data(&s, "dev");
    shown(&s, "run -d --name web -v dev:/dev app:1 sleep 600");
    let exec = || {
        let mut command = std::process::Command::new("timeout");
        // A hang is the fault.
        command.args(["60", env!("CARGO_BIN_EXE_mica"), "exec", "-t", "web", "tty"]);
        command.env("MICA_STORE", s.store()).env("HOME", s.dir());
        s.run(command)
    };
    let refused = |what: &str| {
        let run = exec().code(1);
        assert!(
            run.stderr().contains("opening a terminal"),
            "{what}: {}",
            run.describe()
        );
    };
    let ptmx = dev.join("pts/ptmx");
    refused("nothing");
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &ptmx,
        pipe,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    refused("a pipe");
    fs::remove_file(&ptmx).unwrap();
    fs::write(&ptmx, "").unwrap();
    refused("a file");
    fs::remove_file(&ptmx).unwrap();
    for target in ["/proc/self/fd/0", "../other/ptmx", "/dev/ptmx"] {
        std::os::unix::fs::symlink(target, &ptmx).unwrap();
        refused(target);
        fs::remove_file(&ptmx).unwrap();
    }
    fs::remove_dir(dev.join("pts")).unwrap();
    std::os::unix::fs::symlink("other", dev.join("pts")).unwrap();
    refused("a link above it");
    shown(&s, "rm -f web");
    shown(&s, "run -d --name web app:1 sleep 600");
    let run = exec().ok();
    assert!(run.stdout().starts_with("/dev/pts/"), "{}", run.describe());
    shown(&s, "rm -f web");
}

/// A volume over `/dev` whose owner has put traps there.
#[test]
fn root_regression_console_is_no_pipe_and_no_link_of_a_volume() {
    let s = sandbox();
    let outside = secret(&s);
    shown(
        &s,
        "run --rm -v dev:/v -v other:/o app:1 -- echo kept > /o/f",
    );
    let dev = data(&s, "dev");
    let traps: [(&str, &str); 4] = [
        ("pipe", ""),
        ("link", "/proc/sys/kernel/core_pattern"),
        ("link", "/o/f"),
        ("link", "/../../../../../../../secret"),
    ];
    for (kind, target) in traps {
        for name in ["console", "ptmx", "null", "tty"] {
            match kind {
                "pipe" => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    dev.join(name),
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::from_raw_mode(0o666),
                    0,
                )
                .unwrap(),
                _ => std::os::unix::fs::symlink(target, dev.join(name)).unwrap(),
            }
        }
        for options in ["", "-t ", "-t -i "] {
            let line = format!("run --rm {options}-v dev:/dev -v other:/o app:1 cat /o/f");
            let mut command = std::process::Command::new("timeout");
            // A hang is the fault.
            command
                .args(["60", env!("CARGO_BIN_EXE_mica")])
                .args(line.split_whitespace());
            command.env("MICA_STORE", s.store()).env("HOME", s.dir());
            let run = s.run(command);
            assert_ne!(run.status.code(), Some(124), "{}", run.describe());
        }
        for name in ["console", "ptmx", "null", "tty"] {
            fs::remove_file(dev.join(name)).unwrap();
        }
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(shown(&s, "run --rm -v other:/o app:1 cat /o/f"), "kept\n");
}
