//! When the daemon ends.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use super::{errno, image, layers, names};
use crate::common::image::ImageBuilder;
use crate::common::keeper::{
    daemon, keeper, keepers, kill, stop, surviving, surviving_with, wait_until,
};
use crate::common::mount::runs;
use crate::common::random::Random;
use crate::common::sandbox::Sandbox;
use crate::common::walk;
use crate::running;

/// Of many sizes, in several directories.
fn large(name: &str) -> ImageBuilder {
    image(name).layer(|layer| {
        (0..60u32).fold(
            layer.dir("deep", 0o755).dir("deep/er", 0o700),
            |layer, n| {
                let place = ["", "deep/", "deep/er/"][n as usize % 3];
                let content: Vec<u8> = (0..n * 3000).map(|i| (i % 253) as u8).collect();
                layer.file(format!("{place}f{n}"), content)
            },
        )
    })
}

fn forget_pages() {
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
}

fn open_files(pid: rustix::process::Pid) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    files.expect("the process's files").count()
}

/// Mounted with `-o survive=on`, images outlive their daemon: when it was killed or has crashed, another takes its place, and who uses them meanwhile waits and sees no error.
#[test]
fn fuse_ending_under_load() {
    let sandbox = Sandbox::new();
    sandbox.load(&large("app:1"));
    let mount = surviving(&sandbox);
    let root = mount.image("app/1");
    let before = walk::walk(&root).expect("the tree");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let seconds = std::env::var("MICA_SURVIVE_SECONDS").ok();
    let seconds: u64 = seconds.and_then(|s| s.parse().ok()).unwrap_or(6);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let now = walk::walk(&root).expect("a tree under load");
                    let differences = walk::compare(&before, &now);
                    assert!(differences.is_empty(), "{differences:?}");
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = Random(17);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut kills = 0;
        while Instant::now() < end || rounds.load(Ordering::Relaxed) < 4 {
            thread::sleep(Duration::from_millis(random.below(150) as u64));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            kill(&mount);
            kills += 1;
            if kills % 8 == 1 {
                forget_pages();
            }
        }
        stop.store(true, Ordering::Relaxed);
        wait_until("it answers", || mount.path("info/version").exists());
        assert!(kills >= 3, "only {kills}");
        // Nothing is left of those that have died: these would be one more for each.
        assert!(open_files(keeper(&mount.point)) < 16 + kills / 2);
        assert!(open_files(daemon(&mount)) < 100);
    });
    mount.unmount();
}

/// Open files, working directories, bind mounts and inode numbers of images stay what they were.
#[test]
fn fuse_ending_leaves_what_is_in_use() {
    let sandbox = Sandbox::new();
    sandbox.load(&large("app:1"));
    let mount = surviving(&sandbox);
    let root = mount.image("app/1");
    let bound = sandbox.mkdir("bound");
    rustix::mount::mount_bind(root.join("deep"), &bound).expect("bind");
    let files = ["f57", "deep/f58", "deep/er/f59"].map(|name| root.join(name));
    let contents = files.each_ref().map(|file| fs::read(file).expect("read"));
    let numbers = |dir: &Path| -> Vec<(String, u64)> {
        let numbers = names(dir).into_iter();
        let number = |name: &str| fs::symlink_metadata(dir.join(name)).expect("stat").ino();
        numbers.map(|name| (name.clone(), number(&name))).collect()
    };
    let places = ["images", "images/app", "images/app/1", "images/app/1/deep"];
    let places = places.map(|place| mount.path(place));
    let before = places.each_ref().map(|place| numbers(place));
    let open = files.each_ref().map(|file| File::open(file).expect("open"));
    let directory = File::open(root.join("deep/er")).expect("open");
    let inside = PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&directory)
    ));
    let mut sitter = std::process::Command::new("sh")
        .args(["-c", "read x; exec cat f59 ../f58"])
        .current_dir(root.join("deep/er"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    for _ in 0..3 {
        kill(&mount);
        forget_pages();
        for (file, content) in open.iter().zip(&contents) {
            let mut now = vec![0; content.len()];
            file.read_exact_at(&mut now, 0).expect("an open file");
            assert!(now == *content);
        }
        assert_eq!(
            fs::read(inside.join("f59")).expect("an open directory"),
            contents[2]
        );
        assert!(names(&inside).contains(&"f2".to_owned()));
        assert_eq!(
            fs::read(bound.join("f58")).expect("a bind mount"),
            contents[1]
        );
        assert_eq!(places.each_ref().map(|place| numbers(place)), before);
    }
    drop(sitter.stdin.take());
    let said = sitter.wait_with_output().expect("the sitter");
    assert!(said.status.success());
    assert!(said.stdout == [&contents[2][..], &contents[1]].concat());
    drop((open, directory));
    sandbox.umount(&bound);
    mount.unmount();
}

/// Names that were changed while no daemon was there show when the next one is.
#[test]
fn fuse_ending_names_change_meanwhile() {
    let sandbox = Sandbox::new();
    for name in ["app:1", "app:2", "gone/away:1"] {
        sandbox.load(&image(name));
    }
    let mount = surviving(&sandbox);
    let made = mount.path("images/made");
    fs::create_dir(&made).expect("mkdir");
    let all = |place: &str| names(mount.path(place));
    for place in ["images", "images/app", "by-id", "layers", "info/images/app"] {
        all(place);
    }
    let id = all("by-id");
    assert_eq!(fs::read(mount.image("app/2/own")).expect("read"), b"app:2");
    let keeper = keeper(&mount.point);
    kill_process(keeper, Signal::STOP).expect("kill");
    kill(&mount);
    sandbox.mica(["rmi", "app:1", "gone/away:1"]).ok();
    sandbox.load(&image("app:3"));
    sandbox.mica(["tag", "app:3", "app:2"]).ok();
    kill_process(keeper, Signal::CONT).expect("kill");
    wait_until("the names are the new ones", || {
        fs::read(mount.image("app/2/own")).expect("read") == b"app:3"
            && !mount.image("gone").exists()
    });
    assert!(!mount.image("app/1").exists());
    assert_eq!(all("images/app"), ["2", "3"]);
    assert_eq!(all("info/images/app"), ["2", "3"]);
    assert_eq!(all("images"), [".dangling", "app", "made"]);
    assert_ne!(all("by-id"), id);
    fs::remove_dir(made).expect("rmdir");
    mount.unmount();
}

/// What a daemon has done before its end and not answered is answered by the next as done.
#[test]
fn fuse_ending_after_the_change() {
    let sandbox = Sandbox::new();
    let pauses = sandbox.mkdir("pauses");
    let mount = surviving_with(&sandbox, "MICA_TEST_PAUSE", &pauses);
    for step in ["begun", "committed", "looked"] {
        sandbox.load(&image("app:1"));
        fs::write(pauses.join(step), "").expect("a pause");
        let root = mount.image("app/1");
        thread::scope(|scope| {
            let removal = scope.spawn(|| fs::remove_dir(&root));
            let reached = pauses.join(step).with_extension("reached");
            wait_until(step, || reached.exists());
            fs::remove_file(pauses.join(step)).expect("a pause");
            kill(&mount);
            removal.join().expect("a thread").expect(step);
        });
        assert!(!root.exists(), "{step}");
        wait_until("the layers go", || {
            sandbox.mica(["gc"]).ok();
            layers(&sandbox) == 0
        });
    }
    // Nobody has read these; or they have been read and nothing was done.
    let dirs = ["x", "y"].map(|name| mount.image(name));
    let asked: [&(dyn Fn() -> std::io::Result<()> + Sync); 3] = [
        &|| fs::create_dir(&dirs[0]),
        &|| fs::rename(&dirs[0], &dirs[1]),
        &|| fs::remove_dir(&dirs[1]),
    ];
    for ask in asked {
        let daemon = daemon(&mount);
        stop(daemon);
        thread::scope(|scope| {
            let asked = scope.spawn(ask);
            thread::sleep(Duration::from_millis(30));
            kill_process(daemon, Signal::KILL).expect("kill");
            asked.join().expect("a thread").expect("done");
        });
    }
    assert!(!dirs[1].exists());
    mount.unmount();
}

/// A daemon that is killed keeps nobody waiting: what it was asked is answered by the next one, or fails.
#[test]
fn fuse_regression_ending_while_a_name_is_taken_away() {
    for survive in ["on", "off"] {
        let sandbox = Sandbox::new();
        let pauses = sandbox.mkdir("pauses");
        let point = sandbox.mkdir("m");
        let mut command = sandbox.command();
        command.args(["mount", "-o", &format!("survive={survive}")]);
        command.arg(&point).env("MICA_TEST_PAUSE", &pauses);
        let mount = sandbox.mount_by(&point, command);
        sandbox.load(&image("app:1"));
        sandbox.mica(["tag", "app:1", "app:2"]).ok();
        sandbox.mica(["tag", "app:1", "app:3"]).ok();
        let (first, second) = (mount.image("app/1"), mount.image("app/2"));
        assert_eq!(names(&first), names(&second));
        let daemon = daemon(&mount);
        fs::write(pauses.join("begun"), "").expect("a pause");
        let mut remover = Command::new("rmdir")
            .arg(&first)
            .stderr(Stdio::null())
            .spawn()
            .expect("rmdir");
        wait_until("it has begun", || pauses.join("begun.reached").exists());
        // It holds the directory's lock; the name of another in it can be taken away when it is answered.
        sandbox.mica(["rmi", "app:2"]).ok();
        kill_process(daemon, Signal::KILL).expect("kill");
        fs::remove_file(pauses.join("begun")).expect("a pause");
        let ended = |what: &str, is: &mut dyn FnMut() -> bool| {
            let end = Instant::now() + Duration::from_secs(15);
            while !is() {
                assert!(Instant::now() < end, "survive={survive}: {what}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        let mut removed = None;
        ended("who removes waits", &mut || {
            removed = remover.try_wait().expect("rmdir's status");
            removed.is_some()
        });
        let removed = removed.is_some_and(|status| status.success());
        assert_eq!(removed, survive == "on");
        let threads = format!("/proc/{}/task", daemon.as_raw_nonzero());
        ended("a thread of the daemon stays", &mut || {
            fs::read_dir(&threads).map_or(true, |threads| threads.count() <= 1)
        });
        if survive == "on" {
            assert_eq!(names(mount.image("app")), ["3"]);
            mount.unmount();
        } else {
            let mut command = sandbox.command();
            command.arg("umount").arg(&mount.point);
            sandbox.run(command).ok();
            mount.forget();
        }
    }
}

/// An `rm -r` of a tag whose daemon dies in between fails with EROFS, and has removed nothing.
#[test]
fn fuse_ending_drops_stages() {
    let sandbox = Sandbox::new();
    sandbox.load(&large("app:1"));
    let mount = surviving(&sandbox);
    let root = mount.image("app/1");
    let before = walk::walk(&root).expect("the tree");
    names(&root);
    for n in [5, 8] {
        fs::remove_file(root.join(format!("deep/er/f{n}"))).expect("staged");
    }
    kill(&mount);
    assert_eq!(
        errno(fs::remove_file(root.join("deep/er/f11"))),
        Errno::ROFS
    );
    wait_until("everything is there", || {
        let now = walk::walk(&root).expect("the tree");
        walk::compare(&before, &now).is_empty()
    });
    mount.unmount();
}

/// Before Linux 6.9 requests that a daemon has read and not answered fail with ECONNABORTED when it dies; others wait for the next.
#[test]
fn fuse_ending_on_an_older_kernel() {
    let sandbox = Sandbox::new();
    let pauses = sandbox.mkdir("pauses");
    let point = sandbox.mkdir("surviving");
    let mut command = sandbox.command();
    command.args(["mount", "-o", "survive=on"]).arg(&point);
    command
        .env("MICA_KERNEL", "6.1")
        .env("MICA_TEST_PAUSE", &pauses);
    let mount = sandbox.mount_by(&point, command);
    sandbox.load(&image("app:1"));
    let root = mount.image("app/1");
    let mut open = File::open(root.join("usr/big")).expect("open");
    for _ in 0..2 {
        fs::write(pauses.join("begun"), "").expect("a pause");
        thread::scope(|scope| {
            let removal = scope.spawn(|| fs::remove_dir(&root));
            let reached = pauses.join("begun.reached");
            wait_until("it has begun", || reached.exists());
            fs::remove_file(reached).expect("a pause");
            fs::remove_file(pauses.join("begun")).expect("a pause");
            kill(&mount);
            let removed = removal.join().expect("a thread");
            assert_eq!(errno(removed), Errno::CONNABORTED);
        });
        forget_pages();
        let mut content = Vec::new();
        open.seek(SeekFrom::Start(0)).expect("seek");
        open.read_to_end(&mut content).expect("the open file");
        assert!(content == vec![b'b'; 300_000]);
        assert_eq!(names(&root), ["etc", "own", "usr"]);
    }
    drop(open);
    mount.unmount();
}

/// If three daemons fail to begin, or none has begun within 10 s, the mount ends: ENOTCONN for all, and `mica mount` begins anew.
#[test]
fn fuse_ending_for_good() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    for next in ["crashes", "hangs"] {
        let mount = surviving_with(&sandbox, "MICA_NEXT_SERVER", next);
        let mut open = File::open(mount.image("app/1/usr/big")).expect("open");
        let keeper = keeper(&mount.point);
        forget_pages();
        let begun = Instant::now();
        kill(&mount);
        let error = errno(open.read_to_end(&mut Vec::new()));
        assert!(
            [Errno::NOTCONN, Errno::CONNABORTED].contains(&error),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(25));
        wait_until("the keeper ends", || !runs(keeper));
        let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
        assert!(log.contains("the mount ends"), "{log}");
        let point = mount.point.clone();
        mount.forget();
        drop(open);
        let again = sandbox.mount_on(&point, &[]);
        assert_eq!(fs::read(again.image("app/1/own")).expect("read"), b"app:1");
        again.unmount();
    }
}

/// A mount that ends as it was asked to leaves neither daemon nor keeper; a keeper that was killed has a successor; both killed together leave a dead mount, as without `survive=on`.
#[test]
fn fuse_ending_with_its_keeper() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    for how in ["umount", "TERM", "stop", "outside", "after a kill"] {
        let mount = surviving(&sandbox);
        if how == "after a kill" {
            kill(&mount);
        }
        let (keeper, daemon) = (keeper(&mount.point), daemon(&mount));
        match how {
            "TERM" => kill_process(daemon, Signal::TERM).expect("kill"),
            "stop" => assert_eq!(mount.control("stop"), "ok\n"),
            "outside" => {
                for place in ["volumes", "stores", ""] {
                    let place = mount.path(place);
                    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH)
                        .expect("umount");
                }
            }
            _ => {
                wait_until("it answers", || mount.path("volumes").exists());
                sandbox.mica([Path::new("umount"), &mount.point]).ok();
            }
        }
        wait_until(how, || !runs(daemon) && !runs(keeper));
        assert!(!mount.is_mounted(), "{how}");
        mount.forget();
    }
    let mount = surviving(&sandbox);
    let root = mount.image("app/1");
    let first = keeper(&mount.point);
    kill_process(first, Signal::KILL).expect("kill");
    wait_until("the keeper is gone", || !runs(first));
    let next = keeper(&mount.point);
    kill(&mount);
    assert_eq!(fs::read(root.join("own")).expect("read"), b"app:1");
    let both = [next, daemon(&mount)];
    for pid in both {
        kill_process(pid, Signal::STOP).expect("kill");
    }
    for pid in both {
        kill_process(pid, Signal::KILL).expect("kill");
    }
    wait_until("both are gone", || !both.iter().any(|pid| runs(*pid)));
    let unseen = mount.image("unseen");
    wait_until("the mount is dead", || {
        errno(fs::metadata(&unseen)) == Errno::NOTCONN
    });
    let point = mount.point.clone();
    mount.forget();
    let again = sandbox.mount_on(&point, &[]);
    assert_eq!(fs::read(again.image("app/1/own")).expect("read"), b"app:1");
    assert!(keepers(&point).is_empty());
    again.unmount();
}

/// A daemon that is stopped is waited for, however long, and nothing is lost.
#[test]
fn fuse_ending_is_not_stopping() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = surviving(&sandbox);
    let daemon = daemon(&mount);
    let stores = mount.path("stores/containers/overlay-images/images.json");
    let made = mount.image("made");
    stop(daemon);
    thread::scope(|scope| {
        let read = scope.spawn(|| fs::read(mount.image("app/1/own")));
        let listed = scope.spawn(|| fs::read(stores));
        let making = scope.spawn(|| fs::create_dir(&made));
        thread::sleep(Duration::from_secs(10));
        assert!(!read.is_finished() && !listed.is_finished() && !making.is_finished());
        kill_process(daemon, Signal::CONT).expect("kill");
        assert_eq!(read.join().expect("a thread").expect("read"), b"app:1");
        assert!(!listed.join().expect("a thread").expect("read").is_empty());
        making.join().expect("a thread").expect("mkdir");
    });
    assert!(made.is_dir());
    fs::remove_dir(made).expect("rmdir");
    assert_eq!(mount.daemon(), Some(daemon));
    mount.unmount();
}

/// A file that is open stays readable when its image is removed after its daemon has died; what was removed before fails with ESTALE then.
#[test]
fn fuse_ending_and_removed_images() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = surviving(&sandbox);
    let mut open = File::open(mount.image("app/1/usr/big")).expect("open");
    open.read_exact(&mut [0; 10]).expect("the first bytes");
    kill(&mount);
    fs::remove_dir(mount.image("app/1")).expect("rmdir");
    assert_eq!(layers(&sandbox), 0);
    forget_pages();
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).expect("the rest");
    assert!(rest == vec![b'b'; 300_000 - 10]);
    let held = || {
        let daemon = daemon(&mount).as_raw_nonzero();
        let files = fs::read_dir(format!("/proc/{daemon}/fd")).expect("its files");
        let mut targets = files
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| target.to_string_lossy().contains("blobs/"))
    };
    assert!(held());
    kill(&mount);
    forget_pages();
    open.seek(SeekFrom::Start(0)).expect("seek");
    assert_eq!(errno(open.read_to_end(&mut rest)), Errno::STALE);
    drop(open);

    // And its space returns with the last who knew the old daemon.
    sandbox.load(&image("app:1"));
    let open = File::open(mount.image("app/1/usr/big")).expect("open");
    kill(&mount);
    fs::remove_dir(mount.image("app/1")).expect("rmdir");
    assert!(held());
    drop(open);
    wait_until("the layer is let go", || {
        forget_pages();
        !held()
    });
    mount.unmount();
}

/// A container of `mica run` ends with the process that started it, also when that is killed: nobody keeps its private connection.
#[test]
fn root_ending_of_a_container_s_own() {
    let sandbox = running::sandbox();
    let words = ["run", "--name", "web", "app:1", "sleep", "600"];
    let supervisor = running::Started::new(&sandbox, &words);
    let inspect = ["inspect", "--format", "{{.State.Pid}}", "web"];
    let mut pid = None;
    wait_until("it runs", || {
        let shown = sandbox.mica(inspect).stdout();
        pid = shown
            .trim()
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(runs)
    });
    // By SIGKILL.
    drop(supervisor);
    wait_until("it has ended", || !pid.is_some_and(runs));
    let row = running::shown(&sandbox, "ps -a --format {{.Status}}");
    assert!(row.starts_with("Exited (137)"), "{row}");
}
