//! Removal through a mount, looked at closely: what others see while it goes on, what is left when it does not end, when the
//! space returns, and whether every listing is fresh.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::image::ImageBuilder;
use crate::common::sandbox::{Mount, Sandbox};
use crate::common::user::as_user;
use crate::common::walk;

fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|l| {
            l.dir("d", 0o755)
                .dir("d/sub", 0o755)
                .file("d/sub/large", vec![b'x'; 2_000_000])
                .hardlink("d/twin", "d/sub/large")
                .symlink("d/link", "twin")
        })
        .layer(|l| l.file("own", name))
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let dir = dir.as_ref();
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Removed blobs that the daemon holds open.
fn held(mount: &Mount) -> usize {
    let daemon = mount.daemon().expect("the daemon's pid").as_raw_nonzero();
    fs::read_dir(format!("/proc/{daemon}/fd"))
        .expect("the daemon's files")
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| {
            let target = target.to_string_lossy();
            target.contains("/blobs/") && target.ends_with(" (deleted)")
        })
        .count()
}

/// A process that does all of `rm -r` but the last rmdir, says so, and waits.
struct HalfRemover(Child);

impl HalfRemover {
    fn start(tag: &Path) -> HalfRemover {
        const SCRIPT: &str = r#"
import os, sys, time
top = sys.argv[1]
def empty(path):
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            empty(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
empty(top)
print("ready", flush=True)
time.sleep(600)
"#;
        let mut child = Command::new("python3")
            .arg("-c")
            .arg(SCRIPT)
            .arg(tag)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        HalfRemover(child)
    }

    fn kill(mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for HalfRemover {
    fn drop(&mut self) {
        // Ended already, if the test got that far.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A staged removal is seen by nobody, and leaves nothing behind when its process ends, link counts included.
#[test]
fn fuse_a_staged_removal_is_invisible() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    sandbox.load(&image("other:1"));
    let mount = sandbox.mount();
    let (tag, other) = (mount.image("app/1"), mount.image("other/1"));
    let (before, other_before) = (walk::walk(&tag).unwrap(), walk::walk(&other).unwrap());
    let links = || fs::metadata(other.join("d/twin")).unwrap().nlink();
    assert_eq!(links(), 2);

    let half = HalfRemover::start(&tag);
    let during = walk::walk(&tag).unwrap();
    assert_eq!(walk::compare(&before, &during), [""; 0]);
    let shared = walk::walk(&other).unwrap();
    assert_eq!(walk::compare(&other_before, &shared), [""; 0]);
    assert_eq!(
        sandbox.mica(["images", "-q"]).ok().stdout().lines().count(),
        2
    );

    half.kill();
    wait_until("the link counts are true again", || links() == 2);
    let after = walk::walk(&tag).unwrap();
    assert_eq!(walk::compare(&before, &after), [""; 0]);

    // Twice is no worse than once, and then it can be removed.
    HalfRemover::start(&tag).kill();
    sandbox.sh(&format!("rm -r {}", tag.display())).ok();
    assert_eq!(names(mount.path("images")), ["app", "other"]);
    let shared = walk::walk(&other).unwrap();
    assert_eq!(walk::compare(&other_before, &shared), [""; 0]);
    wait_until("the link counts are true again", || links() == 2);
}

/// Another process may remove the tag while a removal is staged; who staged it then gets ENOENT and does no harm.
#[test]
fn fuse_two_removers() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let tag = mount.image("app/1");
    let half = HalfRemover::start(&tag);
    sandbox.sh(&format!("rm -r {}", tag.display())).ok();
    assert!(!tag.exists());
    half.kill();
    sandbox.load(&image("app:1"));
    let half = HalfRemover::start(&tag);
    sandbox.mica(["rmi", "app:1"]).ok();
    assert!(!tag.exists());
    half.kill();
    assert_eq!(names(mount.path("by-id")), [""; 0]);
    sandbox.mica(["check"]).ok();
}

/// The space of a removed image returns at the last close, however it was removed, without anybody dropping caches.
#[test]
fn fuse_space_returns_at_the_last_close() {
    for removal in ["rmdir TAG", "rm -r TAG", "rm ALIAS", "MICA rmi app:1"] {
        let sandbox = Sandbox::new();
        sandbox.load(&image("app:1"));
        let mount = sandbox.mount();
        let tag = mount.image("app/1");
        walk::walk(&tag).unwrap();
        let mut file = File::open(tag.join("d/sub/large")).unwrap();
        let removal = removal
            .replace("TAG", tag.to_str().unwrap())
            .replace("ALIAS", mount.image("app:1").to_str().unwrap())
            .replace("MICA", env!("CARGO_BIN_EXE_mica"));
        sandbox.sh(&removal).ok();
        assert_eq!(names(sandbox.store().join("layers")), [""; 0], "{removal}");
        let df = fs::read_to_string(mount.path("info/df")).unwrap();
        let line = df
            .lines()
            .find(|line| line.starts_with("Removed, still open"));
        assert!(!line.unwrap().contains(" 0 "), "{removal}: {df}");
        thread::sleep(Duration::from_millis(300));
        assert!(held(&mount) > 0, "{removal}");
        file.seek(SeekFrom::Start(1_000_000)).unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, vec![b'x'; 1_000_000], "{removal}");
        drop(file);
        wait_until(&format!("space returns after {removal}"), || {
            held(&mount) == 0
        });
    }
}

/// A working directory keeps a tag from being removed; forced, it keeps the space until it is left.
#[test]
fn fuse_a_forced_removal_waits_for_those_inside() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let tag = mount.image("app/1");
    let mut inside = Command::new("sh")
        .args([
            "-c",
            "ls >/dev/null; while :; do cat sub/large >/dev/null; sleep 0.05; done",
        ])
        .current_dir(tag.join("d"))
        .stderr(Stdio::null())
        .spawn()
        .expect("sh");
    let run = sandbox.sh(&format!("rmdir {}", tag.display())).code(1);
    assert!(
        run.stderr().contains("Device or resource busy"),
        "{}",
        run.describe()
    );
    let run = sandbox.mica(["rmi", "app:1"]).code(1);
    assert!(run.stderr().contains("(must force)"), "{}", run.describe());
    let users = fs::read_to_string(mount.path("info/images/app/1/users")).unwrap();
    assert!(
        users.starts_with(&format!("{}\tsh\tcwd\t", inside.id())),
        "{users}"
    );
    sandbox.mica(["rmi", "-f", "app:1"]).ok();
    thread::sleep(Duration::from_millis(300));
    assert!(held(&mount) > 0);
    inside.kill().and_then(|()| inside.wait()).expect("kill");
    // A look at what is left every so often: its names are taken away.
    wait_until("space returns", || held(&mount) == 0);
}

/// Two processes may be attached to two tags of one image; removing one tag does not mind the other.
#[test]
fn fuse_another_tag_keeps_the_image() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1").tag("app:2"));
    let mount = sandbox.mount();
    let mut inside = Command::new("sleep")
        .arg("600")
        .current_dir(mount.image("app/2/d"))
        .spawn()
        .expect("sleep");
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/1").display()))
        .ok();
    let run = sandbox
        .sh(&format!("rm -r {}", mount.image("app/2").display()))
        .code(1);
    assert!(run.stderr().contains("busy"), "{}", run.describe());
    inside.kill().and_then(|()| inside.wait()).expect("kill");
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/2").display()))
        .ok();
    wait_until("space returns", || held(&mount) == 0);
}

/// An image without a tag goes by `rm -r` of either of its directories; one with a tag is busy under its ID.
#[test]
fn fuse_rm_of_untagged_images() {
    for place in [".dangling", "../by-id"] {
        let sandbox = Sandbox::new();
        sandbox.load(&image("app:1"));
        sandbox.load(&ImageBuilder::new("").layer(|l| l.dir("d", 0o755).file("d/x", "x")));
        let mount = sandbox.mount();
        let app = fs::read_to_string(mount.path("info/images/app/1/id")).unwrap();
        let app = app.trim_start_matches("sha256:").trim_end();
        let run = sandbox
            .sh(&format!("rm -r {}/{app}", mount.path("by-id").display()))
            .code(1);
        assert!(
            run.stderr().contains("Device or resource busy"),
            "{}",
            run.describe()
        );
        let dir = mount.image(place);
        let nameless = names(&dir)
            .into_iter()
            .find(|name| !app.starts_with(name.as_str()));
        sandbox
            .sh(&format!("rm -r {}/{}", dir.display(), nameless.unwrap()))
            .ok();
        assert_eq!(names(mount.path("images")), ["app"], "{place}");
        assert_eq!(names(mount.path("by-id")), [app], "{place}");
        assert_eq!(names(mount.path("layers")).len(), 2, "{place}");
    }
}

/// A repository with more tags than one listing request carries goes with one `rm -rf`.
#[test]
fn fuse_a_repository_of_many_tags() {
    let sandbox = Sandbox::new();
    let mut many = image("app:0");
    for n in 1..400 {
        many = many.tag(&format!("app:a-rather-long-tag-name-{n}"));
    }
    sandbox.load(&many);
    let mount = sandbox.mount();
    assert_eq!(names(mount.image("app")).len(), 400);
    sandbox
        .sh(&format!("rm -rf {}", mount.image("app").display()))
        .ok();
    assert_eq!(names(mount.path("images")), [""; 0]);
    assert_eq!(names(sandbox.store().join("layers")), [""; 0]);
}

/// After every change, by a verb or through the mount, the very next listing of each place shows it.
#[test]
fn fuse_listings_are_fresh() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("base:1"));
    let mount = sandbox.mount();
    let seen =
        || ["images", "info/images", "by-id", "layers"].map(|place| names(mount.path(place)).len());
    assert_eq!(seen(), [1, 1, 1, 2]);
    for round in 0..20 {
        let name = format!("r{round}:1");
        sandbox.load(&image(&name));
        assert_eq!(seen(), [2, 2, 2, 3], "loaded in round {round}");
        let dir = mount.image(format!("r{round}"));
        assert_eq!(names(&dir), ["1"]);
        match round % 3 {
            0 => drop(sandbox.mica(["rmi", &name]).ok()),
            1 => {
                fs::remove_dir(dir.join("1")).unwrap();
                assert_eq!(names(&dir), [""; 0]);
                fs::remove_dir(&dir).unwrap();
            }
            _ => {
                fs::remove_file(mount.image(&name)).unwrap();
                fs::remove_dir(&dir).unwrap();
            }
        }
        assert_eq!(seen(), [1, 1, 1, 2], "removed in round {round}");
    }
}

/// A listing that the kernel answers from its cache, filled by somebody else, is not seen by the daemon: an open directory is
/// as good a sign of a removal of everything.
#[test]
fn fuse_whoever_has_a_directory_open_may_begin_a_removal() {
    const SCRIPT: &str = r#"
import os, sys
top = os.open(sys.argv[1], os.O_RDONLY)
for name in "d/sub/large", "own":
    os.unlink(name, dir_fd=top)
"#;
    let sandbox = Sandbox::new();
    sandbox.load(&image("r:1"));
    let mount = sandbox.mount();
    let tag = mount.image("r/1");
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(&tag);
    sandbox.run(command).ok();
    // Not carried through: nothing has changed.
    wait_until("the files are back", || tag.join("d/sub/large").exists());
    assert_eq!(fs::read(tag.join("own")).unwrap(), b"r:1");
    let refused = fs::remove_file(tag.join("own")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// Many processes look at everything while others load, rename and remove: nobody gets anything but what is or was there.
#[test]
fn fuse_readers_and_removers_together() {
    /// Ends the readers whatever becomes of the test.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let sandbox = Sandbox::new();
    sandbox.load(&image("stays:1"));
    let mount = sandbox.mount();
    let expected = walk::walk(&mount.image("stays/1")).unwrap();
    let stop = AtomicBool::new(false);
    let read = || {
        let _stop = Stop(&stop);
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let tree = walk::walk(&mount.image("stays/1")).unwrap();
            assert_eq!(walk::compare(&expected, &tree), [""; 0]);
            // What comes and goes may be gone; it may not hang or be damaged.
            let errors = Command::new("find")
                .arg(mount.path(""))
                .args(["-type", "f", "-size", "-2", "-exec", "cat", "{}", "+"])
                .stdout(Stdio::null())
                .output()
                .expect("find");
            let errors = String::from_utf8_lossy(&errors.stderr).into_owned();
            assert!(!errors.contains("Input/output error"), "{errors}");
            rounds += 1;
        }
        rounds
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        for round in 0..10 {
            let name = format!("goes:{round}");
            sandbox.load(&image(&name));
            let tag = mount.image(format!("goes/{round}"));
            let moved = mount.image(format!("goes/moved-{round}"));
            fs::rename(&tag, &moved).unwrap();
            match round % 2 {
                0 => drop(sandbox.sh(&format!("rm -r {}", moved.display())).ok()),
                _ => drop(sandbox.mica(["rmi", &format!("goes:moved-{round}")]).ok()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    sandbox.mica(["check"]).ok();
    // A name looked up while it was being removed stays in the kernel's cache until the kernel forgets it.
    wait_until("space returns", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        held(&mount) == 0
    });
}

/// An ordinary user removes an image with directories that its bits would close to him, and a sticky one.
#[test]
fn fuse_a_user_removes_what_is_not_his() {
    const UID: u32 = 65_534;
    let sandbox = Sandbox::as_user(UID);
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| {
        l.dir("root", 0o700)
            .file("root/secret", "s")
            .mode(0o600)
            .dir("tmp", 0o1777)
            .file("tmp/x", "x")
            .owner(1234, 1234)
            .dir("closed", 0o000)
            .file("closed/y", "y")
    }));
    let mount = sandbox.mount();
    let tag = mount.image("app/1");
    let user = |script: &str| {
        let mut command = as_user(UID, "sh");
        command
            .arg("-euc")
            .arg(script.replace("TAG", tag.to_str().unwrap()));
        sandbox.run(command)
    };
    let modes = user("stat -c %a TAG/root TAG/tmp TAG/closed; cat TAG/root/secret").ok();
    assert_eq!(modes.stdout(), "700\n1777\n0\ns");
    user("rm -r TAG").ok();
    assert_eq!(sandbox.mica(["images", "-q"]).ok().stdout(), "");
    mount.unmount();
}

/// Somebody who enters a tag while it is removed: either he is inside of a whole tree and the remover is told that it is busy,
/// or the tree is gone for him too. Never an empty one.
#[test]
fn fuse_root_regression_who_enters_during_a_removal_is_seen_or_too_late() {
    let sandbox = Sandbox::new();
    let pauses = sandbox.mkdir("pauses");
    let point = sandbox.mkdir("m");
    let mut command = sandbox.command();
    command
        .arg("mount")
        .arg(&point)
        .env("MICA_TEST_PAUSE", &pauses);
    let mount = sandbox.mount_by(&point, command);
    // Whether the image has another tag, and how it is removed.
    for (twin, tool) in [(false, "rmdir"), (true, "rmdir"), (false, "rm -r")] {
        for step in ["begun", "committed", "closed", "looked"] {
            let case = format!("{tool} {step}, another tag: {twin}");
            sandbox.load(&image("app:1"));
            if twin {
                sandbox.mica(["tag", "app:1", "twin:1"]).ok();
            }
            let root = mount.image("app/1");
            let whole = names(&root);
            fs::write(pauses.join(step), "").unwrap();
            let mut remover = Command::new("sh")
                .args(["-c", &format!("exec {tool} {}", root.display())])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let reached = pauses.join(step).with_extension("reached");
            wait_until(&case, || reached.exists());
            // Nothing but chdir: who looks at the name first is told that it is gone.
            let mut inside = Command::new("env")
                .args(["-C", root.to_str().unwrap()])
                .args(["sh", "-c", "echo in; read x; ls -A; ls -A d"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut out = BufReader::new(inside.stdout.take().unwrap());
            if step == "begun" || step == "committed" {
                let mut line = String::new();
                out.read_line(&mut line).unwrap();
                assert_eq!(line, "in\n", "{case}");
            } else {
                // Asks, and waits for what comes of the removal.
                thread::sleep(Duration::from_millis(200));
            }
            fs::remove_file(pauses.join(step)).unwrap();
            fs::remove_file(reached).unwrap();
            let removed = remover.wait().unwrap().success();
            drop(inside.stdin.take());
            let mut seen = String::new();
            out.read_to_string(&mut seen).unwrap();
            let entered = inside.wait().unwrap().success();
            assert_ne!(removed, entered, "{case}");
            assert_eq!(root.exists(), !removed, "{case}");
            assert!(entered || !seen.contains("in"), "{case}: {seen}");
            if entered {
                let seen: Vec<&str> = seen.lines().filter(|line| *line != "in").collect();
                let mut expected: Vec<&str> = whole.iter().map(String::as_str).collect();
                expected.extend(["link", "sub", "twin"]);
                assert_eq!(seen, expected, "{case}");
                assert_eq!(names(&root), whole, "{case}");
                sandbox.mica(["rmi", "-f", "app:1"]).ok();
            }
            let listed = sandbox.mica(["images"]).ok().stdout();
            assert!(!listed.contains("app"), "{case}: {listed}");
            if twin {
                sandbox.mica(["rmi", "twin:1"]).ok();
            }
        }
    }
}
