//! `attach`, and leaving what one is attached to.

use std::io::{Read as _, Write as _};

use super::*;
use crate::common::terminal::Terminal;

#[test]
fn root_a_terminal_is_left_and_attached_to_again() {
    let s = sandbox();
    let mut first = Terminal::new(&s, &["run", "-it", "--name", "two", "app:1", "sh"]);
    first.types("echo on$((1+1))e\n");
    first.shows("on2e");
    first.types("\x10\x11");
    assert_eq!(first.ends(), 0, "{}", first.seen);
    assert!(
        first.seen.contains("read escape sequence"),
        "{:?}",
        first.seen
    );
    assert_eq!(shown(&s, "ps --format {{.Names}}"), "two\n");
    // What comes now is in its log.
    let mut again = Terminal::new(&s, &["attach", "two"]);
    again.types("echo tw$((0))o; stty size\n");
    again.shows("tw0o");
    again.shows("24 80");
    // Two at a time see the same.
    let mut other = Terminal::new(&s, &["start", "-ai", "--detach-keys", "ctrl-x,q", "two"]);
    other.types("echo bo$((7))th\n");
    again.shows("bo7th");
    other.shows("bo7th");
    other.types("\x18q");
    assert_eq!(other.ends(), 0);
    // docker's status of attach that is left.
    let mut third = Terminal::new(&s, &["attach", "two"]);
    third.types("echo thi$((3))rd\n");
    third.shows("thi3rd");
    third.types("\x10\x11");
    assert_eq!(third.ends(), 1, "{}", third.seen);
    again.types("exit 7\n");
    assert_eq!(again.ends(), 7, "{}", again.seen);
    wait_until("it has ended", || shown(&s, "ps -q").is_empty());
    let log = shown(&s, "logs two");
    assert!(log.contains("tw0o") && log.contains("bo7th"), "{log}");
    assert!(shown(&s, "ps -a --format {{.Status}}").starts_with("Exited (7)"));
    for (line, why) in [
        (
            "attach two",
            "You cannot attach to a stopped container, start it first",
        ),
        ("attach nosuch", "No such container: nosuch"),
        ("attach --detach-keys ctrl-+ two", "invalid detach keys"),
    ] {
        let run = mica(&s, line).fails();
        assert!(run.stderr().contains(why), "{}", run.describe());
    }
    // One that nobody leaves: its status is that of run, it goes when its starter is killed.
    let mut third = Terminal::new(&s, &["run", "--rm", "-it", "app:1", "sh", "-c", "exit 5"]);
    assert_eq!(third.ends(), 5, "{}", third.seen);
    let mut fourth = Terminal::new(&s, &["run", "--rm", "-it", "app:1", "nosuch"]);
    assert_eq!(fourth.ends(), 127, "{}", fourth.seen);
    assert!(
        fourth.seen.contains("executable file not found"),
        "{}",
        fourth.seen
    );
    let mut fifth = Terminal::new(&s, &["run", "--rm", "--name", "five", "-it", "app:1", "sh"]);
    // Not the echo of what was typed: it must be up.
    fifth.types("echo u$((0))p\n");
    fifth.shows("u0p");
    let pid = shown(&s, "inspect -f {{.State.Pid}} five");
    let starter = s.sh("pgrep -f 'run --rm --name five' | while read p; do tr '\\0' ' ' < /proc/$p/cmdline | grep -q '^[^ ]*mica' && echo $p; done | sort -n | head -1").stdout();
    s.sh(&format!("kill -9 {}", starter.trim())).ok();
    wait_until("its process is dead", || {
        !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists()
    });
}

/// The processes of a container whose command line has this word.
fn inside(s: &Sandbox, container: &str, word: &str) -> usize {
    let top = shown(s, &format!("top {container} -eo pid,args"));
    top.lines().filter(|line| line.contains(word)).count()
}

#[test]
fn root_a_command_of_exec_is_left_and_goes_on() {
    let s = sandbox();
    shown(&s, "run -d --init --name box app:1 sleep 1000");
    s.mkdir("docker");
    let config = s.path("docker/config.json");
    let start = |config: Option<&str>, words: &[&str]| {
        match config {
            Some(text) => fs::write(s.path("docker/config.json"), text).unwrap(),
            None => fs::remove_file(s.path("docker/config.json")).unwrap_or_default(),
        }
        let all: Vec<&str> = ["exec", "-it"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let mut terminal = Terminal::with(&s, &all, &[("DOCKER_CONFIG", "docker")]);
        terminal.types("echo re$((0))ady\n");
        terminal.shows("re0ady");
        terminal
    };
    // docker's words and status; the command goes on, and what it prints is nobody's.
    let mut first = start(None, &["box", "sh"]);
    first.types("while :; do echo flood; done & exec sleep 1001\n");
    // The command's, not the echo of what was typed.
    first.shows("flood\r\nflood\r\n");
    let left = || inside(&s, "box", "sleep 1001");
    wait_until("the shell has become it", || left() == 1);
    first.types("\x10\x11");
    assert_eq!(first.ends(), 1, "{}", first.seen);
    assert!(
        first.seen.contains("read escape sequence"),
        "{:?}",
        first.seen
    );
    assert_eq!(left(), 1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(left(), 1);
    // Its own keys; the usual ones are for the command then. The file's, which the option comes before.
    for (config, option, keys) in [
        (None, "ctrl-x,q", "\x18q"),
        (Some(r#"{"detachKeys": "ctrl-y"}"#), "", "\x19"),
        (Some(r#"{"detachKeys": "ctrl-y"}"#), "ctrl-x,q", "\x18q"),
        (Some(r#"{"auths": {}}"#), "", "\x10\x11"),
        (Some(r#"{"detachKeys": 7}"#), "", "\x10\x11"),
    ] {
        let option = format!("--detach-keys={option}");
        let mut terminal = start(config, &[&option, "box", "sh"]);
        if keys != "\x10\x11" {
            terminal.types("\x10\x11\necho st$((1))ill\n");
            terminal.shows("st1ill");
        }
        terminal.types(keys);
        assert_eq!(terminal.ends(), 1, "{config:?} {option}: {}", terminal.seen);
    }
    // A file that says nothing that can be used is no obstacle: it is said, and the usual keys count.
    let many = format!(r#"{{"detachKeys": "{}a"}}"#, "a,".repeat(100_000));
    let large = format!(r#"{{"x": "{}", "detachKeys": "a"}}"#, "x".repeat(5 << 20));
    for (text, why) in [
        ("{", "EOF while parsing"),
        ("", "EOF while parsing"),
        (r#"{"detachKeys": "ctrl-"}"#, "Unknown character: 'ctrl-'"),
        (&many, "invalid detach keys"),
        (&large, "it has more than"),
    ] {
        fs::write(&config, text).unwrap();
        let mut terminal = Terminal::with(
            &s,
            &["exec", "-it", "box", "sh"],
            &[("DOCKER_CONFIG", "docker")],
        );
        terminal.shows(why);
        terminal.types("echo re$((0))ady\n");
        terminal.shows("re0ady");
        terminal.types("\x10\x11");
        assert_eq!(terminal.ends(), 1, "{}", terminal.seen);
    }
    fs::remove_file(&config).unwrap();
    s.sh("mkfifo docker/config.json").ok();
    let mut terminal = Terminal::with(
        &s,
        &["exec", "-it", "box", "sh"],
        &[("DOCKER_CONFIG", "docker")],
    );
    terminal.shows("it is no file");
    // Not left, its end and its status are the command's.
    terminal.types("exit 9\n");
    assert_eq!(terminal.ends(), 9, "{}", terminal.seen);
    fs::remove_file(&config).unwrap();
    // Who is killed takes along what nobody has left.
    let mut killed = start(
        None,
        &["box", "sh", "-c", "read x; echo re0ady; exec sleep 1002"],
    );
    let found = s.sh("pgrep -f '[e]xec -it box sh -c read'").ok().stdout();
    let oldest = found.lines().next().unwrap().to_owned();
    s.sh(&format!("kill -9 {oldest}")).ok();
    wait_until("its command has ended", || {
        inside(&s, "box", "sleep 1002") == 0
    });
    killed.look();
    // With the container all of it ends, and nothing of mica stays.
    shown(&s, "rm -f box");
    wait_until("nobody stays", || {
        !s.sh(&format!(
            "pgrep -f '{} [e]xec -it box'",
            env!("CARGO_BIN_EXE_mica")
        ))
        .status
        .success()
    });
}

/// The processes of `mica exec -it` in this container that lead a session, and those that do not.
fn beside(s: &Sandbox, container: &str) -> (usize, usize) {
    let mica = env!("CARGO_BIN_EXE_mica");
    let found = s.sh(&format!("pgrep -f '{mica} [e]xec -it {container} '"));
    let found = found.stdout();
    let leads = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Its state, parent, process group, session.
        let (_, rest) = stat.rsplit_once(") ")?;
        Some(rest.split(' ').nth(3)? == pid)
    };
    let (lead, others): (Vec<bool>, Vec<bool>) =
        found.lines().filter_map(leads).partition(|leads| *leads);
    (lead.len(), others.len())
}

/// Who stays told his starter so in two pieces: the starter heard the first and ended, and the second failed.
#[test]
fn root_regression_a_command_that_floods_its_terminal_is_left_and_goes_on() {
    let s = sandbox();
    // A race: one in three was lost.
    for turn in 0..14 {
        let name = format!("box{turn}");
        shown(&s, &format!("run -d --init --name {name} app:1 sleep 1000"));
        let mut terminal = Terminal::new(&s, &["exec", "-it", &name, "sh"]);
        terminal.types("while :; do echo flood; done & exec sleep 1001\n");
        // The command's, not the echo of what was typed.
        terminal.shows("flood\r\nflood\r\n");
        let goes_on = || inside(&s, &name, "sleep 1001") == 1;
        wait_until("the shell has become it", goes_on);
        terminal.types("\x10\x11");
        if turn % 2 == 0 {
            assert_eq!(terminal.ends(), 1, "{}", terminal.seen);
            assert!(terminal.seen.contains("read escape sequence"));
        } else {
            // Nobody reads the terminal any more, and it goes while something is on its way to it.
            wait_until("it was left", || beside(&s, &name) == (3, 0));
        }
        drop(terminal);
        std::thread::sleep(Duration::from_millis(50));
        assert!(goes_on(), "turn {turn}");
        // Who moves its output, and whose child it is.
        wait_until("only two stay", || beside(&s, &name) == (2, 0));
        shown(&s, &format!("rm -f {name}"));
        wait_until("nobody stays", || beside(&s, &name) == (0, 0));
    }
}

/// The process between ended by it, and was taken for the command.
#[test]
fn root_regression_ctrl_c_is_the_commands_of_exec() {
    let s = sandbox();
    shown(&s, "run -d --init --name box app:1 sleep 1000");
    let script = "trap 'sleep 0.2; echo go$((0))t; exit 3' INT; echo re$((0))ady; while :; do sleep 0.05; done";
    let mut terminal = Terminal::new(&s, &["exec", "box", "sh", "-c", script]);
    terminal.shows("re0ady");
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 3, "{}", terminal.seen);
    assert!(terminal.seen.contains("go0t"), "{}", terminal.seen);
}

/// What was wrong was said in pieces, of which the first was heard.
#[test]
fn root_regression_why_a_command_of_exec_was_not_started_is_heard_whole() {
    let s = sandbox();
    shown(&s, "run -d --init --name box app:1 sleep 1000");
    for _ in 0..10 {
        let mut terminal = Terminal::new(&s, &["exec", "-it", "box", "nosuch"]);
        assert_eq!(terminal.ends(), 127, "{}", terminal.seen);
        let why = "exec: \"nosuch\": executable file not found in $PATH";
        assert!(terminal.seen.contains(why), "{}", terminal.seen);
    }
}

/// Who stays with a container kept the directory busy that it was started in.
#[test]
fn root_regression_who_stays_keeps_no_directory_busy() {
    let s = sandbox();
    s.mkdir("busy");
    let mica = env!("CARGO_BIN_EXE_mica");
    s.sh("mount -t tmpfs none busy").ok();
    s.sh(&format!(
        "cd busy; export MICA_STORE=../store; {mica} run -d --init --name one app:1 sleep 1000; {mica} exec -d one sleep 1001"
    ))
    .ok();
    s.sh("umount busy").ok();
    shown(&s, "exec one true");
    let mut left = Terminal::new(&s, &["run", "-it", "--name", "two", "app:1", "sh"]);
    left.types("echo re$((0))ady\n");
    left.shows("re0ady");
    left.types("\x10\x11");
    assert_eq!(left.ends(), 0, "{}", left.seen);
    let places = s.sh(&format!(
        "for p in $(pgrep -f '{mica} [r]un -it --name two'); do readlink /proc/$p/cwd; done"
    ));
    let places = places.stdout();
    let in_the_way = |place: &str| place.starts_with(&s.dir().display().to_string());
    assert!(
        !places.is_empty() && !places.lines().any(in_the_way),
        "{places}"
    );
    shown(&s, "rm -f one two");
}

#[test]
fn root_what_runs_in_the_background_is_attached_to() {
    let s = sandbox();
    shown(
        &s,
        "run -d -i --init --name two app:1 -- while read line; do echo got $line; echo err $line >&2; done; exit 3",
    );
    let sh = |script: &str| s.sh(&script.replace("MICA", env!("CARGO_BIN_EXE_mica")));
    let mut command = s.command();
    command
        .args(["attach", "two"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut attached = command.spawn().unwrap();
    attached
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    let mut out = [0; 16];
    attached
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut out)
        .unwrap();
    assert_eq!(&out, b"got one\ngot two\n");
    let mut err = [0; 16];
    attached
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut err)
        .unwrap();
    assert_eq!(&err, b"err one\nerr two\n");
    // Without -i nothing is given; signals are passed on, or not.
    sh("timeout -s TERM 1 MICA attach --no-stdin --sig-proxy=false two < /dev/null").code(124);
    assert_eq!(shown(&s, "ps --format {{.Names}}"), "two\n");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&attached),
        rustix::process::Signal::HUP,
    )
    .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = attached.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            attached.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(129));
    assert!(shown(&s, "ps -a --format {{.Status}}").starts_with("Exited (129)"));
    // A client that does not read holds up nobody's end; one that is killed, nothing.
    shown(
        &s,
        "run -d --name three app:1 -- sleep 1; i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done",
    );
    let mut command = s.command();
    command
        .args(["attach", "three"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut stuck = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut command = s.command();
    command
        .args(["attach", "three"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut killed = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert_eq!(shown(&s, "wait three"), "0\n");
    assert_eq!(shown(&s, "logs three").lines().count(), 20000);
    // In front of somebody and without a terminal there is nothing to attach to.
    let _front = Started::new(&s, &["run", "--name", "front", "app:1", "sleep", "1000"]);
    wait_until("it runs", || {
        shown(&s, "ps --format {{.Names}}").contains("front")
    });
    let run = mica(&s, "attach front").code(1);
    assert!(
        run.stderr().contains("cannot be attached to"),
        "{}",
        run.describe()
    );
}
