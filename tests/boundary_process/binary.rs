//! The host's binary of mica: CVE-2019-5736, CVE-2016-9962 and what came after them.

use super::*;

/// What the image does with the binary of mica once it holds it as descriptor 9: until nobody else runs it.
const ATTACK: &str = "chmod 6777 /proc/self/fd/9
exec 8>&1
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
  if echo evil >>/proc/self/fd/9; then echo won >/result; exit; fi
  busybox usleep 100000
done 2>/errors
echo lost >/result
";

/// An image that has itself run by `/proc/self/exe`, as entry point and as a script.
fn hostile(name: &str) -> ImageBuilder {
    let flags = ["-nostdlib", "-ffreestanding", "-fno-stack-protector"];
    let interpreter = compiled(include_str!("interpreter.c"), &flags);
    let loader = match std::env::consts::ARCH {
        "x86_64" => "lib64/ld-linux-x86-64.so.2",
        _ => "lib/ld-linux-aarch64.so.1",
    };
    image(name).layer(|l| {
        l.dir("lib", 0o755)
            .dir("lib64", 0o755)
            .file(loader, interpreter)
            .mode(0o755)
            .file("attack", ATTACK)
            .file("script", "#!/proc/self/exe\n")
            .mode(0o755)
            // Goes on after the command that it came with.
            .file("behind", "#!/bin/sh\n/script &\n")
            .mode(0o755)
    })
}

/// The mode and the end of a binary are what they were.
#[track_caller]
fn is_whole(path: &Path, of: &str) {
    let binary = fs::metadata(path).unwrap();
    assert_eq!(binary.permissions().mode() & 0o7777, 0o755, "{of}");
    let own = fs::metadata(env!("CARGO_BIN_EXE_mica")).unwrap();
    assert_eq!(binary.len(), own.len(), "{of}");
}

#[test]
fn fuse_regression_cve_2019_5736_an_image_rewrites_the_binary_that_runs_it() {
    for w in World::both() {
        w.s.load(&hostile("evil:1"));
        let binary = w.s.path("mica");
        // As entry point, and as the interpreter of a script, once by a start.
        for how in [
            "run --rm --entrypoint /proc/self/exe evil:1",
            "run --name again evil:1 /script",
            "start -a again",
        ] {
            w.sh(&format!("$mica {how}"));
            is_whole(&binary, how);
        }
    }
}

#[test]
fn fuse_regression_cve_2019_5736_exec_by_another_binary_than_the_one_that_still_runs() {
    for w in World::both() {
        w.s.load(&hostile("evil:1"));
        let other = w.s.path("other");
        copy_of_mica(&other, w.user.then_some(USER));
        w.shown("$mica run -d --name web evil:1 sleep 600");
        w.sh(&format!("{} exec web /script", other.display()));
        is_whole(&other, "exec /script");
        w.sh(&format!("{} exec -d web /script", other.display()));
        wait_until("the attack has ended", || {
            w.sh("$mica exec web cat /result").stdout() == "lost\n"
        });
        is_whole(&other, "exec -d /script");
        w.shown("$mica rm -f web");
    }
}

#[test]
fn fuse_regression_cve_2016_9962_a_container_looks_into_what_joins_it() {
    for w in World::both() {
        w.s.load(&image("app:1").layer(with_probe));
        w.shown("$mica run -d --name web app:1 sh -c 'probe attach >/seen; sleep 600'");
        w.shown(&format!(
            "for i in $(seq {}); do $mica exec web true; $mica exec -u 0 web touch /x; done",
            tries(25)
        ));
        w.shown("$mica exec web touch /stop");
        wait_until("it has looked", || {
            w.sh("$mica exec web cat /seen").stdout().contains("won ")
        });
        assert_eq!(w.shown("$mica exec web cat /seen"), "won 0\n");
        w.shown("$mica rm -f web");
    }
}

/// What joins a container is held where it can be looked at for as long as one likes: it has nothing to give.
#[test]
fn fuse_regression_cve_2016_9962_what_joins_a_container_comes_with_little() {
    for w in World::ready() {
        let look = "mkdir /p; busybox mkfifo /p/at /p/go; cat /p/at
            for pid in /proc/[0-9]*; do
              read name <$pid/comm
              echo $name $(grep CapPrm $pid/status 2>&1) exe:$(readlink $pid/exe) cwd:$(readlink $pid/cwd) root:$(readlink $pid/root) fd:$(ls $pid/fd 2>&1)
            done >/seen; : >/p/go; sleep 600";
        fs::write(w.s.path("look"), look).unwrap();
        w.shown("$mica run -d --name web app:1 sh -c \"$(cat look)\"");
        wait_until("it looks", || {
            w.sh("$mica exec web test -e /p/go").status.success()
        });
        w.shown("MICA_PAUSE=joined=/p $mica exec web true 9</");
        let seen = w.shown("$mica exec web grep ^mica /seen");
        // The capabilities of a container.
        assert!(
            seen.contains("CapPrm: 00000000a80425fb ")
                || seen.contains("CapPrm: 00000000a80405fb "),
            "{seen}"
        );
        assert!(seen.contains("exe: cwd: root: fd:"), "{seen}");
        w.shown("$mica rm -f web");
    }
}
