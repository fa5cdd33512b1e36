//! Trees as data, and the comparison of two trees.
//!
//! A walk sees what `lstat`, `readlink`, `llistxattr` and `read` show, nothing is derived. Two things are never compared:
//! sizes and link counts of directories (each file system counts them its own way), and absolute link counts of files (a
//! tag's file has one more link below `by-id`): hard-link *groups* are compared instead.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, lgetxattr, llistxattr};

/// One entry as a process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, i64),
    /// 0 for directories.
    pub size: u64,
    pub target: Option<Vec<u8>>,
    /// Major and minor number of devices.
    pub device: Option<(u32, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in byte order, of those that are the same inode; its own for most.
    pub group: Vec<u8>,
}

/// Relative path (the root is "") to entry.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// Everything below and including `root`.
pub fn walk(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut inodes: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(relative) = todo.pop() {
        let path = join(root, &relative);
        let metadata = fs::symlink_metadata(&path).map_err(|e| at(&path, e))?;
        if metadata.is_dir() {
            for child in fs::read_dir(&path).map_err(|e| at(&path, e))? {
                let name = child.map_err(|e| at(&path, e))?.file_name();
                let mut below = relative.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.as_bytes());
                todo.push(below);
            }
        } else {
            let key = (metadata.dev(), metadata.ino());
            inodes.entry(key).or_default().push(relative.clone());
        }
        let entry = read_entry(&path, &metadata, &relative).map_err(|e| at(&path, e))?;
        if tree.insert(relative, entry).is_some() {
            return Err(at(&path, io::Error::other("listed twice")));
        }
    }
    for mut paths in inodes.into_values() {
        paths.sort();
        for path in &paths {
            if let Some(entry) = tree.get_mut(path) {
                entry.group.clone_from(&paths[0]);
            }
        }
    }
    Ok(tree)
}

fn read_entry(path: &Path, metadata: &fs::Metadata, relative: &[u8]) -> io::Result<Entry> {
    let kind = FileType::from_raw_mode(metadata.mode());
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice).then(|| {
        let number = metadata.rdev();
        (rustix::fs::major(number), rustix::fs::minor(number))
    });
    let target = match kind {
        FileType::Symlink => Some(fs::read_link(path)?.into_os_string().into_vec()),
        _ => None,
    };
    Ok(Entry {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if metadata.is_dir() {
            0
        } else {
            metadata.size()
        },
        target,
        device,
        xattrs: xattrs(path)?,
        group: relative.to_vec(),
    })
}

/// The listed extended attributes and their values.
pub fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = match llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    let mut value = vec![0; 64 << 10];
    for name in names[..length]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
    {
        let length = lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice())?;
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    Ok(found)
}

/// Every difference between two trees and the contents of their regular files, in one line each; none: the same.
pub fn differences(expected: &Path, actual: &Path) -> io::Result<Vec<String>> {
    let (left, right) = (walk(expected)?, walk(actual)?);
    let mut found = compare(&left, &right);
    for (path, entry) in &left {
        let regular = |entry: &Entry| FileType::from_raw_mode(entry.mode) == FileType::RegularFile;
        // Of hard links one is read.
        if regular(entry) && entry.group == *path && right.get(path).is_some_and(regular) {
            let (left, right) = (join(expected, path), join(actual, path));
            if let Some(offset) = first_difference(&left, &right)? {
                found.push(format!("{}: content differs at byte {offset}", show(path)));
            }
        }
    }
    Ok(found)
}

/// The differences between two walks, contents aside.
pub fn compare(expected: &Tree, actual: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, left) in expected {
        let name = show(path);
        let Some(right) = actual.get(path) else {
            found.push(format!("{name}: missing"));
            continue;
        };
        let mut field = |what: &str, left: String, right: String| {
            if left != right {
                found.push(format!("{name}: {what} should be {left}, is {right}"));
            }
        };
        field(
            "mode",
            format!("{:o}", left.mode),
            format!("{:o}", right.mode),
        );
        field("uid", left.uid.to_string(), right.uid.to_string());
        field("gid", left.gid.to_string(), right.gid.to_string());
        field(
            "mtime",
            format!("{:?}", left.mtime),
            format!("{:?}", right.mtime),
        );
        field("size", left.size.to_string(), right.size.to_string());
        field(
            "target",
            format!("{:?}", left.target),
            format!("{:?}", right.target),
        );
        field(
            "device",
            format!("{:?}", left.device),
            format!("{:?}", right.device),
        );
        field("link group", show(&left.group), show(&right.group));
        field("xattrs", show_xattrs(left), show_xattrs(right));
    }
    for path in actual.keys().filter(|path| !expected.contains_key(*path)) {
        found.push(format!("{}: should not be there", show(path)));
    }
    found
}

fn first_difference(left: &Path, right: &Path) -> io::Result<Option<u64>> {
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut left_file = File::open(left).map_err(|e| at(left, e))?;
    let mut right_file = File::open(right).map_err(|e| at(right, e))?;
    let mut offset = 0;
    loop {
        let n = fill(&mut left_file, &mut a).map_err(|e| at(left, e))?;
        let m = fill(&mut right_file, &mut b).map_err(|e| at(right, e))?;
        if a[..n] != b[..m] {
            let same = a[..n]
                .iter()
                .zip(&b[..m])
                .take_while(|(a, b)| a == b)
                .count();
            return Ok(Some(offset + same as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        offset += n as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn join(root: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() {
        return root.to_owned();
    }
    root.join(OsStr::from_bytes(relative))
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn show(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}

fn show_xattrs(entry: &Entry) -> String {
    let pairs = entry
        .xattrs
        .iter()
        .map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii()));
    pairs.collect::<Vec<_>>().join(",")
}

#[test]
fn walk_finds_each_kind_of_difference() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for root in [&a, &b] {
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/same"), "same").unwrap();
        fs::write(root.join("content"), "one").unwrap();
        std::os::unix::fs::symlink("target", root.join("link")).unwrap();
    }
    fs::write(b.join("content"), "two").unwrap();
    fs::write(b.join("extra"), "").unwrap();
    fs::write(a.join("gone"), "").unwrap();
    fs::hard_link(b.join("d/same"), b.join("d/second")).unwrap();
    fs::copy(a.join("d/same"), a.join("d/second")).unwrap();
    let found = differences(&a, &b).unwrap();
    let has = |text: &str| found.iter().any(|line| line.contains(text));
    assert!(has("/content: content differs at byte 0"), "{found:?}");
    assert!(has("/extra: should not be there"), "{found:?}");
    assert!(has("/gone: missing"), "{found:?}");
    assert!(
        has("/d/second: link group should be /d/second, is /d/same"),
        "{found:?}"
    );
    assert!(differences(&a, &a).unwrap().is_empty());
}
