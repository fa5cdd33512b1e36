//! What the store tests do to a store, here or in a process of their own.
//!
//! The test binary starts itself with `MICA_STORE_HELPER=<verb>:<store>`; the "test" [`acts`] then does that
//! and exits with one of the codes below. Without the variable it does nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mica::store::{OpenMode, Store, StoreError};

pub use super::made::{config, diff_id, import, layer_tar, tag};

pub const VARIABLE: &str = "MICA_STORE_HELPER";
/// A path that the helper tries to open at the moment it begins.
pub const MARKER: &str = "/mica-store-helper-begins";
/// How often [`acts`] makes each kind of call before it begins.
pub const BURNT: usize = 100;
/// The verb failed and must have changed nothing.
pub const FAILED: i32 = 31;
/// The names changed; freeing the space failed.
pub const NOT_COLLECTED: i32 = 32;
pub const DONE: i32 = 33;

/// Not a test: the entry point of helper processes.
#[test]
fn acts() {
    let Ok(task) = std::env::var(VARIABLE) else {
        return;
    };
    let (verb, path) = task.split_once(':').expect("verb:store");
    burn();
    assert!(!Path::new(MARKER).exists());
    std::process::exit(act(verb, Path::new(path)));
}

/// Makes calls of every kind that fail at once. strace counts them by thread: after these, this thread's
/// numbers are beyond those of the threads that only start and end the process.
fn burn() {
    use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
    let null = fs::File::open("/dev/null").expect("/dev/null");
    for _ in 0..BURNT {
        // None of these can do anything; what they answer does not matter.
        let _ = rustix::io::write(&null, b"x");
        let _ = rustix::io::read(&null, &mut [0u8; 1]);
        let _ = rustix::fs::fsync(&null);
        let _ = rustix::fs::flock(&null, FlockOperation::Unlock);
        let _ = rustix::fs::ftruncate(&null, 0);
        let _ = fs::rename("", "");
        let _ = rustix::fs::renameat_with(CWD, "", CWD, "", rustix::fs::RenameFlags::EXCHANGE);
        let _ = fs::remove_file("");
        let _ = rustix::fs::unlinkat(CWD, "", rustix::fs::AtFlags::empty());
        let _ = rustix::fs::openat(CWD, "", OFlags::RDONLY, Mode::empty());
        let _ = fs::create_dir("");
        let _ = fs::metadata("");
        let _ = rustix::fs::RawDir::new(&null, &mut [std::mem::MaybeUninit::uninit(); 64]).next();
    }
}

/// A command that runs `verb` on the store at `path` as a process of its own.
pub fn command(verb: &str, path: &Path, wrap: &[String]) -> Command {
    let binary = std::env::current_exe().expect("the test binary");
    let mut command = match wrap {
        [] => Command::new(binary),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(binary);
            command
        }
    };
    command
        .args([
            "store::helper::acts",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VARIABLE, format!("{verb}:{}", path.display()));
    command
}

fn act(verb: &str, path: &Path) -> i32 {
    let result = match verb {
        "create" => Store::open(path, OpenMode::Create).map(drop),
        "import" => open(path)
            .and_then(|store| import(&store, &[2, 3], &["a:1", "b:1"]))
            .map(drop),
        "untag" => return untag(path),
        "remove" => open(path).and_then(|store| remove(&store, &["a:1", "b:1"])),
        "gc" => open(path).and_then(|store| {
            let lock = store.lock()?;
            store.collect(&lock).map(drop)
        }),
        other => panic!("no such verb: {other}"),
    };
    match result {
        Ok(()) => DONE,
        Err(error) => {
            println!("{error}");
            FAILED
        }
    }
}

fn untag(path: &Path) -> i32 {
    let changed = open(path).and_then(|store| {
        let lock = store.lock()?;
        store.change(&lock, |names| {
            let untagged = names.untag(&tag("a:1"))?;
            names.delete_image(&untagged.id).map(drop)
        })?;
        Ok((store, lock))
    });
    match changed {
        Err(error) => {
            println!("{error}");
            FAILED
        }
        Ok((store, lock)) => match store.collect(&lock) {
            Ok(_) => DONE,
            Err(error) => {
                println!("{error}");
                NOT_COLLECTED
            }
        },
    }
}

pub fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, OpenMode::Existing)
}

/// Untags, deletes what is then dangling, collects.
pub fn remove(store: &Store, tags: &[&str]) -> Result<(), StoreError> {
    let lock = store.lock()?;
    store.change(&lock, |names| {
        for text in tags {
            names.untag(&tag(text))?;
        }
        let dangling: Vec<_> = names.dangling().map(|image| image.id).collect();
        for id in dangling {
            names.delete_image(&id)?;
        }
        Ok::<_, StoreError>(())
    })?;
    store.collect(&lock).map(drop)
}

/// A directory for stores, in memory where there is one: what is tested is the order of calls, not the disk.
pub fn quick_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Every file and directory with its size, but `index.json`, whose size depends on the digits of times, and the
/// reserve, which may be missing where the disk was full.
pub fn files(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let stat = entry.metadata().expect("metadata");
            let relative = entry.path().strip_prefix(root).expect("below").to_owned();
            if stat.is_dir() {
                todo.push(entry.path());
                found.push((relative, 0));
            } else if !["index.json", "reserve", "events.log"]
                .iter()
                .any(|name| relative == Path::new(name))
            {
                found.push((relative, stat.len()));
            }
        }
    }
    found.sort();
    found
}
