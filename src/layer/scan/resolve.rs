//! Header and extension headers put together to one entry, with the checks that need both.

use super::{EntryKind, Fields, Flag, Problem, TarEntry};
use crate::layer::tar::pax::Pax;

/// The longest target Linux can hold: `PATH_MAX` without its NUL.
const SYMLINK_MAX: usize = 4095;
/// What fits the kernel's 32-bit device numbers: 12 bits and 20 bits.
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// Precedence: PAX, then GNU long names, then the header. An error comes with the path, as far as it is known.
pub(in crate::layer) fn entry(
    fields: Fields,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
) -> Result<TarEntry, (Vec<u8>, Problem)> {
    let given = |text: Option<Vec<u8>>| text.filter(|text| !text.is_empty());
    let path = given(pax.path).or(given(long_name)).unwrap_or(fields.path);
    let link = given(pax.linkpath)
        .or(given(long_link))
        .unwrap_or(fields.link);
    let kind = match fields.flag {
        Flag::Entry(kind) => kind,
        Flag::OldFile if path.ends_with(b"/") => EntryKind::Directory,
        _ => EntryKind::Regular,
    };
    let size = pax.size.unwrap_or(fields.size);
    let has_content =
        matches!(fields.flag, Flag::OldFile | Flag::OldSparse) || kind == EntryKind::Regular;
    let (mtime_sec, mtime_nsec) = pax.mtime.unwrap_or((fields.mtime, 0));
    let checked = || {
        let device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        Ok((
            id(pax.uid.unwrap_or(fields.uid)).ok_or(Problem::Field("uid"))?,
            id(pax.gid.unwrap_or(fields.gid)).ok_or(Problem::Field("gid"))?,
            number(fields.rdev_major, device, MAJOR_MAX).ok_or(Problem::Field("device major"))?,
            number(fields.rdev_minor, device, MINOR_MAX).ok_or(Problem::Field("device minor"))?,
        ))
    };
    let (uid, gid, rdev_major, rdev_minor) = match checked() {
        Ok(numbers) => numbers,
        Err(problem) => return Err((path, problem)),
    };
    let link = match kind {
        EntryKind::Symlink if link.contains(&0) => {
            return Err((path, Problem::Nul("the link target")));
        }
        EntryKind::Symlink if link.is_empty() || link.len() > SYMLINK_MAX => {
            return Err((path, Problem::SymlinkTarget));
        }
        EntryKind::Symlink | EntryKind::HardLink => link,
        _ => Vec::new(),
    };
    Ok(TarEntry {
        path,
        kind,
        link,
        mode: fields.mode,
        uid,
        gid,
        rdev_major,
        rdev_minor,
        mtime_sec,
        mtime_nsec,
        size: if kind == EntryKind::Regular { size } else { 0 },
        stored: if has_content { size } else { 0 },
        xattrs: pax.xattrs,
        segments: None,
    })
}

/// A user or group. 2^32 - 1 is "none" to every system call, and no file has it.
fn id(value: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX)
}

fn number(value: i64, wanted: bool, max: i64) -> Option<u32> {
    match wanted {
        true if value > max => None,
        true => u32::try_from(value).ok(),
        false => Some(0),
    }
}
