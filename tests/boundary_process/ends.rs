//! How containers end, what is said of them, and who they are by then.

use super::*;

/// CVE-2016-3697, CVE-2026-46680: an image gives root a number for a name.
#[test]
fn fuse_regression_cve_2016_3697_a_number_that_is_a_name() {
    for w in World::both() {
        w.s.load(&image("app:1").layer(|l| {
            l.file(
                "etc/passwd",
                "7:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n",
            )
            .file("etc/group", "44:x:0:\n")
        }));
        w.shown("$mica run -d --name web app:1 sleep 600");
        for how in ["run --rm --user=USER app:1", "exec --user=USER web"] {
            let id = |user: &str| {
                let how = how.replace("USER", user);
                w.sh(&format!(
                    "$mica {how} sh -c 'echo $(busybox id -u):$(busybox id -g)'"
                ))
            };
            assert_eq!(id("7").stdout(), "7:0\n", "{how}");
            assert_eq!(id("07").stdout(), "7:0\n", "{how}");
            assert_eq!(id("+7").stdout(), "7:0\n", "{how}");
            assert_eq!(id("7:44").stdout(), "7:44\n", "{how}");
            for far in ["4294967296", "99999999999999999999", "0:4294967296", "-1"] {
                let run = id(far);
                assert!(!run.status.success(), "{}", run.describe());
                assert!(
                    run.stderr().contains("must be in range 0-2147483647"),
                    "{}",
                    run.describe()
                );
            }
        }
        w.shown("$mica rm -f web");
    }
}

/// CVE-2025-27612, CVE-2022-29162, CVE-2018-10856, CVE-2022-36109.
#[test]
fn fuse_regression_cve_2022_29162_capabilities_and_groups_of_run_and_exec() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        let ambient = match w.user {
            true => "",
            // Whoever starts it may have what he likes.
            false => "setpriv --inh-caps +chown,+sys_admin --ambient-caps +chown,+sys_admin",
        };
        for user in ["0", "bob", "1000"] {
            let status = |how: &str| {
                let text = w.shown(&format!("{ambient} $mica {how} cat /proc/self/status"));
                let kept = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs"];
                let lines = text
                    .lines()
                    .filter(|line| kept.iter().any(|k| line.starts_with(k)));
                lines
                    .map(|line| line.trim_end().to_owned() + "\n")
                    .collect::<String>()
            };
            let run = status(&format!("run --rm -u {user} app:1"));
            assert_eq!(run, status(&format!("exec -u {user} web")), "{user}");
            assert!(run.contains("CapInh:\t0000000000000000\n"), "{run}");
            assert!(run.contains("CapAmb:\t0000000000000000\n"), "{run}");
            assert!(run.contains("NoNewPrivs:\t1\n"), "{run}");
            if user != "0" {
                assert!(run.contains("CapPrm:\t0000000000000000\n"), "{run}");
                assert!(run.contains("CapEff:\t0000000000000000\n"), "{run}");
                // The group of the user is one of his groups.
                assert!(run.contains("Groups:\t10 1001\n"), "{run}");
            }
        }
        w.shown("$mica rm -f web");
    }
}

#[test]
fn root_regression_labels_of_an_image_are_no_facts_of_events() {
    let w = World::root();
    w.s.load(&image("evil:1").config(|c| {
        c["config"]["Labels"] = serde_json::json!({
            "pid": "1", "uid": "0", "exitCode": "0", "name": "debian:12", "image": "debian", "previous": "x", "kind": "label",
        });
    }));
    w.shown("$mica tag evil:1 also:1; $mica run --rm evil:1 false || true; $mica rmi also:1");
    let events = w.shown("$mica events --since 1h --until 0s");
    assert!(events.contains("kind=label"), "{events}");
    for said in [
        "pid=1",
        "uid=0",
        "exitCode=0",
        "name=debian",
        "image=debian",
        "previous=x",
    ] {
        assert!(!events.contains(said), "{said}: {events}");
    }
    assert!(events.contains("exitCode=1"), "{events}");
}

#[test]
fn root_regression_an_image_with_a_stop_signal_that_is_none_can_be_stopped() {
    let w = World::root();
    w.s.load(&image("evil:1").config(|c| c["config"]["StopSignal"] = "SIG\u{1b}[31m".into()));
    w.shown("$mica run -d --name web evil:1 sh -c 'trap \"exit 5\" TERM; touch /set; while :; do sleep 0.1; done'");
    wait_until("the trap is set", || {
        w.sh("$mica exec web test -e /set").status.success()
    });
    let run = w.sh("$mica stop web").ok();
    assert!(
        run.stderr().contains("SIGTERM is sent"),
        "{}",
        run.describe()
    );
    assert!(!run.stderr().contains('\u{1b}'), "{}", run.describe());
    assert_eq!(w.shown("$mica wait web"), "5\n");
}

/// Process 1 goes somewhere else, and something waits there for who follows.
#[test]
fn fuse_regression_exec_enters_what_was_made_for_the_container() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        let dir = fs::read_dir(w.s.store().join("containers"))
            .unwrap()
            .next()
            .unwrap();
        let file = dir.unwrap().path().join("state.json");
        let state = fs::read_to_string(&file).unwrap();
        let mut changed: serde_json::Value = serde_json::from_str(&state).unwrap();
        let kinds: Vec<String> = changed["namespaces"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(kinds.len(), if w.user { 6 } else { 5 }, "{state}");
        for kind in &kinds {
            let noted = changed["namespaces"][kind].clone();
            changed["namespaces"][kind] = 1.into();
            fs::write(&file, changed.to_string()).unwrap();
            let run = w.sh("$mica exec web true");
            assert!(
                run.status.code() == Some(1) && run.stderr().contains("namespaces"),
                "{}",
                run.describe()
            );
            changed["namespaces"][kind] = noted;
        }
        fs::write(&file, &state).unwrap();
        w.shown("$mica exec web true");
        w.shown("$mica rm -f web");
    }
}

/// What is dead, and whose supervisor has not come to say so.
#[test]
fn root_regression_exec_into_a_container_that_has_ended() {
    let w = World::root();
    w.s.load(&image("app:1"));
    w.shown("$mica run -d --name web app:1 sleep 600");
    let dir = fs::read_dir(w.s.store().join("containers"))
        .unwrap()
        .next()
        .unwrap();
    let state = fs::read(dir.unwrap().path().join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let pid = state["pid"].as_u64().unwrap();
    let parent = w.shown(&format!("grep PPid /proc/{pid}/status | tr -dc 0-9"));
    w.shown(&format!("kill -STOP {parent}; kill -KILL {pid}"));
    wait_until("it is dead", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    });
    let run = w.sh("$mica exec web true");
    w.shown(&format!("kill -CONT {parent}"));
    assert_eq!(run.status.code(), Some(1), "{}", run.describe());
    assert!(
        run.stderr().contains("is not running"),
        "{}",
        run.describe()
    );
    w.shown("$mica wait web; $mica rm web");
}

#[test]
fn fuse_regression_what_was_killed_has_ended() {
    for w in World::ready() {
        // Removed, used again, started again, by a signal that it catches as well, twenty times in all.
        w.shown(
            &"for i in $(seq TRIES); do
               $mica run -d --name aa app:1 sleep 99; $mica kill aa && $mica rm aa
               $mica run -d --rm --name bb app:1 sleep 99; $mica kill bb && $mica run --rm --name bb app:1 true
               $mica run -d --init --name cc app:1 sleep 99; $mica kill -s TERM cc && $mica start cc && $mica rm -f cc
               $mica run -d --name dd app:1 sleep 99; (while $mica ps -a; do :; done >/dev/null) & looker=$!
               $mica kill dd && $mica rm dd; kill $looker; wait $looker || true
             done >/dev/null"
                .replace("TRIES", &tries(5)),
        );
        assert_eq!(w.shown("$mica ps -aq"), "");
        let run = w.sh("$mica run -d --name aa app:1 true; $mica wait aa; $mica kill aa");
        assert!(
            run.stderr().contains("is not running"),
            "{}",
            run.describe()
        );
    }
}

#[test]
fn root_wrong_usage_of_run_is_125_wherever_it_stands() {
    let w = World::root();
    for line in [
        "run --nope x",
        "--store /x run --pull=x y",
        "container run --nope",
        "container --store=/x run -d --nope",
    ] {
        let run = w.sh(&format!("$mica {line}"));
        assert_eq!(run.status.code(), Some(125), "{}", run.describe());
    }
    // docker's for what is missing from another verb.
    for line in [
        "run",
        "container --store=/x run",
        "exec",
        "--store run tag a",
        "container rm",
    ] {
        let run = w.sh(&format!("$mica {line}"));
        assert_eq!(run.status.code(), Some(1), "{}", run.describe());
    }
    for line in [
        "run -h",
        "run --rm -it -h",
        "container run -h",
        "--store /x run -h",
    ] {
        let run = w.sh(&format!("$mica {line}")).ok();
        assert!(run.stdout().contains("--hostname"), "{}", run.describe());
        assert_eq!(run.stderr(), "");
    }
}

#[test]
fn root_ctrl_c_that_nobody_hears_gets_an_answer() {
    let w = World::ready().into_iter().next().unwrap();
    let script = |how: &str| {
        format!(
            "$mica run --rm --name web {how} 2>err & started=$!
            until $mica exec web test -e /bin/sh 2>/dev/null; do sleep 0.05; done
            for i in 1 2 3; do kill -INT $started || true; sleep 0.3; done 2>/dev/null
            $mica kill web >/dev/null || true; wait $started || true; cat err"
        )
    };
    let said = w.shown(&script("app:1 sleep 600"));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("mica kill web") && said.contains("--init"),
        "{said}"
    );
    assert_eq!(w.shown(&script("--init app:1 sleep 600")), "");
    assert_eq!(
        w.shown(&script(
            "app:1 sh -c 'trap : INT; while :; do sleep 0.1; done'"
        )),
        ""
    );
}

#[test]
fn root_start_of_a_running_one_attaches() {
    let w = World::root();
    w.s.load(&image("app:1"));
    w.shown("$mica run -di --name web app:1 sh -c 'read word; echo got $word; exit 3'");
    assert_eq!(w.shown("$mica start web"), "web\n");
    let run = w.sh("echo it | $mica start -ai web");
    assert_eq!(run.status.code(), Some(3), "{}", run.describe());
    assert_eq!(run.stdout(), "got it\n", "{}", run.describe());
    w.shown("$mica rm -f web");
}

/// CVE-2022-31030, CVE-2025-64329.
#[test]
fn root_logs_and_execs_leave_nothing_in_memory() {
    let w = World::root();
    w.s.load(&image("app:1"));
    w.shown("$mica run -d --name web app:1 sh -c 'for i in 1 2 3; do echo out $i; done; echo err 3 >&2; sleep 600'");
    wait_until("it has printed", || {
        w.shown("$mica logs web 2>&1").contains("err 3")
    });
    assert_eq!(w.shown("$mica logs -n 2 web 2>&1").lines().count(), 2);
    assert_eq!(w.shown("$mica logs -n 0 web 2>&1"), "");
    assert_eq!(
        w.shown("$mica logs --since 1h web 2>/dev/null"),
        "out 1\nout 2\nout 3\n"
    );
    assert_eq!(
        w.shown("$mica logs --until 1h web 2>&1; $mica logs --since 2100-01-01 web 2>&1"),
        ""
    );
    let dir = fs::read_dir(w.s.store().join("containers"))
        .unwrap()
        .next()
        .unwrap();
    let dir = dir.unwrap().path();
    // A log of 200 MB, with little memory.
    let line = "{\"log\":\"0123456789 0123456789 0123456789\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}";
    w.shown(&format!(
        "yes '{line}' | head -c 200000000 >>{}",
        dir.join("log").display()
    ));
    // What a debug build alone takes of addresses comes on top.
    assert_eq!(
        w.shown("ulimit -v 400000; $mica logs web 2>/dev/null | tail -n1"),
        "0123456789 0123456789 0123456789\n"
    );
    let state = fs::read(dir.join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let parent = w.shown(&format!(
        "grep PPid /proc/{}/status | tr -dc 0-9",
        state["pid"]
    ));
    let held = || {
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{parent}/{what}"))
                .unwrap()
                .count()
        };
        (count("fd"), count("task"))
    };
    let before = held();
    w.shown(&format!(
        "for i in $(seq {}); do $mica exec web true; done",
        tries(20)
    ));
    assert_eq!(held(), before);
    w.shown("$mica rm -f web");
}

/// CVE-2019-11245: the user of an image counts at every start; CVE-2020-14370: variables are a container's own.
#[test]
fn root_regression_cve_2019_11245_the_second_start_is_as_the_first() {
    let w = World::root();
    w.s.load(&image("app:1").config(|c| c["config"]["User"] = "1000".into()));
    w.shown(
        "$mica run --name web -e OF=web app:1 true; $mica run --name other -e OF=other app:1 true",
    );
    for _ in 0..2 {
        w.shown("$mica run -d --rm --name run -e A=1 app:1 sleep 600; $mica start web other");
        assert_eq!(
            w.shown("$mica exec run sh -c 'busybox id -u; echo $OF'"),
            "1000\n\n"
        );
        w.shown("$mica rm -f run");
    }
    w.shown("$mica rm web; $mica run --name web -e OF=web app:1 sh -c 'busybox id -u; echo $OF'");
    assert_eq!(w.shown("OF=mine $mica start -a web"), "1000\nweb\n");
}
