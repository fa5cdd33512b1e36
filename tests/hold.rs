//! `mica hold -v` and `--mount`: a command of the host that sees volumes and images where it wants them.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::image::ImageBuilder;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::user::as_user;

const USER: u32 = 54_321;

fn image() -> ImageBuilder {
    ImageBuilder::new("app:1")
        .layer(|l| {
            l.dir("srv", 0o755)
                .file("srv/f", "of the image\n")
                .mode(0o600)
                .owner(5, 6)
        })
        .layer(|l| {
            l.dir("bin", 0o755)
                .file("bin/x", "#!/bin/sh\necho ran\n")
                .mode(0o755)
        })
}

/// A store with a volume and an image, and who uses it.
struct World {
    s: Sandbox,
    uid: Option<u32>,
}

impl World {
    fn new(uid: Option<u32>) -> World {
        let s = match uid {
            Some(uid) => Sandbox::as_user(uid),
            None => Sandbox::new(),
        };
        s.load(&image());
        s.mica(["volume", "create", "data"]).ok();
        s.mkdir("at");
        s.mkdir("app");
        World { s, uid }
    }

    fn both() -> [World; 2] {
        [World::new(None), World::new(Some(USER))]
    }

    fn command(&self, line: &str) -> Command {
        let (mut command, mica) = match self.uid {
            Some(uid) => (
                as_user(uid, "bash"),
                self.s.path("mica").display().to_string(),
            ),
            None => (Command::new("bash"), env!("CARGO_BIN_EXE_mica").to_owned()),
        };
        command.arg("-euc").arg(line).env("mica", mica);
        command
            .env("MICA_STORE", self.s.store())
            .env("D", self.s.dir());
        command.current_dir(self.s.dir());
        command
    }

    fn sh(&self, line: &str) -> Run {
        self.s.run(self.command(line))
    }

    #[track_caller]
    fn shown(&self, line: &str) -> String {
        self.sh(line).ok().stdout()
    }
}

#[test]
fn fuse_hold_mounts_a_volume_where_it_is_wanted() {
    for w in World::both() {
        let mount = w.s.mount();
        let seen = mount.path("volumes/data");
        // What the mount has looked up before, it forgets.
        let script = format!(
            "ls -l {0} >/dev/null; ls {0}/new 2>/dev/null || true
            $mica hold -v data:$D/at -- sh -c 'id -u; cd $D/at; echo written >new; cat {0}/new; echo back >{0}/other; cat other'
            cat {0}/new; ls at",
            seen.display()
        );
        let uid = w.uid.unwrap_or(0);
        assert_eq!(w.shown(&script), format!("{uid}\nwritten\nback\nwritten\n"));
        // The file is the user's on the host too.
        let owner = w.shown(&format!("stat -c %u {}/new", seen.display()));
        assert_eq!(owner, format!("{uid}\n"));
        // It can be removed at once.
        w.shown(&format!("rm {0}/*; $mica volume rm data", seen.display()));
    }
}

#[test]
fn fuse_hold_is_the_file_system_of_the_host() {
    for w in World::both() {
        let script = r#"$mica hold -v data:$D/at -- python3 -c '
import os
d = os.environ["D"] + "/at"
fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(fd, b"unnamed")
os.link(f"/proc/self/fd/{fd}", d + "/named", src_dir_fd=fd)
print(open(d + "/named").read(), os.stat(d).st_dev == os.stat(os.environ["MICA_STORE"]).st_dev)
'"#;
        assert_eq!(w.shown(script), "unnamed True\n");
        let kept = "cd at; $mica hold -v data:$D/at -- sh -c 'ls; pwd'";
        assert_eq!(
            w.shown(kept),
            format!("named\n{}/at\n", w.s.dir().display())
        );
    }
}

#[test]
fn fuse_hold_can_be_for_reading_only() {
    for w in World::both() {
        let script = "$mica hold -v data:$D/at:ro -- sh -c ': >$D/at/f'";
        let run = w.sh(script).fails();
        assert!(
            run.stderr().contains("Read-only file system"),
            "{}",
            run.describe()
        );
        // And no way back.
        let back = "$mica hold -v data:$D/at:ro -- sh -c 'mount -o remount,bind,rw $D/at 2>&1; : >$D/at/f' || true";
        let text = w.shown(back);
        assert!(
            w.uid.is_none()
                || text.contains("permission denied")
                || text.contains("must be superuser"),
            "{text}"
        );
    }
}

#[test]
fn fuse_hold_shows_the_tree_of_an_image() {
    for w in World::both() {
        let look = "$mica hold --mount type=image,src=app:1,dst=$D/app -v data:$D/at -- sh -c '
            cat $D/app/srv/f; $D/app/bin/x; cp $D/app/srv/f $D/at/; touch $D/app/srv/f 2>&1; (echo x >$D/app/new) 2>&1; ls $MICA_STORE' || true";
        let text = w.shown(look);
        assert!(text.starts_with("of the image\nran\n"), "{text}");
        // Of somebody who is nobody there the kernel says it in its own way.
        let refused = ["Read-only file system", "Permission denied"];
        let refused = refused.map(|word| text.matches(word).count());
        assert_eq!(refused.iter().sum::<usize>(), 2, "{text}");
        assert!(w.uid.is_some() || refused == [2, 0], "{text}");
        // The store is where it was.
        assert!(text.contains("volumes.json"), "{text}");
        let part =
            "$mica hold --mount type=image,src=app:1,dst=$D/app,image-subpath=srv -- ls $D/app";
        assert_eq!(w.shown(part), "f\n");
        // It stays whole though it is removed.
        let removed = "$mica hold --mount type=image,src=app:1,dst=$D/app -- sh -c '
            $mica rmi app:1 >/dev/null; $mica gc >/dev/null; cat $D/app/srv/f'";
        assert_eq!(w.shown(removed), "of the image\n");
        let none = w
            .sh("$mica hold --mount type=image,src=app:1,dst=$D/app -- true")
            .code(1);
        assert!(none.stderr().contains("app:1"), "{}", none.describe());
    }
}

#[test]
fn fuse_hold_ends_as_the_command_does() {
    for w in World::both() {
        let hold = "$mica hold -v data:$D/at -- ";
        w.sh(&format!("{hold} sh -c 'exit 7'")).code(7);
        w.sh(&format!("{hold} /none/such")).code(127);
        w.sh(&format!("{hold} /etc")).code(126);
        w.sh(&format!("{hold} sh -c 'kill -TERM $$' || exit $?"))
            .code(128 + 15);
        let signal = format!("{hold} sh -c 'trap \"echo got; exit 3\" USR1; echo up >$D/up; while :; do sleep 0.05; done' & pid=$!
            while ! test -e up; do sleep 0.05; done; kill -USR1 $pid; wait $pid");
        let run = w.sh(&signal).code(3);
        assert_eq!(run.stdout(), "got\n");
    }
}

#[test]
fn fuse_hold_says_what_is_wrong() {
    for w in World::both() {
        let dir = w.s.dir().display().to_string();
        for (options, says) in [
            ("-v none:$D/at", "get none: no such volume".to_owned()),
            (
                "-v data:$D/no",
                format!("mount destination does not exist: {dir}/no"),
            ),
            (
                "-v data:$MICA_STORE/meta.json",
                "not a directory".to_owned(),
            ),
            ("-v data:at", "mount path must be absolute".to_owned()),
            ("-v $D:$D/at", "gets volumes and images".to_owned()),
            (
                "--mount type=tmpfs,dst=$D/at",
                "gets volumes and images".to_owned(),
            ),
            (
                "-v data:$D/at -v data:$D/at:ro",
                "Duplicate mount point".to_owned(),
            ),
            (
                "--mount type=image,src=none:1,dst=$D/at",
                "none:1".to_owned(),
            ),
        ] {
            let run = w.sh(&format!("$mica hold {options} -- echo ran")).code(1);
            assert!(run.stderr().contains(&says), "{}", run.describe());
            assert_eq!(run.stdout(), "");
        }
        assert!(w.shown("$mica volume ls -q") == "data\n");
    }
}

#[test]
fn fuse_hold_of_a_bind_takes_the_hosts_directory() {
    for w in World::both() {
        w.shown("mkdir www; $mica volume create --bind $D/www www >/dev/null; $mica hold -v www:$D/at -- sh -c 'echo x >$D/at/f'");
        assert_eq!(fs::read_to_string(w.s.path("www/f")).unwrap(), "x\n");
        // A link where there was a directory is not followed.
        let run = w
            .sh("rm -r www; ln -s $MICA_STORE www; $mica hold -v www:$D/at -- ls $D/at")
            .code(1);
        assert!(run.stderr().contains("symbolic link"), "{}", run.describe());
    }
}

#[test]
fn fuse_hold_follows_the_host_and_does_not_lead_it() {
    for w in World::both() {
        w.s.mkdir("stick");
        let user = w
            .uid
            .map(|uid| format!("setpriv --reuid {uid} --regid {uid} --clear-groups"));
        let mica = match w.uid {
            Some(_) => w.s.path("mica").display().to_string(),
            None => env!("CARGO_BIN_EXE_mica").to_owned(),
        };
        let script = format!(
            r#"export D=$PWD; mount -t tmpfs stick $D/stick
            cat >look <<'END'
            seen() {{ grep -c "$D/$1 " /proc/self/mountinfo || true; }}
            seen at; seen stick; : >ready
            while test ! -e gone; do sleep 0.02; done
            seen at; seen stick
END
            {} {mica} hold -v data:$D/at -- sh look >out & pid=$!
            while test ! -e ready; do sleep 0.02; done
            grep -c "$D/at " /proc/self/mountinfo || true
            umount $D/stick; : >gone; wait $pid; cat out"#,
            user.unwrap_or_default()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "shared", "sh", "-euc", &script]);
        command
            .current_dir(w.s.dir())
            .env("MICA_STORE", w.s.store());
        let seen = w.s.run(command).ok().stdout();
        assert_eq!(seen, "0\n1\n1\n1\n0\n");
    }
}

#[test]
fn fuse_hold_killed_leaves_nothing() {
    for w in World::both() {
        let line = "exec $mica hold -v data:$D/at --mount type=image,src=app:1,dst=$D/app -- \
                    sh -c 'ls $D/app >/dev/null; echo $$ >$D/pid; exec sleep 1000'";
        let mut child = w.command(line).stdout(Stdio::null()).spawn().unwrap();
        let pid = w.s.path("pid");
        let end = Instant::now() + Duration::from_secs(30);
        while !fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
            assert!(Instant::now() < end, "it does not start");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(
            fs::read_to_string(&pid).unwrap().trim(),
            child.id().to_string()
        );
        let run = w.sh("$mica volume rm data").fails();
        assert!(
            run.stderr().contains("volume is in use"),
            "{}",
            run.describe()
        );
        assert!(w.shown("$mica users data").contains("lease"));
        child.kill().unwrap();
        child.wait().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = w.s.dir().display().to_string();
        assert!(!mounts.contains(&dir), "{mounts}");
        assert_eq!(w.shown("ls at app"), "app:\n\nat:\n");
        w.shown("$mica volume rm data");
        // The image's server ends with the last user of its tree.
        let left = || {
            let leases = fs::read_dir(w.s.store().join("leases")).unwrap();
            let lock = |path: std::path::PathBuf| {
                let file = fs::File::open(path).unwrap();
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
            };
            leases
                .filter(|entry| lock(entry.as_ref().unwrap().path()))
                .count()
        };
        while left() > 0 {
            assert!(Instant::now() < end, "the image is still served");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
