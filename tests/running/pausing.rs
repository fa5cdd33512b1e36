//! `pause` and `unpause`, and what the other verbs say of a container that is paused.

use super::*;

/// The container `two`: a shell that writes a byte to `/n` ten times a second, and a child of it that sleeps.
fn world(s: &Sandbox, options: &str) {
    let line = format!(
        "run -d --name two {options} app:1 -- sleep 1000 & while :; do printf x >> /n; sleep 0.05; done"
    );
    mica(s, &line).ok();
    wait_until("it counts", || count(s) > 0);
}

fn count(s: &Sandbox) -> u64 {
    let upper = left(s)
        .into_iter()
        .map(|dir| dir.join("upper/n"))
        .find(|n| n.exists());
    upper.map_or(0, |n| fs::metadata(n).unwrap().len())
}

/// Nothing is counted in several times as long as a step takes.
fn stands_still(s: &Sandbox) -> bool {
    let before = count(s);
    std::thread::sleep(Duration::from_millis(400));
    count(s) == before
}

#[test]
fn root_pause_and_unpause_are_dockers() {
    let s = sandbox();
    world(&s, "");
    shown(&s, "run --name ended app:1 true");
    assert_eq!(shown(&s, "pause two"), "two\n");
    assert!(stands_still(&s));
    let row = shown(&s, "ps --format {{.Names}}={{.State}}={{.Status}}");
    assert!(
        row.starts_with("two=paused=Up ") && row.ends_with(" (Paused)\n"),
        "{row}"
    );
    assert_eq!(
        shown(
            &s,
            "inspect -f {{.State.Status}},{{.State.Paused}},{{.State.Running}} two"
        ),
        "paused,true,true\n"
    );
    assert_eq!(shown(&s, "ps -q --filter status=paused").lines().count(), 1);
    assert_eq!(shown(&s, "ps -q --filter status=running"), "");
    // Files can be looked at, processes too; the rest waits.
    shown(&s, "cp two:/n n");
    shown(&s, "top two");
    let id = shown(&s, "inspect -f {{.Id}} two");
    let id = id.trim();
    for (line, why) in [
        ("pause two", format!("Container {id} is already paused")),
        ("pause ended", " is not running".to_owned()),
        ("unpause ended", " is not running".to_owned()),
        ("pause nosuch", "No such container: nosuch".to_owned()),
        (
            "exec two true",
            format!("Container {id} is paused, unpause the container before exec"),
        ),
        (
            "start two",
            "cannot start a paused container, try unpause instead".to_owned(),
        ),
        (
            "rm two",
            "cannot remove container \"two\": container is paused and must be unpaused first"
                .to_owned(),
        ),
    ] {
        let run = mica(&s, line).code(1);
        assert!(run.stderr().contains(&why), "{}", run.describe());
    }
    // A commit does not wake it.
    shown(&s, "commit two seen:1");
    assert!(stands_still(&s));
    assert_eq!(shown(&s, "unpause two"), "two\n");
    let before = count(&s);
    wait_until("it goes on", || count(&s) > before);
    let run = mica(&s, "unpause two").code(1);
    assert!(
        run.stderr().contains(" is not paused"),
        "{}",
        run.describe()
    );
    let events = shown(&s, "events --since 0 --until 0s --format {{.Action}}");
    assert!(
        events.contains("pause\n") && events.contains("unpause\n"),
        "{events}"
    );
}

#[test]
fn root_a_paused_container_can_be_stopped_killed_and_removed() {
    let s = sandbox();
    for end in [
        "stop -t 5 two",
        "kill two",
        "rm -f two",
        "restart -t 0 two",
        "kill -s TERM two",
    ] {
        world(&s, "--init");
        shown(&s, "pause two");
        shown(&s, end);
        if end.starts_with("restart") {
            assert!(shown(&s, "ps --format {{.Status}}").starts_with("Up "));
            assert_eq!(shown(&s, "ps -q --filter status=paused"), "");
        } else {
            wait_until("it has ended", || shown(&s, "ps -q").is_empty());
        }
        mica(&s, "rm -f two").ok();
    }
    // What was stopped before stays stopped; whoever was killed while it paused leaves something to unpause.
    world(&s, "");
    shown(&s, "exec -d two sh -c 'kill -STOP $$'");
    shown(&s, "pause two");
    let directory = left(&s).pop().unwrap();
    let text = fs::read_to_string(directory.join("paused")).unwrap();
    fs::write(
        directory.join("paused"),
        text.split_once(",\"held\"").unwrap().0.to_owned() + ",\"held\":null}",
    )
    .unwrap();
    shown(&s, "unpause two");
    let before = count(&s);
    wait_until("it goes on", || count(&s) > before);
    shown(&s, "rm -f two");
}

#[test]
fn fuse_rootless_pause_stops_processes_of_every_id() {
    let s = rootless::user(54_341, "mica-test-54341:700000:65536\n");
    let script = "touch /n; chmod 666 /n; exec busybox su -s /bin/sh bob -c 'while :; do printf x >> /n; sleep 0.05; done'";
    s.mica(["run", "-d", "--name", "two", "app:1", "sh", "-c", script])
        .ok();
    wait_until("it counts", || count(&s) > 0);
    shown(&s, "pause two");
    assert!(stands_still(&s));
    shown(&s, "unpause two");
    let before = count(&s);
    wait_until("it goes on", || count(&s) > before);
    shown(&s, "rm -f two");
}
