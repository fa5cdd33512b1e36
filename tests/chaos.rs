//! Random verbs from several processes at once, on two mounts of one store, against a model.
//!
//! The model is a map from tag to image. A round starts a few operations together and waits for all. What reported success must
//! have happened, in some order in which each was possible; what reported failure must not have happened; what was killed may
//! have. So the state after the round must be one that some order of those operations leads to, and both mounts, the command
//! line and the bytes below every tag must agree with it.
//!
//! `MICA_CHAOS_SEED` repeats a run's choices (the kernel's scheduling is not repeated), `MICA_CHAOS_SECONDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::image::ImageBuilder;
use crate::common::mount::runs;
use crate::common::random::Random;
use crate::common::sandbox::{Mount, Sandbox};
use crate::common::walk::{self, Tree};

/// How long rounds are started.
const SECONDS: u64 = 15;
/// However slow the machine is.
const MIN_ROUNDS: u32 = 4;
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const IMAGES: usize = 4;
const REPOSITORIES: [&str; 2] = ["r0", "r1"];
const TAGS: [&str; 3] = ["a", "b", "c"];

/// Tag, as `repository:tag`, to the number of the image.
type State = BTreeMap<String, usize>;

fn any_tag(random: &mut Random) -> String {
    let repository = REPOSITORIES[random.below(REPOSITORIES.len())];
    format!("{repository}:{}", TAGS[random.below(TAGS.len())])
}

/// What an operation does to the names if it succeeds.
#[derive(Clone, Debug)]
enum Effect {
    Nothing,
    /// The tag now names this image, whatever it named before.
    Load(String, usize),
    /// The second names what the first names; taken: it may have named something before.
    Tag {
        from: String,
        to: String,
        taken: bool,
    },
    Remove(String),
    Move(String, String),
}

impl Effect {
    /// The state afterwards; `None` if it was not possible.
    fn apply(&self, state: &State) -> Option<State> {
        let mut new = state.clone();
        match self {
            Effect::Nothing => {}
            Effect::Load(tag, image) => {
                new.insert(tag.clone(), *image);
            }
            Effect::Tag { from, to, taken } => {
                let image = *state.get(from)?;
                if !taken && state.contains_key(to) {
                    return None;
                }
                new.insert(to.clone(), image);
            }
            Effect::Remove(tag) => {
                new.remove(tag)?;
            }
            Effect::Move(from, to) => {
                if state.contains_key(to) {
                    return None;
                }
                let image = new.remove(from)?;
                new.insert(to.clone(), image);
            }
        }
        Some(new)
    }
}

/// Whether the operations, each possible when its turn comes, lead from `from` to `to` in some order; of `maybe` any may be left out.
fn reachable(from: &State, to: &State, done: &[Effect], maybe: &[Effect]) -> bool {
    if done.is_empty() && from == to {
        return true;
    }
    let without = |list: &[Effect], at: usize| {
        let mut rest = list.to_vec();
        rest.remove(at);
        rest
    };
    let next_done = (0..done.len()).any(|at| {
        done[at]
            .apply(from)
            .is_some_and(|next| reachable(&next, to, &without(done, at), maybe))
    });
    next_done
        || (0..maybe.len()).any(|at| {
            maybe[at]
                .apply(from)
                .is_some_and(|next| reachable(&next, to, done, &without(maybe, at)))
        })
}

/// How an operation's messages are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Complaints {
    /// A verb: any message will do, it is the state that counts.
    Any,
    /// A reader: things may vanish before its eyes, nothing else.
    Vanished,
    /// A reader of what is held: none.
    None,
}

#[derive(Debug)]
struct Operation {
    script: String,
    effect: Effect,
    complaints: Complaints,
    /// Kill -9 after so many milliseconds.
    kill: Option<u64>,
}

/// Contents of files by path.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

struct Chaos {
    sandbox: Sandbox,
    mounts: [Mount; 2],
    archives: Vec<PathBuf>,
    /// Of each image: the ID, the tree, the contents of its files.
    images: Vec<(String, Tree, Contents)>,
    random: Random,
}

fn image(number: usize) -> ImageBuilder {
    ImageBuilder::new(&format!("r0:{}", TAGS[number % TAGS.len()]))
        .layer(|l| {
            let l = l.dir("etc", 0o755).file("etc/passwd", "root");
            l.file("big", vec![b'b'; 200_000]).hardlink("big2", "big")
        })
        .layer(|l| {
            (0..12).fold(l, |l, n| {
                let dir = format!("dir{n}");
                let l = l.dir(&dir, 0o755).symlink(format!("{dir}/link"), "file");
                l.file(format!("{dir}/file"), format!("{number} {n}"))
            })
        })
        .layer(|l| l.file("own", format!("image {number}")).whiteout("dir3"))
}

fn contents(root: &Path, tree: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let files = tree.iter().filter(|(_, e)| e.mode & 0o170_000 == 0o100_000);
    let read = |path: &[u8]| fs::read(root.join(std::ffi::OsStr::from_bytes(path)));
    files
        .map(|(path, _)| (path.clone(), read(path).expect("a file of an image")))
        .collect()
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let sandbox = Sandbox::new();
        let mounts = [sandbox.mount(), sandbox.mount()];
        let mut archives = Vec::new();
        let mut images = Vec::new();
        for number in 0..IMAGES {
            let image = image(number);
            let archive = sandbox.path(format!("image{number}.tar"));
            image.docker_archive(&archive);
            sandbox.load_file(&archive).ok();
            let root = mounts[0]
                .path("by-id")
                .join(image.id().replace("sha256:", ""));
            let tree = walk::walk(&root).expect("the tree");
            let files = contents(&root, &tree);
            assert_eq!(files[&b"own"[..]], format!("image {number}").into_bytes());
            archives.push(archive);
            images.push((image.id(), tree, files));
        }
        Chaos {
            sandbox,
            mounts,
            archives,
            images,
            random: Random(seed),
        }
    }

    /// What the store says, each image by its number.
    fn state(&self) -> State {
        let run = self.sandbox.mica(["images", "--no-trunc"]).ok();
        let rows = run.stdout();
        let rows = rows.lines().skip(1).map(|row| {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let number = self.images.iter().position(|(id, ..)| id == fields[2]);
            let number = number.unwrap_or_else(|| panic!("an image of nobody: {row}"));
            (format!("{}:{}", fields[0], fields[1]), number)
        });
        rows.filter(|(tag, _)| !tag.contains("<none>")).collect()
    }

    /// What a mount lists, each image by the content of its file `own`.
    fn listed(&self, mount: &Mount) -> Result<State, String> {
        let mut state = State::new();
        let names = |path: &Path| -> Result<Vec<String>, String> {
            let at = |e: std::io::Error| format!("{}: {e}", path.display());
            fs::read_dir(path)
                .map_err(at)?
                .map(|e| Ok(e.map_err(at)?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        for repository in names(&mount.path("images"))? {
            if repository == ".dangling" {
                continue;
            }
            for tag in names(&mount.image(&repository))? {
                let own = mount.image(&repository).join(&tag).join("own");
                let own = fs::read_to_string(&own).map_err(|e| format!("{own:?}: {e}"))?;
                let number = own.strip_prefix("image ").and_then(|n| n.parse().ok());
                let number = number.ok_or_else(|| format!("own holds {own:?}"))?;
                state.insert(format!("{repository}:{tag}"), number);
            }
        }
        // Names that are not listed must not be found either.
        for tag in REPOSITORIES
            .iter()
            .flat_map(|r| TAGS.iter().map(move |t| format!("{r}:{t}")))
        {
            let found = fs::metadata(mount.image(path_of(&tag))).is_ok();
            if found != state.contains_key(&tag) {
                return Err(format!("{tag}: found {found}, listed {state:?}"));
            }
        }
        Ok(state)
    }

    fn operation(&mut self) -> Operation {
        let root = self.mounts[self.random.below(2)]
            .point
            .display()
            .to_string();
        let m = format!("{root}/images");
        let mica = env!("CARGO_BIN_EXE_mica");
        let (one, other) = (any_tag(&mut self.random), any_tag(&mut self.random));
        let (path, to) = (path_of(&one), path_of(&other));
        let mut kill = None;
        let mut complaints = Complaints::Any;
        let remove = Effect::Remove(one.clone());
        let copy = |taken| Effect::Tag {
            from: one.clone(),
            to: other.clone(),
            taken,
        };
        let (script, effect) = match self.random.below(17) {
            0..=2 => {
                let number = self.random.below(IMAGES);
                let archive = self.archives[number].display();
                let load = Effect::Load(format!("r0:{}", TAGS[number % TAGS.len()]), number);
                (format!("{mica} load -qi {archive}"), load)
            }
            3 | 4 => (format!("{mica} tag {one} {other}"), copy(true)),
            5 => (format!("{mica} rmi {one}"), remove),
            6 => (format!("{mica} gc"), Effect::Nothing),
            7 | 8 => (format!("rm -r {m}/{path}"), remove),
            9 => (format!("rmdir {m}/{path}"), remove),
            10 => (format!("rm {m}/{one}"), remove),
            11 => (
                format!("mv -T {m}/{path} {m}/{to}"),
                Effect::Move(one, other),
            ),
            12 => (format!("ln -sT {m}/{path} {m}/{to}"), copy(false)),
            13 => {
                complaints = Complaints::Vanished;
                let read = format!(
                    "find {root}/ -type f -exec cat {{}} + >/dev/null; ls -lR {root} >/dev/null"
                );
                (read, Effect::Nothing)
            }
            14 => {
                complaints = Complaints::None;
                let at = self
                    .sandbox
                    .mkdir(&format!("bind{}", self.random.below(1 << 30)));
                let at = at.display();
                let bind = format!(
                    "mount --bind {m}/{path} {at} 2>/dev/null || exit 0\n\
                     for i in 1 2 3; do find {at} -type f -exec cat {{}} + >/dev/null; sleep 0.05; done\n\
                     umount {at}"
                );
                (bind, Effect::Nothing)
            }
            15 => {
                kill = Some(self.random.below(40) as u64);
                (format!("rm -r {m}/{path}"), remove)
            }
            _ => {
                kill = Some(self.random.below(60) as u64);
                match self.random.below(2) {
                    0 => (format!("{mica} rmi {one}"), remove),
                    _ => (format!("{mica} tag {one} {other}"), copy(true)),
                }
            }
        };
        Operation {
            // The shell becomes the last command, so that a kill meets the one that matters.
            script: match kill {
                Some(_) => format!("exec {script}"),
                None => script,
            },
            effect,
            complaints,
            kill,
        }
    }

    fn start(&self, operation: &Operation, stderr: &Path) -> Child {
        Command::new("sh")
            .arg("-c")
            .arg(&operation.script)
            .env("MICA_STORE", self.sandbox.store())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.sandbox.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(stderr).expect("a file for stderr"))
            .spawn()
            .expect("starting sh")
    }

    /// One round; the state after it.
    fn round(&mut self, before: &State, trace: &mut String) -> State {
        use std::fmt::Write;
        let count = 2 + self.random.below(4);
        let operations: Vec<Operation> = (0..count).map(|_| self.operation()).collect();
        let errors = |at: usize| self.sandbox.path(format!("stderr{at}"));
        let start = Instant::now();
        let mut running: Vec<(usize, Child)> = operations
            .iter()
            .enumerate()
            .map(|(at, operation)| (at, self.start(operation, &errors(at))))
            .collect();
        let (mut done, mut maybe) = (Vec::new(), Vec::new());
        while !running.is_empty() {
            running.retain_mut(|(at, child)| {
                let operation = &operations[*at];
                let age = start.elapsed();
                if operation
                    .kill
                    .is_some_and(|ms| age.as_millis() >= u128::from(ms))
                {
                    child.kill().expect("kill");
                }
                let Some(status) = child.try_wait().expect("wait") else {
                    assert!(age < PATIENCE, "hangs: {}\n{trace}", operation.script);
                    return true;
                };
                let stderr = fs::read_to_string(errors(*at)).unwrap_or_default();
                writeln!(trace, "{status}: {}\n{stderr}", operation.script).unwrap();
                let allowed = |line: &str| match operation.complaints {
                    Complaints::Any => !line.contains("panicked"),
                    Complaints::Vanished => line.ends_with("No such file or directory"),
                    Complaints::None => false,
                };
                if let Some(line) = stderr.lines().find(|line| !allowed(line)) {
                    panic!("{line}\n{trace}");
                }
                match (status.success(), status.code()) {
                    (true, _) => done.push(operation.effect.clone()),
                    (false, Some(_)) => {}
                    (false, None) => maybe.push(operation.effect.clone()),
                }
                false
            });
            thread::sleep(Duration::from_millis(1));
        }
        let after = self.state();
        writeln!(trace, "= {after:?}").unwrap();
        done.retain(|effect| !matches!(effect, Effect::Nothing));
        assert!(
            reachable(before, &after, &done, &maybe),
            "no order of {done:?} (and maybe {maybe:?}) leads from {before:?} to {after:?}\n{trace}"
        );
        after
    }

    /// Both mounts come to show `state`: verbs wait for that, changes through one mount reach the other a little later.
    fn agree(&self, state: &State, trace: &str) {
        for mount in &self.mounts {
            let start = Instant::now();
            while self.listed(mount).as_ref() != Ok(state) {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{} shows {:?}, not {state:?}\n{trace}",
                    mount.point.display(),
                    self.listed(mount)
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn compare_trees(&self, state: &State, trace: &str) {
        for mount in &self.mounts {
            for (tag, number) in state {
                let (_, tree, files) = &self.images[*number];
                let root = mount.image(path_of(tag));
                let found = walk::walk(&root).unwrap_or_else(|e| panic!("{tag}: {e}\n{trace}"));
                let differences = walk::compare(tree, &found);
                assert!(differences.is_empty(), "{tag}: {differences:#?}\n{trace}");
                assert!(contents(&root, &found) == *files, "{tag}: content\n{trace}");
                let big = fs::metadata(root.join("big")).expect("big");
                assert_eq!(big.nlink(), 2, "links of {tag}/big\n{trace}");
            }
        }
    }
}

/// `r0:a` to `r0/a`.
fn path_of(tag: &str) -> String {
    tag.replace(':', "/")
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

#[test]
fn fuse_chaos_on_two_mounts() {
    let seed = number("MICA_CHAOS_SEED", 4711);
    println!("MICA_CHAOS_SEED={seed}");
    let mut chaos = Chaos::new(seed);
    let daemons: Vec<_> = chaos.mounts.iter().map(|mount| mount.daemon()).collect();
    let mut trace = String::new();
    let mut state = chaos.state();
    let end = Instant::now() + Duration::from_secs(number("MICA_CHAOS_SECONDS", SECONDS));
    let mut rounds = 0;
    while rounds < MIN_ROUNDS || Instant::now() < end {
        rounds += 1;
        // The last rounds are enough to tell what led to a failure.
        trace = trace.split_off(trace.rmatch_indices("---").nth(2).map_or(0, |(at, _)| at));
        trace.push_str(&format!("--- round {rounds} of seed {seed}\n"));
        state = chaos.round(&state, &mut trace);
        chaos.agree(&state, &trace);
        if rounds % 4 == 0 {
            chaos.compare_trees(&state, &trace);
            chaos.sandbox.mica(["check"]).ok();
        }
        if rounds % 8 == 0 {
            chaos.sandbox.sh("echo 2 >/proc/sys/vm/drop_caches").ok();
        }
    }
    println!("{rounds} rounds");
    chaos.compare_trees(&state, &trace);
    chaos.sandbox.mica(["check"]).ok();

    let alive: Vec<_> = chaos.mounts.iter().map(|mount| mount.daemon()).collect();
    assert_eq!(alive, daemons, "a daemon has ended");
    assert!(alive.iter().flatten().all(|pid| runs(*pid)));
    let images = chaos.mounts[0].path("images");
    let by_id = chaos.mounts[1].path("by-id");
    let everything = format!(
        "rm -rf {0}/r0 {0}/r1; rm -rf {1}/*",
        images.display(),
        by_id.display()
    );
    chaos.sandbox.sh(&everything).ok();
    chaos.sandbox.mica(["gc"]).ok();
    let files: BTreeSet<PathBuf> = chaos
        .sandbox
        .store_files()
        .into_iter()
        .map(|f| f.0)
        .collect();
    let left = |dir: &str| {
        let dir = chaos.sandbox.store().join(dir);
        files
            .iter()
            .filter(|f| f.starts_with(&dir))
            .collect::<Vec<_>>()
    };
    for dir in ["blobs", "layers", "tmp"] {
        assert!(left(dir).is_empty(), "left in {dir}: {:?}", left(dir));
    }
    let log = fs::read_to_string(chaos.sandbox.store().join("daemon.log")).unwrap_or_default();
    let bad = log
        .lines()
        .find(|line| line.contains("ERROR") || line.contains("panicked"));
    assert_eq!(bad, None, "in the daemons' log");
}
