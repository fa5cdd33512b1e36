//! A new volume gets what the image has at its place, as docker does it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::mounts::proc_path;

/// Copies the directory `image`, with its own attributes, to the directory `volume`, if that is empty. Nothing runs yet that
/// could change what is read.
pub(super) fn fill(image: &OwnedFd, volume: &Path, single_id: bool) -> io::Result<()> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let from = fs::read_link(proc_path(image))?;
    let mut copy = Copy {
        single_id,
        links: HashMap::new(),
    };
    copy.children(&from, volume)?;
    copy.attributes(&from, volume, &fs::symlink_metadata(&from)?)
}

struct Copy {
    single_id: bool,
    /// Where files with several names went.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn children(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name: OsString = entry.file_name();
            self.one(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    }

    fn one(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let stat = fs::symlink_metadata(from)?;
        let kind = stat.file_type();
        if !kind.is_dir() && stat.nlink() > 1 {
            let identity = (stat.dev(), stat.ino());
            if let Some(first) = self.links.get(&identity) {
                return fs::hard_link(first, to);
            }
            self.links.insert(identity, to.to_owned());
        }
        if kind.is_dir() {
            fs::create_dir(to)?;
            self.children(from, to)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else if kind.is_file() {
            let mut source = File::open(from)?;
            let mut target = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(to)?;
            io::copy(&mut source, &mut target)?;
        } else if kind.is_fifo() {
            rustix::fs::mknodat(
                CWD,
                to,
                rustix::fs::FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )?;
        } else {
            // Devices could not be opened in a volume; docker copies them, an ordinary user cannot.
            return Ok(());
        }
        self.attributes(from, to, &stat)
    }

    fn attributes(&self, from: &Path, to: &Path, stat: &fs::Metadata) -> io::Result<()> {
        if !self.single_id {
            let owner = (Uid::from_raw(stat.uid()), Gid::from_raw(stat.gid()));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(CWD, to, Some(owner.0), Some(owner.1), flags)?;
        }
        if !stat.file_type().is_symlink() {
            copy_xattrs(from, to)?;
            rustix::fs::chmodat(
                CWD,
                to,
                Mode::from_raw_mode(stat.mode() & 0o7777),
                AtFlags::empty(),
            )?;
        }
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: time(stat.atime(), stat.atime_nsec()),
            last_modification: time(stat.mtime(), stat.mtime_nsec()),
        };
        Ok(rustix::fs::utimensat(
            CWD,
            to,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// What the file system behind the volume takes.
fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(from, names.as_mut_slice()) else {
        return Ok(());
    };
    let names = names.get(..length).unwrap_or_default();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name, value.as_mut_slice())?;
        let value = value.get(..length).unwrap_or_default();
        match rustix::fs::lsetxattr(to, name, value, XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
