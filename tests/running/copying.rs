//! `cp` in both directions, and `export` of a container.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// A script of the host, with `$M` for mica, in the sandbox's directory.
fn host(s: &Sandbox, script: &str) -> Run {
    let mut command = Command::new("sh");
    command.arg("-euc").arg(script).current_dir(s.dir());
    command.env("M", s.command().get_program());
    command.env("MICA_STORE", s.store());
    s.run(command)
}

/// One that runs, `up`, and one that has ended, `down`; both have the same files.
fn both() -> Sandbox {
    let s = sandbox();
    let script = "mkdir -p /d/sub /empty; echo one > /d/f; echo two > /d/sub/g; ln -s f /d/link; ln -s /d /dlink;\
                  ln -s nowhere /dangling; echo plain > /plain; ln -s plain /plainlink; chmod 640 /d/f; chmod 4755 /plain;\
                  ln /d/f /d/hard; mkfifo /d/pipe; touch -d @1000000000 /d/sub/g /d/sub";
    let up = format!(
        "run -d --name up -v vol:/vol -v /anon --tmpfs /mem app:1 -- busybox sh -c '{script}'; echo ready > /vol/ready; exec sleep 1000"
    );
    mica(&s, &up).ok();
    mica(
        &s,
        &format!(
            "run --name down -v vol2:/vol -v /anon --tmpfs /mem app:1 -- busybox sh -c '{script}'"
        ),
    )
    .ok();
    wait_until("it is ready", || {
        mica(&s, "exec up test -e /vol/ready").status.success()
    });
    s
}

fn list(s: &Sandbox, directory: &str) -> String {
    host(s, &format!("cd {directory}; find . | sort"))
        .ok()
        .stdout()
}

#[test]
fn root_cp_out_follows_dockers_rules() {
    let s = both();
    for name in ["up", "down"] {
        let to = s.mkdir(&format!("to-{name}"));
        let shown = to.display();
        host(&s, &format!("echo old > {shown}/file; mkdir {shown}/dir")).ok();
        for (from, to, expected) in [
            ("/d/f", "new", Ok("new")),
            ("/d/f", "file", Ok("file")),
            ("/d/f", "dir", Ok("dir/f")),
            ("/d/f", "dir/", Ok("dir/f")),
            ("d/f", "dir/.", Ok("dir/f")),
            ("/d", "copy", Ok("copy/sub/g")),
            ("/d", "dir", Ok("dir/d/sub/g")),
            ("/d/.", "dir", Ok("dir/sub/g")),
            ("/d/", "dir2", Ok("dir2/sub/g")),
            ("/dlink", "alink", Ok("alink")),
            ("/dlink/", "adir", Ok("adir/sub/g")),
            ("/d/../d/f", "cleaned", Ok("cleaned")),
            ("/d/f", "none/", Err("no such directory")),
            ("/d/f", "none/x", Err("invalid output path: directory")),
            ("/d/f", "file/", Err("not a directory")),
            ("/d", "file", Err("cannot copy directory")),
            (
                "/nosuch",
                "x",
                Err("Could not find the file /nosuch in container"),
            ),
            ("/d/f/", "x", Err("Not a directory")),
        ] {
            let run = mica(&s, &format!("cp {name}:{from} {shown}/{to}"));
            match expected {
                Ok(made) => {
                    run.ok();
                    assert!(
                        fs::symlink_metadata(s.dir().join(format!("to-{name}/{made}"))).is_ok(),
                        "{from} {to}: {}",
                        list(&s, &shown.to_string())
                    );
                }
                Err(why) => {
                    let run = run.code(1);
                    assert!(run.stderr().contains(why), "{}", run.describe());
                }
            }
        }
        let copy = s.dir().join(format!("to-{name}/copy"));
        assert_eq!(fs::read(copy.join("sub/g")).unwrap(), b"two\n");
        assert_eq!(
            fs::read_link(copy.join("link")).unwrap().to_str(),
            Some("f")
        );
        let one = fs::metadata(copy.join("f")).unwrap();
        assert_eq!(one.mode() & 0o7777, 0o640);
        assert_eq!(one.ino(), fs::metadata(copy.join("hard")).unwrap().ino());
        assert_eq!(
            fs::metadata(copy.join("sub")).unwrap().mtime(),
            1_000_000_000
        );
        // With -L what a link leads to, under the link's name; also within the container's root only.
        mica(&s, &format!("cp -L {name}:/plainlink {shown}/")).ok();
        let followed = fs::symlink_metadata(to.join("plainlink")).unwrap();
        assert!(followed.is_file());
        // A set-user-id program stays one only for who asks for it.
        assert_eq!(followed.mode() & 0o7777, 0o755);
        mica(&s, &format!("cp -aL {name}:/plainlink {shown}/")).ok();
        assert_eq!(
            fs::metadata(to.join("plainlink")).unwrap().mode() & 0o7777,
            0o4755
        );
        // A tar, for other programs.
        let tar = host(
            &s,
            &format!(
                "$M cp {name}:/d/. - | tar tf - | sort | head -3; $M cp {name}:/d/f - | tar tf -"
            ),
        );
        assert_eq!(tar.ok().stdout(), "./\nf\nhard\nf\n");
    }
    shown(&s, "rm -f up down");
}

#[test]
fn root_cp_in_follows_dockers_rules() {
    let s = both();
    host(&s, "mkdir -p src/deep; echo new > src/file; echo more > src/deep/f; ln -s file src/link; ln -s src slink; echo single > single; chown 33:44 single; chmod 4711 single").ok();
    for name in ["up", "down"] {
        for (from, to, made) in [
            ("single", "/", Ok("/single")),
            ("single", "/d", Ok("/d/single")),
            ("single", "/plain", Ok("/plain")),
            ("single", "/newname", Ok("/newname")),
            ("src", "/d", Ok("/d/src/deep/f")),
            ("src/.", "/empty", Ok("/empty/deep/f")),
            (
                "single",
                "/etc/hosts",
                Err("is mounted for itself and cannot be replaced"),
            ),
            ("src", "/made", Ok("/made/deep/f")),
            ("src/", "/made2", Ok("/made2/deep/f")),
            ("src", "/dlink", Ok("/d/src/link")),
            ("single", "/dangling", Ok("/nowhere")),
            ("slink", "/aslink", Ok("/aslink")),
            ("./single", "/vol", Ok("/vol/single")),
            ("single", "/none/", Err("no such directory")),
            (
                "single",
                "/none/x",
                Err("Could not find the file /none in container"),
            ),
            ("single", "/d/f/", Err("not a directory")),
            ("src", "/d/f", Err("cannot copy directory")),
            (
                "single",
                "/d/pipe",
                Err("must be a directory or a regular file"),
            ),
            ("nosuch", "/", Err("no such file or directory")),
        ] {
            let run = mica(&s, &format!("cp {from} {name}:{to}"));
            match made {
                Ok(made) => {
                    run.ok();
                    mica(
                        &s,
                        &format!(
                            "cp {name}:{made} {}/check-{}",
                            s.dir().display(),
                            made.replace('/', "_")
                        ),
                    )
                    .ok();
                }
                Err(why) => {
                    let run = run.code(1);
                    assert!(
                        run.stderr().to_lowercase().contains(&why.to_lowercase()),
                        "{}",
                        run.describe()
                    );
                }
            }
        }
        // A directory does not become a file, nor the other way round.
        host(
            &s,
            "rm -rf a; mkdir -p a/d; echo x > a/d/f; mkdir -p b; echo x > b/d",
        )
        .ok();
        mica(&s, &format!("cp b/. {name}:/made")).ok();
        let run = mica(&s, &format!("cp a/. {name}:/made")).code(1);
        assert!(
            run.stderr()
                .contains("cannot overwrite non-directory \"d\" with directory"),
            "{}",
            run.describe()
        );
        // From a tar, compressed or not.
        host(
            &s,
            &format!(
                "tar cf - src | $M cp - {name}:/empty; tar czf - single | $M cp - {name}:/empty/src"
            ),
        )
        .ok();
        let run = host(&s, &format!("tar cf - src | $M cp - {name}:/plain")).fails();
        assert!(
            run.stderr().contains("must be a directory"),
            "{}",
            run.describe()
        );
        host(&s, &format!("echo nonsense | $M cp - {name}:/empty")).fails();
        // The owner's numbers stay, as docker's client sends them.
        let shown_by = |path: &str, format: &str| match name {
            "up" => shown(&s, &format!("exec up stat -c {format} {path}")),
            _ => {
                shown(&s, &format!("commit {name} seen:1"));
                shown(&s, &format!("run --rm seen:1 stat -c {format} {path}"))
            }
        };
        assert_eq!(shown_by("/empty/src/single", "%u:%g:%a"), "33:44:4711\n");
        mica(&s, "cp single other:/").code(1);
    }
    mica(&s, "cp up:/d down:/d").code(1);
    mica(&s, "cp single src").code(1);
    shown(&s, "rm -f up down");
}

#[test]
fn root_cp_a_belongs_to_the_containers_user() {
    let s = sandbox();
    host(&s, "echo x > f; chown 33:44 f").ok();
    shown(&s, "create --name bob -u bob app:1 sleep 1000");
    shown(&s, "cp -a f bob:/tmp/own");
    shown(&s, "cp f bob:/tmp/theirs");
    shown(&s, "start bob");
    assert_eq!(
        shown(&s, "exec bob stat -c %u:%g /tmp/own /tmp/theirs"),
        "1000:1001\n33:44\n"
    );
    // Out, as root, the owner comes along.
    shown(&s, "cp -a bob:/tmp/own a");
    shown(&s, "cp bob:/tmp/own b");
    let owner = |name: &str| {
        fs::metadata(s.dir().join(name))
            .map(|m| (m.uid(), m.gid()))
            .unwrap()
    };
    assert_eq!((owner("a"), owner("b")), ((1000, 1001), (0, 0)));
    shown(&s, "rm -f bob");
}

#[test]
fn root_cp_respects_what_is_read_only_or_not_lasting() {
    let s = sandbox();
    host(&s, "echo x > f; mkdir ro").ok();
    let ro = s.dir().join("ro").display().to_string();
    shown(
        &s,
        &format!("run -d --name up --read-only --tmpfs /mem -v {ro}:/ro:ro app:1 sleep 1000"),
    );
    for (to, why) in [
        ("/f", "container rootfs is marked read-only"),
        ("/ro/f", "mounted volume is marked read-only"),
    ] {
        let run = mica(&s, &format!("cp f up:{to}")).code(1);
        assert!(run.stderr().contains(why), "{}", run.describe());
    }
    shown(&s, "cp f up:/mem/f");
    assert_eq!(shown(&s, "exec up cat /mem/f"), "x\n");
    let run = mica(&s, "cp up:/proc/version here").code(1);
    assert!(
        run.stderr().contains("is made by the kernel as it is read"),
        "{}",
        run.describe()
    );
    // All of it ends, devices and the kernel's own file systems or not.
    shown(&s, "cp up:/ whole");
    assert!(s.dir().join("whole/bin/busybox").is_file() && !s.dir().join("whole/proc/1").exists());
    shown(&s, "stop -t 0 up");
    let run = mica(&s, "cp f up:/mem/f").code(1);
    assert!(
        run.stderr()
            .contains("is there only while the container runs"),
        "{}",
        run.describe()
    );
    assert!(fs::read_dir(s.dir().join("ro")).unwrap().next().is_none());
    // Nobody looks any more: it can be started and removed.
    shown(&s, "start up");
    shown(&s, "rm -f up");
}

/// docker cp resolved a path and used it afterwards; a process in the container swapped it in between (CVE-2018-15664).
#[test]
fn root_cve_2018_15664_cp_of_a_path_that_is_swapped() {
    let s = sandbox();
    host(&s, "echo secret > key; echo payload > payload").ok();
    let secret = s.dir().join("key");
    shown(
        &s,
        "run -d --name cc app:1 -- mkdir /in; echo inside > /in/key; ln -s / /out; exec sleep 1000",
    );
    wait_until("it is ready", || {
        mica(&s, "exec cc test -e /out").status.success()
    });
    let parent = secret.parent().unwrap().display().to_string();
    for state in ["up", "down"] {
        if state == "down" {
            shown(&s, "stop -t 0 cc");
        }
        // Links to the root, relative and absolute, and out of it by dots: they all lead to the container's root.
        for path in [
            format!("/out{parent}/key"),
            format!("/in/../../../..{parent}/key"),
        ] {
            let run = mica(&s, &format!("cp cc:{path} stolen")).code(1);
            assert!(
                run.stderr().contains("Could not find the file"),
                "{}",
                run.describe()
            );
        }
        shown(&s, "cp payload cc:/out/payload");
        assert!(!std::path::Path::new("/payload").exists());
    }
    shown(&s, "start cc");
    // Exchanged all the time, in both directions.
    let _swap = Started::new(
        &s,
        &[
            "exec",
            "c",
            "sh",
            "-c",
            &format!(
                "mkdir -p /t{parent}; while :; do mv /t /u; ln -s / /t; rm /t; mv /u /t; done"
            ),
        ],
    );
    for _ in 0..40 {
        let _ = mica(&s, &format!("cp cc:/t{parent}/key stolen"));
        assert!(!s.dir().join("stolen").exists());
        let _ = mica(&s, &format!("cp payload cc:/t{parent}/planted"));
        assert!(!s.dir().join("planted").exists());
    }
    shown(&s, "rm -f cc");
}

/// docker cp changed modes of the host's files when it unpacked into a container (CVE-2021-41089).
#[test]
fn root_cve_2021_41089_cp_changes_no_modes_of_the_host() {
    let s = sandbox();
    host(
        &s,
        "mkdir -m 700 private; mkdir -p tree/dir; chmod 777 tree/dir; mkdir etc",
    )
    .ok();
    shown(&s, "create --name cc app:1 true");
    let private = s.dir().join("private").display().to_string();
    host(
        &s,
        &format!("mkdir a; ln -s {private} a/dir; $M cp a/. cc:/x; $M cp a cc:/; rm -r a"),
    )
    .ok();
    // `dir` is a link to a directory of the host in the container: it is no directory there.
    let run = mica(&s, "cp tree/. cc:/a");
    assert!(
        run.stderr().contains("cannot overwrite non-directory"),
        "{}",
        run.describe()
    );
    assert_eq!(
        fs::metadata(&private).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    // The same by an archive that names what is behind the link.
    host(
        &s,
        "mkdir -p b/a/dir; echo x > b/a/dir/f; tar -C b -cf - a/dir/f | $M cp - cc:/ || true",
    )
    .ok();
    assert!(fs::read_dir(&private).unwrap().next().is_none());
}

/// docker ran a decompressor that it found in the container, as root of the host (CVE-2026-41567); here all are linked in.
#[test]
fn root_cve_2026_41567_no_program_of_the_container_is_run() {
    let s = Sandbox::new();
    tier::root();
    let trojan = "#!/bin/sh\ntouch /ran\n";
    let mut image = image("app:1");
    image = image.layer(|mut layer| {
        layer = layer.dir("usr", 0o755).dir("usr/bin", 0o755);
        for name in ["unpigz", "pigz", "gzip", "xz", "bzip2", "zstd", "tar"] {
            layer = layer.file(format!("usr/bin/{name}"), trojan).mode(0o755);
        }
        layer
    });
    s.load(&image);
    shown(&s, "run -d --name cc app:1 sleep 1000");
    for (pack, name) in [("gzip", "g"), ("xz", "x"), ("bzip2", "b")] {
        host(
            &s,
            &format!("echo {name} > {name}; tar cf - {name} | {pack} | $M cp - cc:/tmp"),
        )
        .ok();
        assert_eq!(
            shown(&s, &format!("exec cc cat /tmp/{name}")),
            format!("{name}\n")
        );
    }
    mica(&s, "exec cc test -e /ran").code(1);
    shown(&s, "rm -f cc");
}

/// podman and kubectl wrote on the host through links that the container's tree had (CVE-2019-10152, CVE-2019-18466,
/// CVE-2019-1002101, CVE-2018-1002100, CVE-2019-11251).
#[test]
fn root_cve_2019_1002101_a_copied_tree_leaves_its_place_by_no_link() {
    let s = sandbox();
    let target = s.mkdir("victim").display().to_string();
    shown(
        &s,
        &format!(
            "run --name cc app:1 -- mkdir /t; ln -s {target} /t/way; ln -s /etc/passwd /t/passwd; mkdir /t/z; ln -s ../../../.. /t/z/up; echo x > /t/z/f"
        ),
    );
    shown(&s, "cp cc:/t copy");
    // Links come as links.
    assert!(
        fs::symlink_metadata(s.dir().join("copy/way"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(
        fs::read_link(s.dir().join("copy/passwd")).unwrap().to_str(),
        Some("/etc/passwd")
    );
    // The second copy meets them: neither a file nor a directory goes through one.
    shown(
        &s,
        "run --name c2 app:1 -- mkdir -p /t/way /t/z/up; echo planted > /t/way/f; echo planted > /t/passwd; mkdir /t/sub",
    );
    let run = mica(&s, "cp c2:/t/. copy").code(1);
    assert!(
        run.stderr().contains("cannot overwrite non-directory"),
        "{}",
        run.describe()
    );
    assert!(
        fs::read_dir(s.dir().join("victim"))
            .unwrap()
            .next()
            .is_none()
    );
    let before = fs::read("/etc/passwd").unwrap();
    shown(&s, "cp c2:/t/passwd copy/");
    assert_eq!(fs::read("/etc/passwd").unwrap(), before);
    // A destination that the user has typed is followed once, as by any program.
    symlink(s.dir().join("victim"), s.dir().join("mine")).unwrap();
    shown(&s, "cp c2:/t/passwd mine/");
    assert!(s.dir().join("victim/passwd").is_file());
    // Devices of a container, which it can make as it likes, are none of the host's without a word.
    shown(
        &s,
        "run --name c3 app:1 -- mkdir /dev2; mknod -m 666 /dev2/disk b 8 0; echo x > /dev2/f",
    );
    let run = mica(&s, "cp c3:/dev2 devices").ok();
    assert!(
        run.stderr().contains("1 devices were left out"),
        "{}",
        run.describe()
    );
    assert_eq!(list(&s, "devices"), ".\n./f\n");
}

#[test]
fn root_export_of_a_container_is_its_tree_without_its_volumes() {
    let s = both();
    for name in ["up", "down"] {
        let listed = host(
            &s,
            &format!("$M export {name} | tar tf - | grep -v '^bin/' | sort"),
        )
        .ok()
        .stdout();
        for wanted in [
            "d/sub/g\n",
            "plain\n",
            "vol/\n",
            "mem/\n",
            "etc/passwd\n",
            "proc/\n",
        ] {
            assert!(listed.contains(wanted), "{wanted} {listed}");
        }
        assert!(
            !listed.contains("vol/ready") && !listed.contains("proc/1"),
            "{listed}"
        );
        shown(&s, &format!("export -o {name}.tar {name}"));
        shown(&s, &format!("import {name}.tar again:{name}"));
        assert_eq!(
            shown(&s, &format!("run --rm again:{name} /bin/cat /d/sub/g")),
            "two\n"
        );
    }
    // A container's name goes before an image's.
    mica(&s, "export nosuch").fails();
    shown(&s, "rm -f up down");
}

#[test]
fn fuse_rootless_cp_both_ways() {
    let s = rootless::user(54_340, "mica-test-54340:700000:65536\n");
    shown(
        &s,
        "run -d --name up app:1 -- mkdir /d; echo one > /d/f; chown 33:44 /d/f; chmod 600 /d/f; exec sleep 1000",
    );
    wait_until("it is ready", || {
        shown(&s, "exec up stat -c %a /d").contains('7')
            && mica(&s, "exec up test -s /d/f").status.success()
    });
    for state in ["up", "down"] {
        if state == "down" {
            shown(&s, "stop -t 0 up");
        }
        shown(&s, &format!("cp up:/d {state}"));
        let copied = s.dir().join(state).join("f");
        assert_eq!(fs::read(&copied).unwrap(), b"one\n");
        assert_eq!(fs::metadata(&copied).unwrap().uid(), 54_340);
        // What is the user's is root's inside.
        shown(&s, &format!("cp {state} up:/back-{state}"));
    }
    shown(&s, "start up");
    assert_eq!(
        shown(&s, "exec up stat -c %u:%g:%a /back-up/f /back-down/f"),
        "0:0:600\n0:0:600\n"
    );
    shown(&s, "export -o tree.tar up");
    shown(&s, "rm -f up");
}
