//! What a snapshot takes on the disk.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mica::store::snapshots::SnapshotUsage;
use mica::sys::deep;
use rustix::fs::{FileType, Stat};

use crate::error::SnapshotError;

/// Hard-linked files that are remembered, in some 30 MB. How many there are is a container's to say; of more each name counts as its
/// part of the file, which comes to the same where all names lie in the snapshot.
const MAX_LINKED: usize = 1 << 20;
/// Parts of a file.
const WHOLE: u64 = 1 << 20;

/// Disk space below an upper directory, itself included; hard links once.
pub(super) fn of(upper: &Path) -> Result<SnapshotUsage, SnapshotError> {
    remembering(upper, MAX_LINKED)
}

fn remembering(upper: &Path, most: usize) -> Result<SnapshotUsage, SnapshotError> {
    let failed = || SnapshotError::io(upper.display().to_string());
    let root = match fs::symlink_metadata(upper) {
        Ok(root) => root,
        // A look at something.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SnapshotUsage::default()),
        Err(error) => return Err(failed()(error)),
    };
    let mut usage = SnapshotUsage {
        size: root.blocks().saturating_mul(512),
        inodes: 1,
    };
    let mut linked = HashSet::new();
    let mut parts = 0u64;
    let mut see = |stat: &Stat| {
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let identity = (stat.st_dev, stat.st_ino);
        // Of another size elsewhere.
        #[allow(clippy::useless_conversion)]
        let names: u64 = stat.st_nlink.into();
        let part = match is_directory || names <= 1 {
            true => WHOLE,
            false if linked.contains(&identity) => 0,
            false if linked.len() < most => {
                linked.insert(identity);
                WHOLE
            }
            false => WHOLE / names,
        };
        let own = u128::from(deep::allocated(stat)) * u128::from(part) / u128::from(WHOLE);
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        usage.size = usage.size.saturating_add(own);
        parts = parts.saturating_add(part);
    };
    deep::visit(upper, &mut see).map_err(failed())?;
    // Halves up: parts of a file are rounded down.
    usage.inodes += parts.saturating_add(WHOLE / 2) / WHOLE;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_many_names_count_once_remembered_or_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for n in 0..7 {
            let file = dir.path().join(format!("f{n}"));
            fs::write(&file, vec![1; 70_000]).unwrap();
            for link in 0..6 {
                fs::hard_link(&file, dir.path().join(format!("d/{n}-{link}"))).unwrap();
            }
        }
        let all = of(dir.path()).unwrap();
        assert_eq!(all.inodes, 1 + 1 + 7);
        for most in [0, 3, 7] {
            let some = remembering(dir.path(), most).unwrap();
            assert_eq!(some.inodes, all.inodes, "{most}");
            assert!(all.size.abs_diff(some.size) < 1000, "{most}");
        }
        assert_eq!(
            of(&dir.path().join("none")).unwrap(),
            SnapshotUsage::default()
        );
    }
}
