//! `/proc/<pid>/mountinfo`: what is mounted where.
//!
//! Paths and sources are bytes, with the kernel's octal escapes (`\040` and the like) undone. Mount ids are unique among the
//! mounts that exist now, and are used again later: compare the device number as well before acting on one. See proc(5).

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A device number, as `stat` reports it for every file of a mounted file system.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId {
    /// Major number; 0 for file systems without a block device, FUSE among them.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of mountinfo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountInfo {
    /// Unique among the mounts of now.
    pub id: u64,
    /// The mount this one sits on.
    pub parent: u64,
    /// `st_dev` of the files inside.
    pub device: DeviceId,
    /// The directory of the file system that is mounted: `/` unless this is a bind mount of a part.
    pub root: PathBuf,
    /// Where it is mounted, seen from the root directory of the process asked about.
    pub mount_point: PathBuf,
    /// Per-mount options, comma separated.
    pub options: String,
    /// File system type with its subtype, `fuse.mica`.
    pub fs_type: OsString,
    /// The source given at mount time.
    pub source: OsString,
    /// Per-superblock options, comma separated.
    pub super_options: OsString,
}

impl MountInfo {
    /// The user a FUSE mount belongs to (`user_id=` of its options).
    pub fn fuse_owner(&self) -> Option<u32> {
        let options = self.super_options.to_str()?;
        let value = options
            .split(',')
            .find_map(|o| o.strip_prefix("user_id="))?;
        value.parse().ok()
    }
}

/// Waits for changes of the mounts that this process sees.
#[derive(Debug)]
pub struct Watch(File);

impl Watch {
    /// From now on.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn new() -> io::Result<Watch> {
        let watch = Watch(File::open("/proc/self/mountinfo")?);
        // The first answer is for what was before.
        watch.wait_for(Some(&Timespec::default()))?;
        Ok(watch)
    }

    /// Returns when something has been mounted or unmounted since the last return.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self) -> io::Result<()> {
        self.wait_for(None)
    }

    fn wait_for(&self, limit: Option<&Timespec>) -> io::Result<()> {
        let mut one = [PollFd::new(&self.0, PollFlags::PRI)];
        loop {
            match poll(&mut one, limit) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other.map(|_| ())?),
            }
        }
    }
}

/// The mounts that this process sees, in the kernel's order: of two at one place the later is on top.
pub fn of_self() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// The mounts that process `pid` sees.
pub fn of_process(pid: u32) -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read(super::procfs::path(pid, "mountinfo"))?))
}

/// Parses a whole mountinfo file. Lines that do not have the documented shape are skipped: the kernel writes none.
pub fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&b| b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut device = fields.next()?.split(|&b| b == b':');
    let device = DeviceId {
        major: number(device.next()?)?,
        minor: number(device.next()?)?,
    };
    let root = PathBuf::from(unescape(fields.next()?));
    let mount_point = PathBuf::from(unescape(fields.next()?));
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    // Any number of optional fields (shared:1 ...), ended by a single hyphen.
    fields.by_ref().find(|field| *field == b"-")?;
    Some(MountInfo {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        fs_type: unescape(fields.next()?),
        source: unescape(fields.next()?),
        super_options: unescape(fields.next()?),
    })
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes `\ooo`; anything else stays as it is.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\'
            && let Some((digits, after)) = after.split_at_checked(3)
            && let Some(value) = octal(digits)
        {
            out.push(value);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    OsString::from_vec(out)
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields() {
        let text = b"36 35 0:98 /images/a /mnt/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.mica mica rw,user_id=1000,group_id=5\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        let mount = &mounts[0];
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(mount.device.to_string(), "0:98");
        assert_eq!(mount.root, PathBuf::from("/images/a"));
        assert_eq!(mount.mount_point, PathBuf::from("/mnt/a b\\c"));
        assert_eq!(mount.fs_type, "fuse.mica");
        assert_eq!(mount.source, "mica");
        assert_eq!(mount.fuse_owner(), Some(1000));
    }

    #[test]
    fn lines_of_another_shape_are_skipped() {
        assert_eq!(parse(b"").len(), 0);
        assert_eq!(parse(b"36 35 0:98 / /mnt rw shared:1\n").len(), 0);
        assert_eq!(parse(b"x y 0:98 / /mnt rw - t s o\n").len(), 0);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape(b"a\\9zz\\"), OsString::from("a\\9zz\\"));
        assert_eq!(unescape(b"\\777"), OsString::from("\\777"));
        assert_eq!(unescape(b"\\012"), OsString::from("\n"));
    }

    #[test]
    fn this_process_has_a_root_mount() {
        let mounts = of_self().unwrap();
        assert!(
            mounts
                .iter()
                .any(|m| m.mount_point == std::path::Path::new("/"))
        );
    }
}
