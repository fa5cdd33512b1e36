//! Power cuts: what the block device holds at some moment, without anything that was not flushed to it by then.
//!
//! The store is on ext4 in a file, and that file on XFS, which can copy it in one atomic step while everything goes on
//! (`FICLONE`). The copy is what a machine finds after the power came back: mounted (the journal is replayed), listed, checked.
//! What a verb has acknowledged must be there, whole; what it was doing must be there whole or not at all.
//!
//! `MICA_POWER_CUTS` says how many random cuts are made (default 40), `MICA_POWER_SEED` which.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::ioctl_ficlone;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::tier;

/// Tags and the images they stand for.
type State = BTreeMap<String, String>;

struct Rig {
    sandbox: Sandbox,
    /// The XFS with the disk and its copies.
    copies: PathBuf,
    disk: PathBuf,
    random: u64,
    cuts: usize,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        tier::root();
        let sandbox = Sandbox::new();
        let outer = sandbox.path("outer.img");
        let copies = sandbox.mkdir("copies");
        let disk = sandbox.mkdir("disk");
        // XFS takes no less than 300 MiB; the file is sparse.
        File::create(&outer)
            .and_then(|f| f.set_len(2 << 30))
            .unwrap();
        let inner = copies.join("disk.img");
        run(&sandbox, "mkfs.xfs", &["-q", "-m", "reflink=1"], &[&outer]);
        run(&sandbox, "mount", &["-o", "loop"], &[&outer, &copies]);
        File::create(&inner)
            .and_then(|f| f.set_len(128 << 20))
            .unwrap();
        run(&sandbox, "mkfs.ext4", &["-q", "-F"], &[&inner]);
        // Nothing is written but what is asked for, as far as ext4 can be told.
        run(
            &sandbox,
            "mount",
            &["-o", "loop,commit=300"],
            &[&inner, &disk],
        );
        Rig {
            sandbox,
            copies,
            disk,
            random: seed,
            cuts: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn command(&self, store: &Path, args: &[&str]) -> Command {
        let mut command = self.sandbox.command();
        command.env("MICA_STORE", store).args(args);
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(&self.disk.join("store"), args);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        command.spawn().unwrap()
    }

    /// Cuts the power: a copy of the disk as it is now.
    fn cut(&mut self) -> PathBuf {
        self.cuts += 1;
        let copy = self.copies.join(format!("cut-{}.img", self.cuts));
        let from = File::open(self.copies.join("disk.img")).unwrap();
        ioctl_ficlone(File::create(&copy).unwrap(), from).unwrap();
        copy
    }

    /// Mounts a copy, looks at it, and throws it away.
    fn after(&self, copy: &Path, look: impl FnOnce(&Path)) {
        let point = self.sandbox.mkdir("after");
        run(&self.sandbox, "mount", &["-o", "loop"], &[copy, &point]);
        look(&point.join("store"));
        run(&self.sandbox, "umount", &[], &[&point]);
        fs::remove_file(copy).unwrap();
    }

    /// What a machine finds on a copy: one of `allowed`, and everything of it whole.
    fn examine(&self, copy: &Path, allowed: &[&State], when: &str) {
        self.after(copy, |store| {
            let nothing = allowed.iter().any(|state| state.is_empty());
            if nothing && !store.join("meta.json").exists() {
                return;
            }
            let found = self.names(store);
            assert!(
                allowed.contains(&&found),
                "{when}: found {found:?}, not one of {allowed:?}"
            );
            self.text(store, &["check"]);
            self.text(store, &["gc"]);
            assert_eq!(self.names(store), found, "{when}: after gc");
            self.text(store, &["check"]);
        });
    }

    fn text(&self, store: &Path, args: &[&str]) -> String {
        self.sandbox.run(self.command(store, args)).ok().stdout()
    }

    fn names(&self, store: &Path) -> State {
        // Images without a name may be there or not: a load can take the name of another.
        let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
        let named = [
            "--filter",
            "dangling=false",
            "--no-trunc",
            "--format",
            format,
        ];
        let lines = self.text(store, &[&["images"], &named[..]].concat());
        let pairs = lines.lines().map(|line| line.split_once(' ').unwrap());
        pairs
            .map(|(tag, id)| (tag.to_owned(), id.to_owned()))
            .collect()
    }

    /// Runs a verb that leads from one state to the other, and cuts the power at a random moment of it and at its end.
    fn verb(&mut self, args: &[&str], before: &State, after: &State, usual: Duration) -> Duration {
        let when = format!("during {args:?}");
        let wait = Duration::from_micros(self.below(usual.as_micros() as u64 * 5 / 4 + 1));
        let start = Instant::now();
        let mut child = self.start(args);
        thread::sleep(wait);
        let during = self.cut();
        assert!(child.wait().unwrap().success(), "{args:?}");
        let took = start.elapsed();
        let acknowledged = self.cut();
        self.examine(&during, &[before, after], &when);
        self.examine(&acknowledged, &[after], &format!("after {args:?}"));
        took
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The loop devices go with their mounts.
        for point in ["mnt", "after", "disk", "copies"] {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.sandbox.path(point))
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn run(sandbox: &Sandbox, program: &str, args: &[&str], paths: &[&Path]) {
    let mut command = Command::new(program);
    command.args(args).args(paths);
    sandbox.run(command).ok();
}

/// Content that no two images share, and that does not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn image(name: &str, number: u64) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(|l| l.file("shared", noise(0, 300_000)))
        .layer(|l| {
            l.file("own", noise(number + 1, 700_000))
                .symlink("l", "own")
        })
}

fn variable(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn root_power_cuts_lose_nothing_acknowledged() {
    let wanted = variable("MICA_POWER_CUTS", 40) as usize;
    let mut rig = Rig::new(variable("MICA_POWER_SEED", 7));
    let archives: Vec<(PathBuf, String)> = (0..4)
        .map(|number| {
            let image = image("unused:tag", number);
            let path = rig.sandbox.path(format!("{number}.tar"));
            image.docker_archive(&path);
            (path, image.id())
        })
        .collect();
    let mut state = State::new();
    let mut usual = [Duration::from_millis(60); 3];
    while rig.cuts < wanted {
        let (path, id) = archives[rig.below(4) as usize].clone();
        let new = ["unused:a", "unused:b", "unused:c"][rig.below(3) as usize];
        let old = state.keys().nth(rig.below(3) as usize).cloned();
        let before = state.clone();
        let (kind, args) = match (rig.below(3), old.as_deref()) {
            (1, Some(old)) => {
                let id = state[old].clone();
                state.insert(new.to_owned(), id);
                (1, vec!["tag", old, new])
            }
            (2, Some(old)) => {
                state.remove(old);
                (2, vec!["rmi", old])
            }
            _ => {
                state.insert("unused:tag".to_owned(), id);
                (0, vec!["load", "-i", path.to_str().unwrap()])
            }
        };
        usual[kind] = rig.verb(&args, &before, &state, usual[kind]);
    }
    println!("{} power cuts, nothing lost", rig.cuts);
}

/// fsync on a file and on its directory, through the mount, means the disk.
#[test]
fn fuse_power_cuts_keep_what_a_volume_has_synced() {
    let wanted = variable("MICA_POWER_CUTS", 40) as usize / 2;
    let mut rig = Rig::new(variable("MICA_POWER_SEED", 7));
    let store = rig.disk.join("store");
    let point = rig.sandbox.mkdir("mnt");
    let shown = point.to_str().unwrap().to_owned();
    rig.text(&store, &["mount", &shown]);
    let volume = point.join("volumes/data");
    fs::create_dir(&volume).unwrap();
    let mut synced: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    for number in 1..=wanted as u64 {
        // New files, files written again, and files that take the place of others.
        let name = format!("file-{}", rig.below(5));
        let path = volume.join(&name);
        let content = noise(number, 1 + rig.below(200_000) as usize);
        let replaces = rig.below(2) == 0;
        let target = if replaces {
            volume.join("new")
        } else {
            path.clone()
        };
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&target)?;
            file.write_all(&content)?;
            file.sync_all()?;
            if replaces {
                fs::rename(&target, &path)?;
            }
            File::open(&volume)?.sync_all()
        };
        write().unwrap();
        synced.insert(name, (number, content.len()));
        let copy = rig.cut();
        rig.after(&copy, |store| {
            let source = rig.text(store, &["volume", "inspect", "-f", "{{.Source}}", "data"]);
            let source = Path::new(source.trim());
            assert!(source.starts_with(store), "{source:?}");
            for (name, (written, length)) in &synced {
                let found = fs::read(source.join(name)).unwrap();
                let same = found == noise(*written, *length);
                assert!(same, "{name} after write {number}: {} bytes", found.len());
            }
            rig.text(store, &["check"]);
        });
    }
    rig.text(&store, &["umount", &shown]);
    println!("{} power cuts, nothing synced lost", rig.cuts);
}
