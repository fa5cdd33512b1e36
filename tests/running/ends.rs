//! How containers end, and what is left when somebody is killed.

use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn pid_of(sandbox: &Sandbox, name: &str) -> Option<Pid> {
    for dir in left(sandbox) {
        let read = |file: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&fs::read(dir.join(file)).ok()?).ok()
        };
        let (Some(config), Some(state)) = (read("config.json"), read("state.json")) else {
            continue;
        };
        if config["name"] == name && state["status"] == "running" {
            return Pid::from_raw(i32::try_from(state["pid"].as_i64()?).ok()?);
        }
    }
    None
}

/// Waits until the container's shell has set its last trap, that for SIGTERM: as process 1 it would not even be told before.
/// (SIGINT a shell catches from its start, trap or not.)
fn traps_are_set(sandbox: &Sandbox, name: &str) {
    let wanted = 1u64 << (Signal::TERM.as_raw() - 1);
    wait_until("the traps are set", || {
        let Some(pid) = pid_of(sandbox, name) else {
            return false;
        };
        let file = format!("/proc/{}/status", pid.as_raw_nonzero());
        let status = fs::read_to_string(file).unwrap_or_default();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & wanted != 0)
    });
}

fn lives(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Nobody may be there to collect it.
    status.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn root_a_killed_supervisor_takes_its_container_along() {
    let s = sandbox();
    let mut supervisor = Started::new(
        &s,
        &[
            "run", "--name", "web", "-v", "/data", "app:1", "sleep", "600",
        ],
    );
    wait_until("it runs", || pid_of(&s, "web").is_some());
    let pid = pid_of(&s, "web").unwrap();
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    wait_until("its process is dead", || !lives(pid));
    let row = shown(&s, "ps -a --format {{.Names}}={{.Status}}");
    assert!(row.starts_with("web=Exited (137)"), "{row}");
    // It can be started again, and removed.
    shown(&s, "start web");
    assert_eq!(shown(&s, "exec web echo here"), "here\n");
    shown(&s, "rm -f web");
    assert!(left(&s).is_empty());
}

/// The kernel forgets whom to kill when a process changes its user.
#[test]
fn root_a_container_that_has_changed_its_user_does_not_outlive_its_supervisor() {
    let s = sandbox();
    let script = "exec busybox su -s /bin/sh bob -c 'exec sleep 600'";
    let words = ["run", "--name", "web", "app:1", "sh", "-c", script];
    let mut supervisor = Started::new(&s, &words);
    wait_until("it has changed its user", || {
        let pid = pid_of(&s, "web").map(|pid| pid.as_raw_nonzero());
        let status = pid.map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
        matches!(status, Some(Ok(text)) if text.contains("\nUid:\t1000\t") && text.starts_with("Name:\tsleep"))
    });
    let pid = pid_of(&s, "web").unwrap();
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    wait_until("its process is dead", || !lives(pid));
    shown(&s, "rm web");
}

#[test]
fn root_what_a_killed_supervisor_left_of_rm_goes_with_the_next_verb() {
    let s = sandbox();
    let mut supervisor = Started::new(
        &s,
        &["run", "--rm", "--name", "web", "app:1", "sleep", "600"],
    );
    wait_until("it runs", || pid_of(&s, "web").is_some());
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    assert_eq!(left(&s).len(), 1);
    // Its process may take a moment to follow.
    wait_until("a verb removes it", || shown(&s, "ps -aq").is_empty());
    assert!(left(&s).is_empty());
}

#[test]
fn root_a_killed_init_is_137_and_leaves_nothing() {
    let s = sandbox();
    let mut supervisor = Started::new(
        &s,
        &["run", "--rm", "--name", "web", "app:1", "sleep", "600"],
    );
    wait_until("it runs", || pid_of(&s, "web").is_some());
    kill_process(pid_of(&s, "web").unwrap(), Signal::KILL).unwrap();
    assert_eq!(supervisor.0.wait().unwrap().code(), Some(137));
    assert!(left(&s).is_empty());
}

#[test]
fn root_signals_reach_the_program() {
    let s = sandbox();
    let script = "trap 'exit 6' INT; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    for (signal, code) in [(Signal::TERM, 5), (Signal::INT, 6)] {
        let mut supervisor = Started::new(
            &s,
            &["run", "--rm", "--name", "web", "app:1", "sh", "-c", script],
        );
        traps_are_set(&s, "web");
        let pid = Pid::from_child(&supervisor.0);
        kill_process(pid, signal).unwrap();
        assert_eq!(supervisor.0.wait().unwrap().code(), Some(code));
    }
    // `stop` sends what the image says; `kill` any.
    s.load(&image("stop:1").config(|c| c["config"]["StopSignal"] = "SIGINT".into()));
    s.mica(["run", "-d", "--name", "web", "stop:1", "sh", "-c", script])
        .ok();
    traps_are_set(&s, "web");
    assert_eq!(shown(&s, "stop web"), "web\n");
    let row = shown(&s, "ps -a --format {{.Status}}");
    assert!(row.starts_with("Exited (6)"), "{row}");
    shown(&s, "start web");
    traps_are_set(&s, "web");
    shown(&s, "kill -s TERM web");
    assert_eq!(shown(&s, "wait web"), "5\n");
    let gone = mica(&s, "kill web").code(1);
    assert!(
        gone.stderr().contains("is not running"),
        "{}",
        gone.describe()
    );
    // One that does not listen is killed.
    shown(&s, "run -d --name deaf app:1 sleep 600");
    shown(&s, "stop -t 0 deaf");
    assert_eq!(shown(&s, "wait deaf"), "137\n");
}

#[test]
fn root_who_waits_learns_how_a_container_ended_that_is_gone() {
    let s = sandbox();
    let script = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    for (end, code) in [("kill -s TERM web", "7\n"), ("rm -f web", "137\n")] {
        s.mica([
            "run", "-d", "--rm", "--name", "web", "app:1", "sh", "-c", script,
        ])
        .ok();
        let mut waiter = s.command();
        waiter.args(["wait", "web"]).stdout(Stdio::piped());
        let waiter = waiter.spawn().unwrap();
        let open = format!("/proc/{}/fd", waiter.id());
        wait_until("it waits", || {
            let links = fs::read_dir(&open).into_iter().flatten().flatten();
            let mut links = links.filter_map(|link| fs::read_link(link.path()).ok());
            let container = left(&s).remove(0);
            links.any(|path| path == container.join("lock"))
        });
        // The trap is set by now, too.
        std::thread::sleep(Duration::from_millis(300));
        shown(&s, end);
        let output = waiter.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), code, "{end}");
        wait_until("it is gone", || left(&s).is_empty());
    }
    let run = mica(&s, "wait web").code(1);
    assert!(
        run.stderr().contains("No such container: web"),
        "{}",
        run.describe()
    );
}

/// Deeper than a path is long, and than there are descriptors.
#[test]
fn root_a_container_may_be_of_any_depth() {
    let s = sandbox();
    let few = |line: &str| {
        let mica = env!("CARGO_BIN_EXE_mica");
        s.sh(&format!("ulimit -n 256; {mica} {line}")).ok().stdout()
    };
    // A shell knows only paths: two halves are put together.
    let script = "set -e; dig() { i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done; }; \
                  for top in /data /tmp; do cd $top; mkdir half; cd half; dig; cd $top; dig; \
                  mv $top/half .; done; echo deep";
    for rm in ["", "--rm"] {
        let line = format!("run --name deep -v data:/data {rm} app:1 sh -c '{script}'");
        assert_eq!(few(&line), "deep\n");
        if rm.is_empty() {
            let pruned = few("container prune -f");
            assert!(pruned.contains("Total reclaimed space: 1"), "{pruned}");
        }
        assert!(left(&s).is_empty());
        assert!(few("volume ls -l").contains("data"));
        few("volume rm data");
        assert_eq!(volumes(&s), 0);
    }
}

#[test]
fn root_a_small_init_collects_orphans() {
    let s = sandbox();
    // The grandchild is left to process 1, which must not keep it as a zombie.
    let script =
        "(sh -c 'sleep 0.1' &) ; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l";
    let run = s
        .mica(["run", "--rm", "--init", "app:1", "sh", "-c", script])
        .ok();
    assert_eq!(run.stdout(), "0\n");
}

#[test]
fn root_an_image_of_a_container_is_in_use() {
    let s = sandbox();
    let id = image("app:1").id().replace("sha256:", "");
    let (short, mount) = (id.get(..12).unwrap().to_owned(), s.mount());
    shown(&s, "run -d --name web app:1 sleep 600");
    let container = shown(&s, "ps -q").trim().to_owned();
    let refuses = |line: &str, words: String| {
        let run = mica(&s, line).code(1);
        assert!(
            run.stderr().contains(&words),
            "{words} in:\n{}",
            run.describe()
        );
    };
    let by_name = format!(
        "conflict: unable to remove repository reference \"app:1\" (must force) - container {container} is using its referenced image {short}"
    );
    refuses("rmi app:1", by_name.clone());
    let running = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
    );
    refuses(&format!("rmi {short}"), running.clone());
    refuses(&format!("rmi -f {short}"), running);
    let tag = mount.path("images/app/1");
    let removed = fs::remove_dir_all(&tag).unwrap_err();
    assert_eq!(removed.raw_os_error(), Some(libc::EBUSY), "{removed}");
    shown(&s, "kill web");
    shown(&s, "wait web");
    refuses("rmi app:1", by_name);
    refuses(
        &format!("rmi {short}"),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        ),
    );
    let removed = fs::remove_dir_all(&tag).unwrap_err();
    assert_eq!(removed.raw_os_error(), Some(libc::EBUSY), "{removed}");
    // The name can go; the image stays for its container.
    assert_eq!(shown(&s, "rmi -f app:1"), "Untagged: app:1\n");
    shown(&s, "start web");
    assert_eq!(shown(&s, "exec web echo here"), "here\n");
    shown(&s, "rm -f web");
}

/// A limit on the size of files is an error that names the file, not a silent end; what runs in a container, or is held, has the
/// signal as ever.
#[test]
fn root_regression_a_limit_on_the_size_of_files_is_an_error() {
    let s = sandbox();
    let big = ImageBuilder::new("big:1").layer(|l| l.file("big", vec![7; 3 << 20]));
    big.docker_archive(&s.path("big.tar"));
    let mica = env!("CARGO_BIN_EXE_mica");
    let before = s.store_files();
    let run = s
        .sh(&format!("ulimit -f 2000; {mica} load -i big.tar"))
        .code(1);
    assert!(
        run.stderr().contains("File too large"),
        "{}",
        run.describe()
    );
    s.mica(["gc"]).ok();
    assert_eq!(s.store_files(), before);
    shown(&s, "volume create held");
    let script = "busybox head -c 3000000 /dev/zero >/f";
    let run = s
        .sh(&format!(
            "ulimit -f 2000; {mica} run --rm app:1 sh -c '{script}; echo $?'"
        ))
        .ok();
    assert_eq!(run.stdout(), "153\n", "{}", run.describe());
    let run = s.sh(&format!(
        "ulimit -f 2000; {mica} hold held -- sh -c 'head -c 3000000 /dev/zero >f; echo $?'; \
         trap '' XFSZ; {mica} hold held -- sh -c 'head -c 3000000 /dev/zero >f 2>/dev/null; echo $?'"
    ));
    assert_eq!(run.stdout(), "153\n1\n", "{}", run.describe());
    // A copy to a volume that is too large fails, and says so.
    s.load(&image("vol:1").layer(|l| l.file("v/big", vec![7; 3 << 20])));
    let run = s
        .sh(&format!(
            "ulimit -f 2000; {mica} run --rm -v vol:/v vol:1 true"
        ))
        .code(125);
    assert!(
        run.stderr().contains("File too large"),
        "{}",
        run.describe()
    );
}

/// Who may open too few files is told that, whatever it is that fails for it.
#[test]
fn root_regression_too_few_descriptors_are_called_that() {
    let s = sandbox();
    let mica = env!("CARGO_BIN_EXE_mica");
    for verb in ["run --rm app:1 true", "volume create vol", "rmi app:1"] {
        let run = s.sh(&format!("ulimit -n 4; {mica} {verb}")).fails();
        let said = run.stderr();
        assert!(said.contains("Too many open files"), "{}", run.describe());
    }
    assert_eq!(s.mica(["images", "-q"]).ok().stdout().lines().count(), 1);
}

/// What a detached container prints while the disk is full is missing from its log, and the log says so.
#[test]
fn root_regression_a_log_on_a_full_disk_says_what_is_missing() {
    let s = sandbox();
    let store = s.mkdir("small");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
        .arg(&store);
    s.run(mount).ok();
    let archive = s.path("app.tar");
    image("app:1").docker_archive(&archive);
    let run = |args: &[&str]| {
        let mut command = s.command();
        command.env("MICA_STORE", store.join("store")).args(args);
        s.run(command)
    };
    run(&["load", "-i", archive.to_str().unwrap()]).ok();
    let bind = format!("{}:/word", s.mkdir("word").display());
    let script = "echo first; until test -e /word/full; do sleep 0.05; done; i=0; \
        while test $i -lt 300; do echo $i is a line that is not short at all; i=$((i+1)); done; echo >/word/said; \
        until test -e /word/free; do sleep 0.05; done; echo last";
    run(&[
        "run", "-d", "--name", "web", "-v", &bind, "app:1", "sh", "-c", script,
    ])
    .ok();
    wait_until("the first line is there", || {
        run(&["logs", "web"]).stdout() == "first\n"
    });
    s.sh("cat /dev/zero >small/filler 2>/dev/null || true; echo >word/full")
        .ok();
    wait_until("it has said all", || s.path("word/said").exists());
    s.sh("rm small/filler; echo >word/free").ok();
    run(&["wait", "web"]).ok();
    let logs = run(&["logs", "web"]).ok();
    let (out, told) = (logs.stdout(), logs.stderr());
    assert!(
        out.starts_with("first\n") && out.ends_with("last\n"),
        "{}",
        logs.describe()
    );
    let missing: usize = told
        .strip_prefix("mica: ")
        .and_then(|told| told.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{}", logs.describe()));
    assert_eq!(missing + out.lines().count(), 302, "{}", logs.describe());
    run(&["rm", "web"]).ok();
    let mut umount = Command::new("umount");
    umount.arg(&store);
    s.run(umount).ok();
}

#[test]
fn root_a_full_disk_is_no_hang() {
    let s = sandbox();
    let small = s.mkdir("small");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&small);
    s.run(mount).ok();
    let archive = s.path("app.tar");
    image("app:1").docker_archive(&archive);
    let run = |args: &[&str]| {
        let mut command = s.command();
        command.env("MICA_STORE", small.join("store")).args(args);
        s.run(command)
    };
    run(&["load", "-i", archive.to_str().unwrap()]).ok();
    let full = run(&[
        "run",
        "--rm",
        "app:1",
        "sh",
        "-c",
        "cat /dev/zero > /big; echo end",
    ])
    .ok();
    assert_eq!(full.stdout(), "end\n");
    assert!(
        full.stderr().contains("No space left"),
        "{}",
        full.describe()
    );
    assert_eq!(
        fs::read_dir(small.join("store/containers"))
            .unwrap()
            .count(),
        0
    );
}
