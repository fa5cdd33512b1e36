//! The chapter "Isolation": what a process in a container gets of the one that starts it.

use std::fs;

use crate::boundary_process::World;
use crate::common::sandbox::Sandbox;
use crate::running::image;

/// Root's store with `app:1`.
fn world() -> World {
    let w = World::root();
    w.s.load(&image("app:1"));
    w
}

/// What is written down of the one container of a store.
fn state(s: &Sandbox) -> serde_json::Value {
    let dir = fs::read_dir(s.store().join("containers")).unwrap().next();
    let file = dir.unwrap().unwrap().path().join("state.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Nobody writes to mica's own binary, or changes its mode, through a process that runs it to start a container.
#[test]
fn root_the_binary_is_read_only_to_who_runs_it() {
    let w = world();
    w.shown("$mica run -d --name web app:1 sleep 600");
    let pid = &state(&w.s)["pid"];
    let script = format!(
        "parent=$(grep PPid /proc/{pid}/status | tr -dc 0-9); exe=/proc/$parent/exe
        chmod 777 $exe 2>&1 || true; chown 7 $exe 2>&1 || true; : 2>&1 >>$exe && echo open; stat -L -c %a $exe"
    );
    let tried = w.shown(&script);
    assert_eq!(tried.matches("Read-only file system").count(), 2, "{tried}");
    assert!(tried.ends_with("\n755\n"), "{tried}");
    w.shown("$mica rm -f web");
}

/// A process in a container has no descriptor of whoever started it but standard input and output, no key of his, and no precedence: his priorities and limits stay as far as they hold it back.
#[test]
fn root_nothing_is_inherited_that_was_not_given() {
    let w = world();
    let listed = w.shown("$mica run --rm app:1 ls /proc/self/fd 9</ 55</dev/null");
    assert_eq!(listed, "0\n1\n2\n3\n");
    let nice = w.shown("nice -n -19 $mica run --rm app:1 cat /proc/self/stat");
    assert_eq!(nice.split_whitespace().nth(18), Some("0"), "{nice}");
    let limit = w.shown("ulimit -n 99; $mica run --rm app:1 sh -c 'ulimit -n'");
    assert_eq!(limit, "99\n");
}

/// Its working directory lies in its own tree, wherever the way there leads.
#[test]
fn root_the_working_directory_is_inside() {
    let w = world();
    let run = w.sh("$mica run --rm -w /proc/self/fd/9 app:1 ls 9</");
    assert_eq!(run.status.code(), Some(126), "{}", run.describe());
    assert_eq!(run.stdout(), "");
}

/// A file that is a program's input or output is bytes to it, in their order and to the last one; the file cannot be opened again, truncated or given another mode.
#[test]
fn root_a_file_that_is_given_is_bytes() {
    let w = world();
    w.shown("echo given >in; echo before >out; chmod 644 in out");
    w.shown(
        "$mica run --rm -i app:1 sh -c 'cat; echo two >&2; echo three
        chmod 4777 /proc/self/fd/*; : >/proc/self/fd/0; busybox truncate -s 0 /proc/self/fd/1' <in >>out 2>>out || true",
    );
    let out = w.shown("cat in; cat out | grep -v fd; stat -c %a in out");
    assert_eq!(out, "given\nbefore\ngiven\ntwo\nthree\n644\n644\n");
}

/// Of a file that is its input a program takes what it reads; who reads on begins behind that.
#[test]
fn root_input_is_taken_as_it_is_read() {
    let w = world();
    w.shown("seq 1 100000 >in");
    let read = w.shown("{ $mica run --rm -i app:1 busybox dd bs=4 count=1 2>&-; head -n1; } <in");
    assert_eq!(read, "1\n2\n3\n");
}

/// A user or group that is a number is that number, whatever names the image has.
#[test]
fn root_a_number_is_an_id() {
    let w = World::root();
    let lists = |l: crate::common::image::LayerBuilder| {
        l.file("etc/passwd", "7:x:0:0::/:/bin/sh\n")
            .file("etc/group", "8:x:0:\n")
    };
    w.s.load(&image("app:1").layer(lists));
    let shown = w.shown("$mica run --rm -u 7:8 app:1 grep -E '^(Uid|Gid)' /proc/self/status");
    assert_eq!(shown, "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\n");
}

/// `exec` enters the namespaces that a container was started with, and no others.
#[test]
fn root_exec_enters_what_was_noted() {
    let w = world();
    w.shown("$mica run -d --name web app:1 sleep 600");
    let noted = &state(&w.s)["namespaces"]["mnt"];
    let seen = w.shown("$mica exec web readlink /proc/self/ns/mnt");
    assert_eq!(seen, format!("mnt:[{noted}]\n"));
    w.shown("sed -i 's/\"mnt\":/&1/' $MICA_STORE/containers/*/state.json");
    let run = w.sh("$mica exec web true");
    assert_eq!(run.status.code(), Some(1), "{}", run.describe());
    w.shown("$mica rm -f web");
}

/// When `kill` returns, what it has ended has ended: the container can be removed, and the name of one with `--rm` is free.
#[test]
fn root_what_was_killed_has_ended() {
    let w = world();
    w.shown(
        "for i in 1 2 3; do $mica run -d --rm --name web app:1 sleep 99; $mica kill web; done
        $mica run -d --name web app:1 sleep 99; $mica kill web && $mica rm web",
    );
}

/// What mica says in an event no label of an image can say.
#[test]
fn root_labels_are_no_facts() {
    let w = World::root();
    w.s.load(
        &image("app:1")
            .config(|c| c["config"]["Labels"] = serde_json::json!({"pid": "1", "own": "x"})),
    );
    let events = w.shown("$mica tag app:1 b:1; $mica events --since 1h --until 0s");
    assert!(
        events.contains("own=x") && !events.contains("pid="),
        "{events}"
    );
}
