use std::fs;

use super::errno;
use crate::common::walk;
use crate::running::{Started, left, mica, sandbox, shown, wait_until};

/// A process in a container changes neither the image nor another container of it, whatever it does to the tree it sees.
#[test]
fn root_a_container_changes_only_itself() {
    let s = sandbox();
    let mount = s.mount();
    let before = walk::walk(&mount.image("app/1")).unwrap();
    shown(
        &s,
        "run --name one app:1 -- rm -rf /etc /bin/ls; echo new > /bin/cat; chmod 000 /tmp",
    );
    assert_eq!(
        shown(&s, "run --rm app:1 cat /etc/passwd").lines().count(),
        2
    );
    let after = walk::walk(&mount.image("app/1")).unwrap();
    assert_eq!(walk::compare(&before, &after), [""; 0]);
    shown(&s, "rm one");
}

/// `mica run` ends with the exit status of its process, with 128 and the signal's number if a signal ended it, with 127 if there is no such program, 126 if it is none, and 125 if mica itself failed.
#[test]
fn root_exit_codes_are_docker_s() {
    let s = sandbox();
    for (line, code) in [
        ("run --rm app:1 -- exit 0", 0),
        ("run --rm app:1 -- exit 42", 42),
        ("run --rm --init app:1 -- kill -TERM $$", 128 + 15),
        ("run --rm app:1 no-such-program", 127),
        ("run --rm app:1 /etc/passwd", 126),
        ("run --rm -v relative/path:/x app:1 true", 125),
    ] {
        mica(&s, line).code(code);
    }
    assert!(left(&s).is_empty());
}

/// A container started with `--rm` leaves nothing in the store, nor does it when everything of it is killed, after the next verb on containers.
#[test]
fn root_nothing_is_left_of_rm() {
    let s = sandbox();
    shown(&s, "run --rm -v /data app:1 touch /data/f /f");
    assert!(left(&s).is_empty());
    let killed = Started::new(&s, &["run", "--rm", "-v", "/data", "app:1", "sleep", "600"]);
    wait_until("it runs", || !shown(&s, "ps -q").is_empty());
    drop(killed);
    wait_until("it is gone", || {
        shown(&s, "ps -a -q").is_empty() && left(&s).is_empty()
    });
    assert_eq!(shown(&s, "volume ls -q"), "");
}

/// A volume that nobody named belongs to all containers that have it, whoever made it, and goes with the last of them.
#[test]
fn root_unnamed_volumes_go_with_their_last_container() {
    let s = sandbox();
    let first = Started::new(
        &s,
        &[
            "run", "--rm", "--name", "one", "-v", "/shared", "app:1", "sleep", "600",
        ],
    );
    wait_until("a runs", || shown(&s, "ps -q").lines().count() == 1);
    shown(&s, "exec one -- echo chain > /shared/note");
    let second = Started::new(
        &s,
        &[
            "run",
            "--rm",
            "--name",
            "two",
            "--volumes-from",
            "one",
            "app:1",
            "sleep",
            "600",
        ],
    );
    wait_until("b runs", || shown(&s, "ps -q").lines().count() == 2);
    drop(first);
    wait_until("a is gone", || shown(&s, "ps -a -q").lines().count() == 1);
    assert_eq!(
        shown(&s, "run --rm --volumes-from two app:1 cat /shared/note"),
        "chain\n"
    );
    assert_eq!(shown(&s, "volume ls -q").lines().count(), 1);
    drop(second);
    wait_until("the volume is gone", || {
        shown(&s, "ps -a -q");
        shown(&s, "volume ls -q").is_empty()
    });
}

/// An image that a container stands on, running or not, is not removed: `rmi` names the container, and `rm -r` of its last tag says that it is in use.
#[test]
fn root_images_of_containers_stay() {
    let s = sandbox();
    shown(&s, "run --name one app:1 true");
    let mount = s.mount();
    let refused = mica(&s, "rmi app:1").fails();
    assert!(
        refused.stderr().contains("container"),
        "{}",
        refused.stderr()
    );
    let busy = errno(fs::remove_dir(mount.image("app/1")));
    assert_eq!(busy, rustix::io::Errno::BUSY);
    assert_eq!(shown(&s, "start -a one"), "");
    shown(&s, "rm one");
    fs::remove_dir(mount.image("app/1")).unwrap();
}
