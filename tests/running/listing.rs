//! `ps`, `logs`, `exec`, `rm`: docker's columns and words.

use super::*;

#[test]
fn root_ps_has_docker_s_columns() {
    let s = sandbox();
    assert_eq!(
        shown(&s, "ps"),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    );
    let id = shown(&s, "run -d --name web -l tier=front app:1 sleep 600");
    assert_eq!(id.trim().len(), 64);
    mica(&s, "run --name done app:1 -- exit 3").code(3);
    let table = shown(&s, "ps");
    let row = table.lines().nth(1).unwrap();
    for part in [
        id.get(..12).unwrap(),
        "app:1",
        "\"sleep 600\"",
        "Up ",
        "web",
    ] {
        assert!(row.contains(part), "{part} in:\n{table}");
    }
    assert!(shown(&s, "ps -a").contains("Exited (3) "));
    let names = |options: &str| shown(&s, &format!("ps --format {{{{.Names}}}} {options}"));
    assert_eq!(names(""), "web\n");
    assert_eq!(names("-a"), "done\nweb\n");
    assert_eq!(names("-l"), "done\n");
    assert_eq!(names("-n 2"), "done\nweb\n");
    assert_eq!(names("-f status=exited"), "done\n");
    assert_eq!(names("-f exited=3"), "done\n");
    assert_eq!(names("-a -f label=tier"), "web\n");
    assert_eq!(names("-a -f label=tier=back"), "");
    assert_eq!(names("-a -f name=don"), "done\n");
    assert_eq!(names("-a -f name=^web$ -f name=^/do"), "done\nweb\n");
    assert_eq!(names("-a -f name=^we$"), "");
    assert_eq!(names("-a -f ancestor=app:1 -f name=web"), "web\n");
    assert_eq!(names("-a -f since=web"), "done\n");
    assert_eq!(shown(&s, "ps -q --no-trunc"), id);
    let bad = mica(&s, "ps -f nosuch=1").code(1);
    assert!(bad.stderr().contains("invalid filter 'nosuch'"));
    let json = shown(&s, "ps --format json");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["Names"], "web");
    shown(&s, "rm -f web");
}

#[test]
fn root_names_are_unique_and_given() {
    let s = sandbox();
    let id = shown(&s, "run -d --name web app:1 sleep 600");
    let taken = mica(&s, "run --rm --name web app:1 true").code(125);
    let words = format!(
        "Conflict. The container name \"/web\" is already in use by container \"{}\"",
        id.trim()
    );
    assert!(taken.stderr().contains(&words), "{}", taken.describe());
    // As inspect shows it.
    shown(&s, "create --name /slash app:1 true");
    assert_eq!(shown(&s, "rm /slash"), "/slash\n");
    let bad = mica(&s, "run --rm --name a/b app:1 true").code(125);
    assert!(
        bad.stderr()
            .contains("Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    );
    shown(&s, "run app:1 true");
    let names = shown(&s, "ps -a --format {{.Names}}");
    let other = names.lines().next().unwrap();
    assert!(other.contains('_') && other != "web", "{names}");
    shown(&s, "rm -f web");
}

#[test]
fn root_logs_are_what_it_printed() {
    let s = sandbox();
    shown(
        &s,
        "run -d --name web app:1 -- echo one; echo two >&2; sleep 0.5; echo three; sleep 600",
    );
    wait_until("it has printed", || {
        mica(&s, "logs web").stdout().contains("three")
    });
    let run = mica(&s, "logs web").ok();
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("one\nthree\n", "two\n")
    );
    assert_eq!(shown(&s, "logs --tail 1 web"), "three\n");
    let mut follower = s.command();
    follower
        .args(["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let follower = follower.spawn().unwrap();
    shown(&s, "kill web");
    let output = follower.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"one\nthree\n");
    let none = mica(&s, "logs nobody").code(1);
    assert!(none.stderr().contains("No such container: nobody"));
}

#[test]
fn root_exec_runs_beside() {
    let s = sandbox();
    shown(&s, "run -d --name web -e A=1 -w /tmp app:1 sleep 600");
    assert_eq!(shown(&s, "exec web pwd"), "/tmp\n");
    assert_eq!(
        shown(
            &s,
            "exec -e B=2 -w /etc -u bob web -- pwd; echo $A$B; id -u"
        ),
        "/etc\n12\n1000\n"
    );
    mica(&s, "exec web -- exit 9").code(9);
    mica(&s, "exec web nosuch").code(127);
    let status = shown(&s, "exec web cat /proc/self/status");
    assert!(status.contains("CapBnd:\t00000000a80405fb") && status.contains("NoNewPrivs:\t1"));
    // It sees the same processes and files.
    shown(&s, "exec web touch /tmp/mark");
    assert_eq!(shown(&s, "exec web ls /tmp"), "mark\n");
    assert_eq!(shown(&s, "exec web cat /proc/1/comm"), "sleep\n");
    shown(&s, "exec -d web -- echo later > /tmp/later");
    wait_until("it is done", || {
        mica(&s, "exec web cat /tmp/later").stdout() == "later\n"
    });
    let piped = format!(
        "echo hello | {} exec -i web cat",
        env!("CARGO_BIN_EXE_mica")
    );
    assert_eq!(s.sh(&piped).ok().stdout(), "hello\n");
    shown(&s, "kill web");
    shown(&s, "wait web");
    let not = mica(&s, "exec web true").code(1);
    assert!(
        not.stderr().contains("is not running"),
        "{}",
        not.describe()
    );
}

#[test]
fn root_rm_and_prune_remove() {
    let s = sandbox();
    shown(&s, "run -d --name web app:1 sleep 600");
    let running = mica(&s, "rm web").code(1);
    assert!(
        running
            .stderr()
            .contains("cannot remove container \"web\": container is running"),
        "{}",
        running.describe()
    );
    let none = mica(&s, "rm nobody web2").code(1);
    assert_eq!(none.stderr().matches("No such container").count(), 2);
    assert_eq!(shown(&s, "rm -f web"), "web\n");
    shown(&s, "run --name one app:1 -- echo x > /x");
    shown(&s, "run -d --name two app:1 sleep 600");
    let pruned = shown(&s, "container prune -f");
    assert!(
        pruned.starts_with("Deleted Containers:\n") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(shown(&s, "container ls -a --format {{.Names}}"), "two\n");
    shown(&s, "rm -f two");
    assert!(left(&s).is_empty());
}

#[test]
fn root_system_df_counts_what_containers_have_changed() {
    let s = sandbox();
    shown(&s, "run --name done app:1 -- head -c 100000 /dev/zero > /f");
    shown(&s, "run -d --name web -v data:/v app:1 sleep 600");
    let df = shown(
        &s,
        "system df --format {{.Type}}:{{.TotalCount}}:{{.Active}}:{{.Size}}",
    );
    let line = df.lines().nth(1).unwrap();
    // The file, and the directories and records of both.
    let size = line
        .strip_prefix("Containers:2:1:")
        .and_then(|s| s.strip_suffix("kB"));
    let size: f64 = size.and_then(|size| size.parse().ok()).expect(&df);
    assert!((102.0..400.0).contains(&size), "{df}");
    let long = shown(&s, "system df -v");
    let begin = long.find("Containers space usage:\n\nCONTAINER ID   IMAGE     COMMAND");
    let rows: Vec<Vec<&str>> = long[begin.expect(&long)..]
        .lines()
        .skip(3)
        .take(2)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0].last(), Some(&"web"), "{long}");
    assert_eq!(rows[1].last(), Some(&"done"), "{long}");
    assert!(
        long.contains("Exited (0)") && long.contains(" Up "),
        "{long}"
    );
    // What is reclaimable comes back.
    let before = shown(&s, "system df --format {{.Reclaimable}}");
    shown(&s, "rm done");
    let after = shown(&s, "system df --format {{.Reclaimable}}");
    assert_ne!(before.lines().nth(1), Some("0B (0%)"), "{before}");
    assert!(after.lines().nth(1).unwrap().starts_with("0B"), "{after}");
    shown(&s, "rm -f web");
}
