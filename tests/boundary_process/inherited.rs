//! What is not given is not inherited: CVE-2024-21626, keyrings, priorities.

use super::*;

#[test]
fn fuse_regression_cve_2024_21626_a_working_directory_below_a_descriptor() {
    for w in World::ready() {
        w.shown("$mica run -d --name web app:1 sleep 600");
        for fd in [3, 7, 9, 12, 30] {
            for how in [
                format!("run --rm -w /proc/self/fd/{fd} app:1"),
                format!("run --rm -w /proc/1/fd/{fd}/etc app:1"),
                format!("exec -w /proc/self/fd/{fd} web"),
            ] {
                let run = w.sh(&format!("$mica {how} cat passwd ../etc/passwd {fd}</etc"));
                assert!(
                    !run.status.success() && run.stdout().is_empty(),
                    "{}",
                    run.describe()
                );
            }
        }
        // What is made because it is missing is made inside.
        let made = w.s.path("made");
        w.sh("$mica run --rm -w /proc/self/fd/9/made/deep app:1 true 9<.");
        assert!(!made.exists());
        // An entry point below one, and the descriptors themselves.
        let run = w.sh("$mica run --rm --entrypoint /proc/self/fd/9/bin/true app:1 9</");
        assert_eq!(run.status.code(), Some(127), "{}", run.describe());
        for how in ["run --rm app:1", "exec web"] {
            let listed = w.shown(&format!(
                "$mica {how} ls /proc/self/fd 9</ 11</dev/null 99<."
            ));
            // The last is that of `ls`.
            assert_eq!(listed, "0\n1\n2\n3\n", "{how}");
        }
        w.shown("$mica rm -f web");
    }
}

#[test]
fn fuse_regression_cve_2024_21626_an_image_with_such_a_working_directory() {
    for w in World::both() {
        for fd in [3, 4, 5, 6, 7, 8, 9] {
            let cwd = format!("/proc/self/fd/{fd}");
            let name = format!("w{fd}:1");
            let configured = image(&name).config(|c| c["config"]["WorkingDir"] = cwd.into());
            w.s.load(&configured);
            for how in [
                format!("run --name c{fd} {name} ls -d etc"),
                format!("start -a c{fd}"),
            ] {
                let run = w.sh(&format!("$mica {how} 9</ 8</ 7</ 6</ 5</ 4</ 3</"));
                assert!(
                    !run.status.success() && run.stdout().is_empty(),
                    "{}",
                    run.describe()
                );
            }
        }
    }
}

/// A missing working directory is made of directories, inside.
#[test]
fn fuse_regression_cve_2026_55686_a_working_directory_through_links() {
    for w in World::both() {
        let outside = w.s.mkdir("outside");
        let link = outside.to_str().unwrap().to_owned();
        w.s.load(&image("app:1").layer(|l| {
            l.symlink("a", format!("../../..{link}"))
                .symlink("self", "/proc/self/root/made-by-link")
                .symlink("cwd", "/proc/self/cwd")
        }));
        w.sh("$mica run --rm -w /a/b/c app:1 pwd");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(w.shown("$mica run --rm -w /x/../y/z app:1 pwd"), "/y/z\n");
        assert_eq!(w.shown("$mica run --rm -w /x//y/./z app:1 pwd"), "/x/y/z\n");
        assert_eq!(w.shown("$mica run --rm -w / app:1 pwd"), "/\n");
        let run = w.sh("$mica run --rm -w /etc/passwd app:1 pwd");
        assert_eq!(run.status.code(), Some(126), "{}", run.describe());
    }
}

#[test]
fn fuse_regression_runc_453_the_keys_of_whoever_starts_it() {
    for w in World::both() {
        w.s.load(&image("app:1").layer(with_probe));
        let probe = probe_on(&w.s);
        let with_key = format!("{} with-key", probe.display());
        // They are there.
        assert_eq!(
            w.shown(&format!("{with_key} {} find-key", probe.display())),
            "s3cret\n"
        );
        let found = |how: &str| w.shown(&format!("{with_key} $mica {how} probe find-key"));
        assert_eq!(found("run --rm app:1"), "none\n");
        w.shown(&format!(
            "{with_key} $mica run -d --name web app:1 sleep 600"
        ));
        assert_eq!(found("exec web"), "none\n");
        assert_eq!(w.shown("$mica exec web probe find-key"), "none\n");
        w.shown("$mica rm -f web");
    }
}

#[test]
fn root_regression_a_container_is_not_preferred_to_the_rest_of_the_machine() {
    let w = World::root();
    w.s.load(&image("app:1"));
    w.shown("$mica run -d --name web app:1 sleep 600");
    for how in ["run --rm app:1", "exec web"] {
        // Field 19 is the nice value, field 41 the policy.
        let stat = |before: &str| {
            let text = w.shown(&format!("{before} $mica {how} cat /proc/self/stat"));
            let fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            (fields[18].clone(), fields[40].clone())
        };
        // The tests themselves may be run with less.
        let own: i32 = w.shown("nice").trim().parse().unwrap();
        let pair = |nice: i32, policy: &str| (nice.max(0).to_string(), policy.to_owned());
        assert_eq!(stat("nice -n -7"), pair(own - 7, "0"), "{how}");
        assert_eq!(stat("nice -n 10"), pair((own + 10).min(19), "0"), "{how}");
        assert_eq!(stat("chrt -r 5"), pair(own, "0"), "{how}");
        assert_eq!(stat("chrt -f 5"), pair(own, "0"), "{how}");
        assert_eq!(stat("chrt -b 0"), pair(own, "3"), "{how}");
        let kept = |before: &str, shown: &str| w.shown(&format!("{before} $mica {how} {shown}"));
        let score = |set: &str| {
            kept(
                // Not every root may.
                &format!("echo {set} 2>/dev/null >/proc/self/oom_score_adj || true;"),
                "cat /proc/self/oom_score_adj",
            )
        };
        assert_eq!(score("-500"), "0\n", "{how}");
        assert_eq!(score("300"), "300\n", "{how}");
        let allowed = kept("taskset -c 0", "grep Cpus_allowed_list /proc/self/status");
        assert!(allowed.ends_with("\t0\n"), "{how}: {allowed}");
        assert_eq!(kept("umask 077;", "sh -c umask"), "0022\n", "{how}");
        assert_eq!(
            kept("ulimit -n 777;", "sh -c 'ulimit -n'"),
            "777\n",
            "{how}"
        );
    }
    w.shown("$mica rm -f web");
}
