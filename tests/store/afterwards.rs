//! What is no reason to fail: no thread to be had, and what goes wrong after the change has happened.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::image::ImageBuilder;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tier;
use crate::running;

/// Nobody else's: a limit on processes counts all of a user's.
const USER: u32 = 54_321;

/// `mica` as [`USER`], who has the sandbox, with one more word before it.
struct Ordinary(Sandbox);

impl Ordinary {
    fn new(uid: u32) -> Ordinary {
        tier::root();
        let s = Sandbox::new();
        let mica = env!("CARGO_BIN_EXE_mica");
        s.sh(&format!("install -m 755 {mica} mica; chown {uid}:{uid} ."))
            .ok();
        Ordinary(s)
    }

    fn run(&self, uid: u32, before: &str, line: &str) -> Run {
        let user = format!("setpriv --reuid {uid} --regid {uid} --clear-groups");
        self.0.sh(&format!("{user} {before} ./mica {line}"))
    }
}

fn app() -> ImageBuilder {
    ImageBuilder::new("app:1")
        .layer(|l| {
            l.dir("etc", 0o755)
                .file("etc/shared", vec![b's'; 3_000_000])
        })
        .layer(|l| l.file("etc/own", "own"))
}

#[test]
fn regression_root_one_thread_is_enough() {
    let o = Ordinary::new(USER);
    let one = |line: &str| o.run(USER, "prlimit --nproc=1", line);
    app().docker_archive(&o.0.path("a.tar"));
    o.0.sh("gzip -k a.tar; mkdir tree; echo x > tree/f; tar -cf f.tar -C tree .; chown -R 54321:54321 .")
        .ok();
    for line in [
        "load -qi a.tar.gz",
        "load -qi a.tar",
        "import f.tar flat:1",
        "check --repair",
        "save -o out.tar app:1",
        "rmi flat:1",
    ] {
        one(line).ok();
    }
    let ids = one("images -q --no-trunc app:1").ok().stdout();
    assert_eq!(ids.trim(), app().id());
    one("check").ok();
}

#[test]
fn regression_net_root_one_thread_pulls_and_says_why_it_does_not_push() {
    let uid = USER + 1;
    let o = Ordinary::new(uid);
    let registry = Registry::start(&o.0, Kind::Plain);
    registry.push_with_skopeo(&o.0, &app(), "app:1");
    let name = registry.name("app:1").replace("127.0.0.1", "localhost");
    let one = |line: &str| o.run(uid, "prlimit --nproc=1", line);
    one(&format!("pull -q {name}")).ok();
    one("check").ok();
    // Here the compressing thread cannot be done without: layers that no registry has.
    app()
        .layer(|l| l.file("new", "new"))
        .docker_archive(&o.0.path("b.tar"));
    one("load -qi b.tar").ok();
    let other = name.replace("app:1", "other:1");
    one(&format!("tag app:1 {other}")).ok();
    let refused = one(&format!("push -q {other}")).code(1);
    assert!(
        refused.stderr().contains("no thread can be started"),
        "{}",
        refused.describe()
    );
}

/// Whatever cannot be read there: the mounts are not told, and that is all.
#[test]
fn regression_root_a_change_that_has_happened_is_no_failure() {
    let uid = USER + 3;
    let o = Ordinary::new(uid);
    app().docker_archive(&o.0.path("a.tar"));
    o.0.sh("chmod 644 a.tar").ok();
    o.run(uid, "", "load -qi a.tar").ok();
    o.0.sh("chmod 000 store/leases").ok();
    let tag = o.run(uid, "", "tag app:1 more:1").ok();
    assert!(tag.stderr().contains("not told"), "{}", tag.describe());
    o.0.sh("chmod 700 store/leases").ok();
    let names = o.run(uid, "", "images --format {{.Repository}}").ok();
    assert!(names.stdout().contains("more"), "{}", names.describe());

    let s = running::sandbox();
    // A file that cannot go: somebody has mounted something on it.
    let largest = |dir: PathBuf| {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let size = |entry: &fs::DirEntry| entry.metadata().unwrap().len();
        files.max_by_key(size).unwrap().path()
    };
    let busy = |path: &Path, verb: &[&str]| {
        let shown = path.display();
        s.sh(&format!("mount --bind {shown} {shown}")).ok();
        let run = s.mica(verb).ok();
        s.umount(path);
        assert!(!run.stderr().is_empty(), "{}", run.describe());
    };
    s.mica(["rmi", "--trash", "1h", "app:1"]).ok();
    let blob = largest(s.store().join("blobs/sha256"));
    busy(&blob, &["trash", "--empty", "-f"]);
    assert!(blob.exists());
    assert_eq!(s.mica(["trash"]).ok().stdout().lines().count(), 1);
    s.mica(["gc"]).ok();
    assert!(!blob.exists());

    s.load(&running::image("app:1"));
    s.mica(["run", "--name", "web", "app:1", "sh", "-c", "mkdir /left"])
        .ok();
    let container = fs::read_dir(s.store().join("containers")).unwrap();
    let container = container.map(|entry| entry.unwrap().path()).next().unwrap();
    let find = format!("find {} -type d -name left", container.display());
    let left = PathBuf::from(s.sh(&find).ok().stdout().trim());
    busy(&left, &["rm", "web"]);
    assert_eq!(s.mica(["ps", "-aq"]).ok().stdout(), "");
    // The next one that looks takes it away.
    s.mica(["container", "prune", "-f"]).ok();
    s.mica(["run", "--rm", "app:1", "true"]).ok();
    assert!(!left.exists());
}

/// A directory that one may write in and not read cannot be synced.
#[test]
fn regression_root_what_is_saved_into_a_drop_box_is_saved() {
    let uid = USER + 2;
    let o = Ordinary::new(uid);
    app().docker_archive(&o.0.path("a.tar"));
    o.0.sh("mkdir -m 0333 box; chmod 644 a.tar").ok();
    o.run(uid, "", "load -qi a.tar").ok();
    let save = o.run(uid, "", "save -o box/out.tar app:1").ok();
    assert!(save.stderr().contains("power cut"), "{}", save.describe());
    o.run(uid, "", "load -qi box/out.tar").ok();
}

/// A look that fails behind the removal of a volume puts it back; a directory that cannot be synced does not make `rm` a failure.
#[test]
fn regression_root_a_removal_says_what_has_happened() {
    let s = running::sandbox();
    let strace = |path: &Path, inject: &str, verb: &[&str]| {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-o"]).arg(s.path("log")).arg("-P");
        strace
            .arg(path)
            .args(["-e", &format!("inject={inject}")])
            .arg(env!("CARGO_BIN_EXE_mica"))
            .arg("--store")
            .arg(s.store())
            .args(verb);
        let run = s.run(strace);
        let log = fs::read_to_string(s.path("log")).unwrap();
        (run, log.contains("(INJECTED)"))
    };
    s.mica(["run", "--name", "web", "app:1", "true"]).ok();
    let containers = s.store().join("containers");
    let mut failed = 0;
    for number in 1.. {
        s.mica(["volume", "create", "data"]).ok();
        let inject = format!("getdents64:error=EIO:when={number}");
        let (run, injected) = strace(&containers, &inject, &["volume", "rm", "data"]);
        let there = s.mica(["volume", "ls", "-q"]).ok().stdout() == "data\n";
        assert_eq!(run.status.code() != Some(0), there, "{}", run.describe());
        if !injected {
            break;
        }
        failed += u32::from(there);
        s.mica(["volume", "rm", "-f", "data"]).ok();
    }
    assert!(failed > 1, "{failed}");
    let directory = fs::read_dir(&containers).unwrap().next().unwrap();
    let directory = directory.unwrap().path();
    let (run, injected) = strace(&directory, "fsync:error=EIO", &["rm", "web"]);
    let run = run.ok();
    assert!(
        injected && run.stderr().contains("power cut"),
        "{}",
        run.describe()
    );
    assert_eq!(s.mica(["ps", "-aq"]).ok().stdout(), "");
}
