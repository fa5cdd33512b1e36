//! The whole tree without FUSE, on a real store: requests as the kernel makes them, invalidations as it would get them.

mod again;
mod facts;
mod names;
mod refusals;
mod removal;
mod renaming;
mod trees;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::fs::*;
use crate::layer::testing::{Tar, build, diff_id};
use crate::oci::{ImageConfig, ImageId, TagRef};
use crate::store::{NewImage, OpenMode, Store};

/// What the kernel was told.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Told {
    Entry(InodeNo, String),
    Inode(InodeNo, bool),
}

/// The kernel's side, writing down what it is told.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Told>>);

impl KernelCache for Recorder {
    fn expire_entry(&self, _: InodeNo, _: &[u8]) {}
    fn invalidate_entry(&self, parent: InodeNo, name: &[u8]) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0.lock().push(Told::Entry(parent, name));
    }

    fn invalidate_inode(&self, ino: InodeNo, attrs_only: bool) {
        self.0.lock().push(Told::Inode(ino, attrs_only));
    }

    fn invalidate_attributes_now(&self, _ino: InodeNo) {}

    fn settle(&self) {}
}

const MOUNT_POINT: &str = "/mnt/m";

/// A store, a tree on it, and a kernel.
struct Fixture {
    sb: Superblock,
    store: Store,
    kernel: Arc<Recorder>,
    caller: Caller,
    _dir: tempfile::TempDir,
}

fn options(rm: RmPolicy) -> FsOptions {
    FsOptions {
        shape: Shape::Images,
        stores: false,
        read_only: false,
        rm,
        uid: 1000,
        gid: 100,
        mount_point: PathBuf::from(MOUNT_POINT),
        squash: false,
        shift: None,
        shared_links: false,
        lease: None,
    }
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(options(RmPolicy::Own))
    }

    fn with(options: FsOptions) -> Fixture {
        // In memory: what is tested is the logic, not the disk.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = Store::open(&dir.path().join("store"), OpenMode::Create).unwrap();
        let kernel = Arc::new(Recorder::default());
        let sb = Superblock::new(store.clone(), options, kernel.clone()).unwrap();
        let caller = Caller {
            uid: 1000,
            gid: 100,
            pid: std::process::id(),
        };
        Fixture {
            sb,
            store,
            kernel,
            caller,
            _dir: dir,
        }
    }

    /// Puts an image into the store and refreshes the tree.
    fn load(&self, layers: &[Tar], tags: &[&str]) -> ImageId {
        let import = self.store.begin_import().unwrap();
        let mut ids = Vec::new();
        for tar in layers {
            let id = diff_id(&tar.bytes);
            if !import.has_layer(&id).unwrap() {
                let mut sink = import.new_layer().unwrap();
                sink.write_all(&tar.bytes).unwrap();
                sink.commit(&id, &build(&tar.bytes, 4096).unwrap()).unwrap();
            }
            ids.push(id);
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.123456789Z",
            "config": {"Labels": {"tags": tags.join(" ")}},
            "rootfs": {"type": "layers", "diff_ids": ids.iter().map(|id| id.to_string()).collect::<Vec<_>>()},
            "history": [],
        });
        let image = NewImage {
            config: ImageConfig::parse(config.to_string().as_bytes()).unwrap(),
            layers: ids,
            tags: tags
                .iter()
                .map(|text| TagRef::parse(text).unwrap())
                .collect(),
            origins: Vec::new(),
        };
        let id = import.commit(vec![image]).unwrap().images[0].id;
        self.sb.refresh().unwrap();
        id
    }

    fn lookup(&self, parent: InodeNo, name: &[u8]) -> Result<Lookup, FsError> {
        self.sb.lookup(&self.caller, parent, name)
    }

    /// Looks a name up that is there. References stay, as in a kernel with much memory.
    fn entry(&self, parent: InodeNo, name: &str) -> EntryReply {
        match self.lookup(parent, name.as_bytes()) {
            Ok(Lookup::Found(entry)) => entry,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The inode at a path without links.
    fn at(&self, path: &str) -> InodeNo {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(InodeNo::ROOT, |at, name| self.entry(at, name).attr.ino)
    }

    fn exists(&self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap();
        match self.lookup(self.at(parent), name.as_bytes()) {
            Ok(Lookup::Found(_)) => true,
            Ok(Lookup::Absent(_)) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    fn attr(&self, path: &str) -> FileAttr {
        let ino = self.at(path);
        self.sb.getattr(&self.caller, ino).unwrap().attr
    }

    /// Lists a directory as the kernel does, `chunk` entries per request.
    fn list_by(
        &self,
        caller: &Caller,
        ino: InodeNo,
        chunk: usize,
        plus: bool,
    ) -> Vec<(String, FileAttr)> {
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            let (mut count, from) = (0, offset);
            let add = &mut |entry: &DirEntry<'_>| {
                if count == chunk {
                    return Full::Yes;
                }
                count += 1;
                assert!(entry.next_offset > offset, "offsets rise");
                offset = entry.next_offset;
                let name = String::from_utf8_lossy(entry.name).into_owned();
                found.push((name, entry.entry.attr));
                Full::No
            };
            self.sb.readdir(caller, ino, from, plus, add).unwrap();
            if count == 0 {
                return found;
            }
        }
    }

    /// The names in a directory but `.` and `..`.
    fn names(&self, path: &str) -> Vec<String> {
        let ino = self.at(path);
        let mut names: Vec<String> = self
            .list_by(&self.caller, ino, 3, false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names[..2], [".", ".."]);
        names.drain(..2);
        names.sort();
        names
    }

    fn read(&self, ino: InodeNo) -> Result<Vec<u8>, FsError> {
        let mut content = Vec::new();
        self.sb.read(&self.caller, ino, 0, 1 << 20, &mut content)?;
        Ok(content)
    }

    fn text(&self, path: &str) -> String {
        let ino = self.at(path);
        // As the kernel does without OPEN: attributes, then the content as far as they say.
        let size = self.sb.getattr(&self.caller, ino).unwrap().attr.size;
        let content = self.read(ino).unwrap();
        assert_eq!(content.len() as u64, size, "{path}");
        String::from_utf8(content).unwrap()
    }

    fn link(&self, path: &str) -> String {
        let target = self.sb.readlink(&self.caller, self.at(path)).unwrap();
        String::from_utf8(target).unwrap()
    }

    fn xattr(&self, path: &str, name: &str) -> Option<String> {
        match self
            .sb
            .getxattr(&self.caller, self.at(path), name.as_bytes())
        {
            Ok(value) => Some(String::from_utf8(value).unwrap()),
            Err(FsError::NoAttribute) => None,
            Err(error) => panic!("{path} {name}: {error}"),
        }
    }

    fn xattrs(&self, path: &str) -> Vec<String> {
        let list = self.sb.listxattr(&self.caller, self.at(path)).unwrap();
        let names = list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty());
        names
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    }

    fn rmdir(&self, path: &str) -> Result<(), FsError> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        self.sb
            .rmdir(&self.caller, self.at(parent), name.as_bytes())
    }

    fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        self.sb
            .unlink(&self.caller, self.at(parent), name.as_bytes())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FsError> {
        let ((from, old), (to, new)) =
            (from.rsplit_once('/').unwrap(), to.rsplit_once('/').unwrap());
        let from = (self.at(from), old.as_bytes());
        let to = (self.at(to), new.as_bytes());
        self.sb.rename(&self.caller, from, to, RenameMode::Replace)
    }

    /// What the kernel was told since the last call.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.kernel.0.lock())
    }

    fn tags(&self) -> Vec<String> {
        self.store
            .names()
            .unwrap()
            .tags
            .keys()
            .map(|tag| tag.familiar())
            .collect()
    }
}

/// Two files in two directories.
fn base() -> Tar {
    Tar::new()
        .dir(b"etc/")
        .file(b"etc/passwd", b"root\n")
        .file(b"etc/hosts", b"localhost\n")
        .dir(b"usr/")
        .file(b"usr/big", &[7; 100_000])
        .hardlink(b"usr/twin", b"usr/big")
        .symlink(b"usr/link", b"big")
        .end()
}

/// A layer of its own for a name.
fn own(name: &str) -> Tar {
    Tar::new().file(b"own", name.as_bytes()).end()
}

/// The kind of a refusal, for tables.
fn kind(result: Result<(), FsError>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(FsError::NotFound) => "ENOENT",
        Err(FsError::NotDirectory) => "ENOTDIR",
        Err(FsError::IsDirectory) => "EISDIR",
        Err(FsError::NotPermitted) => "EPERM",
        Err(FsError::Denied) => "EACCES",
        Err(FsError::ReadOnly) => "EROFS",
        Err(FsError::Busy(_)) => "EBUSY",
        Err(FsError::Exists) => "EEXIST",
        Err(FsError::NotEmpty) => "ENOTEMPTY",
        Err(FsError::Invalid(_)) => "EINVAL",
        Err(FsError::NameTooLong) => "ENAMETOOLONG",
        Err(FsError::Corrupt { .. }) => "EIO",
        Err(other) => panic!("{other}"),
    }
}
