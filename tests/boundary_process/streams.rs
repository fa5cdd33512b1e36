//! Standard input and output: what is given is bytes, not the file they come from or go to.

use super::*;

/// Everything that can be done to a file by a descriptor of it.
const ATTACK: &str = "for fd in 0 1 2; do
  chmod 4777 /proc/self/fd/$fd; chown 7:7 /proc/self/fd/$fd; echo evil >/proc/self/fd/$fd; : >>/proc/self/fd/$fd
  busybox truncate -s 0 /proc/self/fd/$fd
done 2>/dev/null; true";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn fuse_regression_a_file_that_is_input_or_output_belongs_to_the_host() {
    for w in World::ready() {
        w.shown("umask 022; echo \"$1\" >script".replace("$1", "x").as_str());
        fs::write(w.s.path("attack"), ATTACK).unwrap();
        w.shown("$mica run -d -i --name web app:1 sleep 600");
        w.shown("$mica run -i --name again app:1 sh -c \"$(cat attack)\" </dev/null");
        for how in [
            "run --rm -i app:1 sh -c \"$(cat attack)\"",
            "exec -i web sh -c \"$(cat attack)\"",
            "start -ai again",
        ] {
            w.shown("rm -f in log err; echo given >in; echo earlier >log; echo earlier >err; chmod 644 in log err");
            w.shown(&format!("$mica {how} <in >>log 2>>err"));
            let read = |name: &str| fs::read_to_string(w.s.path(name)).unwrap();
            assert_eq!(read("in"), "given\n", "{how}");
            // What is written comes to the end.
            assert!(
                read("log").starts_with("earlier\n"),
                "{how}: {:?}",
                read("log")
            );
            assert!(read("err").starts_with("earlier\n"), "{how}");
            for name in ["in", "log", "err"] {
                assert_eq!(mode(&w.s.path(name)), 0o644, "{how}: {name}");
                let owner =
                    std::os::unix::fs::MetadataExt::uid(&fs::metadata(w.s.path(name)).unwrap());
                assert_eq!(owner, if w.user { USER } else { 0 }, "{how}: {name}");
            }
        }
        w.shown("$mica rm -f web again");
    }
}

/// A FIFO of the host's as a stream keeps its mode; its bytes arrive all the same.
#[test]
fn root_regression_a_named_pipe_belongs_to_the_host() {
    let w = World::root();
    w.s.load(&image("app:1"));
    let said = w.shown(
        "mkfifo pipe; chmod 600 pipe; echo given >pipe &
        $mica run --rm -i app:1 sh -c 'chmod 6777 /proc/self/fd/0 2>/dev/null; cat' <pipe",
    );
    assert_eq!(said, "given\n");
    assert_eq!(mode(&w.s.path("pipe")), 0o600);
}

/// The devices of the host keep their modes: standard input without `-i` is one.
#[test]
fn root_regression_the_host_s_null_device_is_not_the_container_s_to_change() {
    let w = World::root();
    w.s.load(&image("app:1"));
    // Its own, seen by this test only, should the attack succeed.
    let script = "mknod null c 1 3; chmod 666 null; mount --bind null /dev/null
        $mica run -d --name web app:1 sleep 600 >/dev/null
        attack='chmod 600 /dev/null /proc/self/fd/0 /proc/self/fd/1; chown 7 /dev/null /proc/self/fd/0; true'
        $mica run --rm app:1 sh -c \"$attack\" >/dev/null 2>/dev/null </dev/null
        $mica run --rm -i app:1 sh -c \"$attack\" >/dev/null 2>/dev/null </dev/null
        $mica exec web sh -c \"$attack\" >/dev/null 2>/dev/null </dev/null
        $mica rm -f web >/dev/null
        stat -c %a:%u /dev/null null";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "bash", "-euc", script])
        .current_dir(w.s.dir());
    command
        .env("MICA_STORE", w.s.store())
        .env("mica", w.s.path("mica"));
    assert_eq!(w.s.run(command).ok().stdout(), "666:0\n666:0\n");
}

#[test]
fn fuse_what_is_written_to_files_comes_in_its_order() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        let script = "'echo 2; echo 3 >&2; echo 4; echo 5 >&2'";
        for how in ["run --rm app:1 sh -c", "exec web sh -c"] {
            for to in [">out 2>&1", ">>out 2>>out", ">>out 2>&1"] {
                w.shown("rm -f out");
                w.shown(&format!("{{ echo 1; $mica {how} {script}; echo 6; }} {to}"));
                let out = fs::read_to_string(w.s.path("out")).unwrap();
                assert_eq!(out, "1\n2\n3\n4\n5\n6\n", "{how} {to}");
            }
            // Two files are two files.
            w.shown(&format!("$mica {how} {script} >out 2>err"));
            assert_eq!(w.shown("cat out err"), "2\n4\n3\n5\n");
        }
        // Descriptions that are shared go on where the program has stopped.
        assert_eq!(
            w.shown("{ $mica run --rm app:1 echo aa; echo b; } 1<>out; cat out"),
            "aa\nb\n"
        );
        w.shown("$mica rm -f web");
    }
}

#[test]
fn fuse_a_program_takes_of_its_input_what_it_reads() {
    for w in World::ready() {
        w.shown("seq 1 300000 >big");
        w.shown("$mica run -d --name web app:1 sleep 600");
        w.shown("$mica run -i --name again app:1 busybox dd bs=6 count=1 </dev/null 2>/dev/null");
        for how in ["run --rm -i app:1", "exec -i web", "start -ai again #"] {
            let read = w.shown(&format!(
                "{{ $mica {how} busybox dd bs=6 count=1 2>/dev/null
                head -c 4; }} <big"
            ));
            assert_eq!(read, "1\n2\n3\n4\n5\n", "{how}");
        }
        // All of it, none of it, from the middle of it, from nothing.
        let all = w.shown("$mica run --rm -i app:1 busybox md5sum <big; md5sum <big");
        let sums: Vec<&str> = all.lines().collect();
        assert_eq!(sums[0], sums[1]);
        assert_eq!(
            w.shown("{ $mica run --rm app:1 true; head -n1; } <big"),
            "1\n"
        );
        assert_eq!(
            w.shown("{ $mica run --rm -i app:1 true; head -n1; } <big"),
            "1\n"
        );
        assert_eq!(
            w.shown("{ read a; read b; $mica run --rm -i app:1 sh -c 'read c; echo $c'; read d; echo $d; } <big"),
            "3\n4\n"
        );
        assert_eq!(w.shown("$mica run --rm -i app:1 wc -c <<<abc"), "4\n");
        assert_eq!(w.shown("$mica run --rm -i app:1 wc -c </dev/null"), "0\n");
        assert_eq!(
            w.shown("head -c 5000000 /dev/zero | $mica exec -i web wc -c"),
            "5000000\n"
        );
        w.shown("$mica rm -f web again");
    }
}

#[test]
fn fuse_output_that_cannot_be_written_is_no_success() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        for how in ["run --rm app:1", "exec web"] {
            let run = w.sh(&format!("$mica {how} echo text >/dev/full"));
            assert_eq!(run.status.code(), Some(1), "{}", run.describe());
            assert!(run.stderr().contains("No space left"), "{}", run.describe());
            // What goes on for ever ends with its reader, or with the disk.
            let endless = w.sh(&format!("$mica {how} busybox yes >/dev/full"));
            assert!(!endless.status.success());
            assert_eq!(
                w.shown(&format!("$mica {how} busybox yes | head -n1")),
                "y\n"
            );
        }
        w.shown("$mica rm -f web");
    }
}

/// What a command leaves behind does not keep its caller.
#[test]
fn fuse_exec_ends_with_its_command() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        w.shown("$mica exec web sh -c 'sleep 300 & echo started' >out");
        assert_eq!(w.shown("cat out"), "started\n");
        w.shown("$mica rm -f web");
    }
}

/// CVE-2017-5226: what is typed into the caller's terminal is run by the caller's shell.
#[test]
fn fuse_regression_cve_2017_5226_the_caller_s_terminal_is_out_of_reach() {
    for w in World::both() {
        w.s.load(&image("app:1").layer(with_probe));
        w.shown("$mica run -d --name web app:1 sleep 600");
        for how in ["run --rm", "run --rm -i", "exec", "exec -i"] {
            let of = match how.starts_with("run") {
                true => "app:1",
                false => "web",
            };
            for to in ["", "2>/dev/tty", "</dev/tty", ">/dev/tty"] {
                let command = format!("{} {how} {of} probe type {to}", w.s.path("mica").display());
                let seen = w.shown(&format!(
                    "script -qec '{command}' typed </dev/null | tr -d '\r'"
                ));
                assert!(seen.contains("00000000"), "{how} {to}: {seen}");
            }
        }
        // There is no terminal at all; with -t it is the container's own.
        let seen = w.shown(&format!(
            "script -qec '{} run --rm -t app:1 tty' typed </dev/null",
            w.s.path("mica").display()
        ));
        assert!(seen.contains("/dev/pts/0"), "{seen}");
        w.shown("$mica rm -f web");
    }
}
