//! A file system of four nodes behind the same face as the real one, to test sessions and mounts alone.

use std::sync::Arc;

use mica::fs::{
    AttrReply, Caller, DirEntry, EntryReply, FileAttr, FileKind, FileSystem, FsError, Full,
    InodeNo, KernelCache, Lookup, RenameMode, SetAttr, StatFs, Timestamp, Ttl,
};
use mica::sys::mountinfo::DeviceId;
use parking_lot::Mutex;

pub const FILE: InodeNo = InodeNo(2);
pub const LINK: InodeNo = InodeNo(3);
pub const DIR: InodeNo = InodeNo(4);

/// A panic that panics again where it is caught: what ends a thread in spite of all care.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the second one");
    }
}

/// `/file` with changeable content, `/link` to it, `/dir`, `/boom`, whose lookup panics, and `/bomb`,
/// whose lookup ends the thread.
pub struct Tiny {
    pub content: Mutex<Vec<u8>>,
    pub present: Mutex<Vec<(&'static [u8], InodeNo)>>,
    pub cache: Arc<dyn KernelCache>,
}

impl Tiny {
    pub fn new(cache: Arc<dyn KernelCache>) -> Tiny {
        Tiny {
            content: Mutex::new(b"hello\n".to_vec()),
            present: Mutex::new(vec![(b"file", FILE), (b"link", LINK), (b"dir", DIR)]),
            cache,
        }
    }

    fn attr(&self, ino: InodeNo) -> Result<FileAttr, FsError> {
        let size = self.content.lock().len() as u64;
        let (kind, mode, size) = match ino {
            InodeNo::ROOT | DIR => (FileKind::Directory, 0o755, 0),
            FILE => (FileKind::Regular, 0o644, size),
            LINK => (FileKind::Symlink, 0o777, 4),
            other => return Err(FsError::Stale(other.0)),
        };
        let time = Timestamp {
            sec: -5,
            nsec: 123_456_789,
        };
        Ok(FileAttr {
            ino,
            kind,
            mode,
            nlink: 2,
            uid: 7,
            gid: 8,
            rdev_major: 0,
            rdev_minor: 0,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
        })
    }

    fn entry(&self, ino: InodeNo) -> Result<EntryReply, FsError> {
        Ok(EntryReply {
            attr: self.attr(ino)?,
            entry_ttl: Ttl::Forever,
            attr_ttl: Ttl::Forever,
        })
    }
}

impl FileSystem for Tiny {
    fn mounted(&self, _: DeviceId) {}
    fn refresh(&self) -> Result<(), FsError> {
        Ok(())
    }
    fn lookup(&self, _: &Caller, parent: InodeNo, name: &[u8]) -> Result<Lookup, FsError> {
        assert_ne!(name, b"boom", "a handler that panics");
        if name == b"bomb" {
            std::panic::panic_any(Bomb);
        }
        let present = self.present.lock();
        let found = present.iter().find(|(n, _)| *n == name);
        match found.filter(|_| parent == InodeNo::ROOT) {
            Some((_, ino)) => Ok(Lookup::Found(self.entry(*ino)?)),
            None => Ok(Lookup::Absent(Ttl::Forever)),
        }
    }
    fn forget(&self, _: InodeNo, _: u64) {}
    fn getattr(&self, _: &Caller, ino: InodeNo) -> Result<AttrReply, FsError> {
        Ok(AttrReply {
            attr: self.attr(ino)?,
            ttl: Ttl::Forever,
        })
    }
    fn setattr(&self, _: &Caller, _: InodeNo, _: &SetAttr) -> Result<AttrReply, FsError> {
        Err(FsError::ReadOnly)
    }
    fn readlink(&self, _: &Caller, _: InodeNo) -> Result<Vec<u8>, FsError> {
        Ok(b"file".to_vec())
    }
    fn open(&self, _: &Caller, _: InodeNo, for_writing: bool) -> Result<(), FsError> {
        if for_writing {
            Err(FsError::ReadOnly)
        } else {
            Ok(())
        }
    }
    fn read(
        &self,
        _: &Caller,
        _: InodeNo,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let content = self.content.lock();
        let start = content.len().min(offset as usize);
        let end = content.len().min(start + size as usize);
        into.extend_from_slice(&content[start..end]);
        Ok(())
    }
    fn seek(&self, _: &Caller, _: InodeNo, _: u64, _: bool) -> Result<Option<u64>, FsError> {
        Ok(None)
    }
    fn write(&self, _: &Caller, ino: InodeNo, from_cache: bool) -> FsError {
        if from_cache {
            self.cache.invalidate_inode(ino, false);
        }
        FsError::ReadOnly
    }
    fn readdir(
        &self,
        _: &Caller,
        ino: InodeNo,
        offset: u64,
        _: bool,
        add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
    ) -> Result<(), FsError> {
        let mut all: Vec<(&[u8], InodeNo)> = vec![(b".", ino), (b"..", InodeNo::ROOT)];
        if ino == InodeNo::ROOT {
            all.extend(self.present.lock().iter().copied());
        }
        for (i, (name, ino)) in all.into_iter().enumerate().skip(offset as usize) {
            let item = DirEntry {
                next_offset: i as u64 + 1,
                name,
                entry: self.entry(ino)?,
            };
            if add(&item) == Full::Yes {
                break;
            }
        }
        Ok(())
    }
    fn statfs(&self, _: &Caller, _: InodeNo) -> Result<StatFs, FsError> {
        Ok(StatFs {
            block_size: 4096,
            blocks: 1000,
            free: 10,
            available: 5,
            files: 4,
            files_free: 0,
        })
    }
    fn getxattr(&self, _: &Caller, _: InodeNo, name: &[u8]) -> Result<Vec<u8>, FsError> {
        match name {
            b"user.a" => Ok(b"value".to_vec()),
            _ => Err(FsError::NoAttribute),
        }
    }
    fn listxattr(&self, _: &Caller, _: InodeNo) -> Result<Vec<u8>, FsError> {
        Ok(b"user.a\0".to_vec())
    }
    fn change_xattr(
        &self,
        _: &Caller,
        _: InodeNo,
        _: &[u8],
        _: Option<&[u8]>,
    ) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }
    fn flags(&self, _: &Caller, _: InodeNo) -> Result<u32, FsError> {
        Ok(0)
    }
    fn set_flags(&self, _: &Caller, _: InodeNo, _: u32) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }
    fn make_node(&self, _: &Caller, _: InodeNo, _: &[u8]) -> FsError {
        FsError::NotPermitted
    }
    fn mkdir(&self, _: &Caller, _: InodeNo, _: &[u8]) -> Result<EntryReply, FsError> {
        Err(FsError::ReadOnly)
    }
    fn symlink(&self, _: &Caller, _: InodeNo, _: &[u8], _: &[u8]) -> Result<EntryReply, FsError> {
        Err(FsError::ReadOnly)
    }
    fn unlink(&self, _: &Caller, _: InodeNo, _: &[u8]) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }
    /// Removes, and says so to the kernel while the kernel holds the directory's lock.
    fn rmdir(&self, _: &Caller, parent: InodeNo, name: &[u8]) -> Result<(), FsError> {
        self.present.lock().retain(|(n, _)| *n != name);
        self.cache.invalidate_entry(parent, name);
        self.cache.invalidate_inode(parent, false);
        Ok(())
    }
    fn renamed_before(&self, _: (InodeNo, &[u8])) {}
    fn rename(
        &self,
        _: &Caller,
        _: (InodeNo, &[u8]),
        _: (InodeNo, &[u8]),
        _: RenameMode,
    ) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }
}
