//! Kills at random moments below everything that images and their stores are used for.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::common::image::ImageBuilder;
use crate::common::keeper::{daemon, keeper, kill, surviving, wait_until};
use crate::common::mount::Mount;
use crate::common::random::Random;
use crate::common::sandbox::Sandbox;
use crate::engines::reader::Reader;
use crate::engines::{Engines, image as with_tools};

/// Kills of one run, and what each of them has time for on the average.
const KILLS: u32 = 50;
const EACH: Duration = Duration::from_millis(1100);

/// Of many sizes, in several directories.
fn tree(name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(|layer| {
        (0..80u32).fold(
            layer.dir("deep", 0o755).dir("deep/er", 0o700),
            |layer, n| {
                let place = ["", "deep/", "deep/er/"][n as usize % 3];
                let content: Vec<u8> = (0..n * 2500).map(|i| (i % 251) as u8).collect();
                layer.file(format!("{place}f{n}"), content)
            },
        )
    })
}

/// What there is below directories: paths, numbers, and the content of every file.
fn sums(roots: &[PathBuf]) -> io::Result<BTreeMap<PathBuf, (u64, u64)>> {
    let mut sums = BTreeMap::new();
    let mut left = roots.to_owned();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let stat = fs::symlink_metadata(&path)?;
            let mut hasher = DefaultHasher::new();
            match () {
                () if stat.is_dir() => left.push(path.clone()),
                () if stat.is_symlink() => fs::read_link(&path)?.hash(&mut hasher),
                () if stat.is_file() => fs::read(&path)?.hash(&mut hasher),
                () => stat.rdev().hash(&mut hasher),
            }
            sums.insert(path, (stat.ino(), hasher.finish()));
        }
    }
    Ok(sums)
}

/// The layers as engines see them.
fn layers(mount: &Mount) -> Vec<PathBuf> {
    let all = fs::read_dir(mount.path("stores/containers/overlay")).expect("readdir");
    let all = all.map(|entry| entry.expect("an entry").path().join("diff"));
    all.filter(|diff| diff.is_dir()).collect()
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    files: usize,
    /// In KiB, without the parts of the program's file.
    memory: u64,
    /// In KiB, of the trees' memory.
    shared: u64,
}

impl Held {
    fn by(pid: Pid) -> Held {
        let dir = format!("/proc/{}", pid.as_raw_nonzero());
        let files = fs::read_dir(format!("{dir}/fd")).expect("its files");
        let files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        let of_trees = files.iter().filter(|file| {
            fs::read_link(file)
                .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:mica-"))
        });
        let shared = of_trees.map(|file| fs::metadata(file).expect("stat").blocks() / 2);
        let status = fs::read_to_string(format!("{dir}/status")).expect("status");
        let mut anon = status
            .lines()
            .filter_map(|line| line.strip_prefix("RssAnon:"));
        let anon = anon.next().and_then(|line| line.split_whitespace().next());
        Held {
            files: files.len(),
            memory: anon.and_then(|kb| kb.parse().ok()).expect("RssAnon"),
            shared: shared.sum(),
        }
    }
}

/// Reads everything until told to stop.
fn read(roots: &[PathBuf], stop: &AtomicBool) {
    let before = sums(roots).expect("the tree");
    while !stop.load(Ordering::Relaxed) {
        let now = sums(roots).expect("the tree under load");
        assert!(now == before, "another tree");
    }
}

/// Asks for something that nobody has asked for before, again and again: the longest that took.
fn pauses(mount: &Mount, stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    for n in 0.. {
        let name = mount.image(format!("tree/absent-{n}"));
        let asked = Instant::now();
        let found = fs::symlink_metadata(name);
        longest = longest.max(asked.elapsed());
        let kind = found.expect_err("nothing there").kind();
        assert_eq!(kind, io::ErrorKind::NotFound);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(3));
    }
    longest
}

/// Removes a tag, again and again. A removal whose daemon died in between is refused as a whole. How many were done.
fn remove(sandbox: &Sandbox, mount: &Mount, stop: &AtomicBool) -> u32 {
    let mut done = 0;
    let tag = mount.image("gone/1");
    let all = [tag.clone()];
    let whole = sums(&[mount.image("tree/1")]).expect("the tree").len();
    while !stop.load(Ordering::Relaxed) {
        sandbox.mica(["tag", "tree:1", "gone:1"]).ok();
        while tag.exists() {
            let mut rm = Command::new("rm");
            rm.env("LC_ALL", "C").arg("-r").arg(&tag);
            let removed = sandbox.run(rm);
            if removed.status.success() {
                done += 1;
                assert!(!tag.exists(), "{}", removed.describe());
                break;
            }
            let said = removed.stderr();
            let stated = |line: &str| line.ends_with(": Read-only file system");
            assert!(said.lines().all(stated), "{said}");
            wait_until("nothing of it is gone", || {
                sums(&all).expect("a refused tree").len() == whole
            });
        }
    }
    done
}

/// Starts containers of mica's own.
fn run(sandbox: &Sandbox, stop: &AtomicBool) -> u32 {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let ran = sandbox.mica(["run", "--rm", "app:1", "cat", "/data/old"]);
        assert_eq!(ran.ok().stdout(), "new");
        done += 1;
    }
    done
}

/// A daemon that is killed at random moments, below readers, removals, containers of podman's and of mica's: nothing fails but what is said to,
/// no byte is wrong, and nothing is left of those that have died.
#[test]
fn root_surviving_kills_under_load() {
    let kills = std::env::var("MICA_SURVIVE_KILLS").ok();
    let kills = kills.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    sandbox.load(&tree("tree:1"));
    let mount = surviving(&sandbox);
    let engines = Engines::new(&sandbox, &mount);
    let reader = Reader::start(&sandbox, &engines, "under", "");
    let keeper = keeper(&mount.point);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sandbox, mount, stop) = (&sandbox, &mount, &stop);
        let _ends = Ends(stop);
        for roots in [vec![mount.image("tree/1")], layers(mount)] {
            scope.spawn(move || {
                let _ends = Ends(stop);
                read(&roots, stop);
            });
        }
        let pauses = scope.spawn(move || {
            let _ends = Ends(stop);
            pauses(mount, stop)
        });
        let removals = scope.spawn(move || {
            let _ends = Ends(stop);
            remove(sandbox, mount, stop)
        });
        let runs = scope.spawn(move || {
            let _ends = Ends(stop);
            run(sandbox, stop)
        });
        let end = Instant::now() + EACH * kills;
        let mut random = Random(23);
        let mut early = None;
        for n in 0..kills {
            let left = end.saturating_duration_since(Instant::now()) / (kills - n);
            let most = usize::try_from(left.as_micros()).expect("a time");
            thread::sleep(Duration::from_micros(random.below(2 * most + 1) as u64));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            kill(mount);
            if n % 8 == 1 {
                fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
            }
            if n == 5 {
                early = Some(Held::by(keeper));
            }
        }
        assert!(!stop.swap(true, Ordering::Relaxed), "something failed");
        let longest = pauses.join().expect("a thread");
        let (removals, runs) = (
            removals.join().expect("a thread"),
            runs.join().expect("a thread"),
        );
        wait_until("it answers", || mount.path("info/version").exists());
        let late = (Held::by(keeper), Held::by(daemon(mount)));
        let read = reader.rounds();
        println!(
            "{kills} kills: longest pause {} ms, {removals} removals, {runs} runs, {read} rounds of a container; keeper after five: {early:?}, keeper and daemon: {late:?}",
            longest.as_millis()
        );
        assert!(removals > 0 && runs > 0 && read > 1);
        // The keeper is the one from before, the daemon another each time.
        let early = early.expect("more than five kills");
        let (keeper, daemon) = late;
        assert!(keeper.files < early.files + 40, "{early:?} {keeper:?}");
        assert!(keeper.memory < early.memory + 500, "{early:?} {keeper:?}");
        assert!(keeper.shared < early.shared + 4_000, "{early:?} {keeper:?}");
        assert!(daemon.files < 200 && daemon.memory < 300_000, "{daemon:?}");
    });
    reader.is_well();
    drop(reader);
    mount.unmount();
}

/// What makes the others stop when one has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
