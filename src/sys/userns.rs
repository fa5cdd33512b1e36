//! User namespaces of an ordinary user: which ids are allowed, and who writes the maps.
//!
//! The kernel lets users map their own id; `newuidmap` and `newgidmap` (setuid programs of Debian's `uidmap`) map what
//! `/etc/subuid` and `/etc/subgid` give on top.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::container::{Namespaces, clone_into, exit_now, unshare};
use super::fork::Fork;
use super::idmap::{IdMap, IdRange};
use super::own_binary::OWN;

/// `user_namespaces(7)`: lines of a map.
const MAX_RANGES: usize = 340;

/// The map for a container of this user, and why it is a single id if it is.
pub fn plan() -> (IdMap, Option<String>) {
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let own = |outside| IdRange {
        inside: 0,
        outside,
        count: 1,
    };
    let single = |why: String| {
        let ids = IdMap {
            uids: vec![own(uid)],
            gids: vec![own(gid)],
        };
        (ids, Some(why))
    };
    let name = user_name(uid);
    let shown = name.clone().unwrap_or_else(|| uid.to_string());
    for helper in ["newuidmap", "newgidmap"] {
        if !is_program(helper) {
            return single(format!("{helper} is not installed (Debian: uidmap)"));
        }
    }
    let mut ids = IdMap {
        uids: vec![own(uid)],
        gids: vec![own(gid)],
    };
    for (file, ranges) in [
        ("/etc/subuid", &mut ids.uids),
        ("/etc/subgid", &mut ids.gids),
    ] {
        let text = text_of(file);
        let mut inside = 1u32;
        for (outside, count) in subordinate(&text, name.as_deref(), uid) {
            let Some(next) = inside.checked_add(count) else {
                break;
            };
            ranges.push(IdRange {
                inside,
                outside,
                count,
            });
            inside = next;
        }
        if inside == 1 {
            return single(format!("{file} has no line for {shown}"));
        }
    }
    (ids, None)
}

/// A file of the system; bytes that are no text in somebody's line concern nobody else.
fn text_of(file: &str) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ids that the user's podman has: the same ranges, the lowest first (containers/storage, `pkg/idtools`).
///
/// # Errors
/// In words: why there is no such user namespace.
pub fn plan_of_podman() -> Result<IdMap, String> {
    let (mut ids, alone) = plan();
    if let Some(why) = alone {
        return Err(why);
    }
    for ranges in [&mut ids.uids, &mut ids.gids] {
        if ranges.len() > MAX_RANGES {
            let given = ranges.len() - 1;
            return Err(format!(
                "{given} ranges of subordinate ids; the kernel takes {MAX_RANGES}"
            ));
        }
        if let Some((_, subordinate)) = ranges.split_first_mut() {
            subordinate.sort_by_key(|range| range.outside);
            let mut inside = 1u32;
            for range in subordinate {
                range.inside = inside;
                inside = inside.saturating_add(range.count);
            }
        }
    }
    Ok(ids)
}

/// The ranges that lines `name:first:count` give a user.
fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (who, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = Some(who) == name || who == number;
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        (matches && count > 0 && first > 0).then_some((first, count))
    });
    lines.collect()
}

/// The name of a user by `/etc/passwd`.
fn user_name(uid: u32) -> Option<String> {
    let text = text_of("/etc/passwd");
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then(|| name.to_owned())
    })
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Writes the maps of `process`, a child in a new user namespace.
pub fn write_maps(process: u32, ids: &IdMap) -> io::Result<()> {
    if ids.is_single() {
        let line = |ranges: &[IdRange]| -> String {
            ranges
                .iter()
                .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count))
                .collect()
        };
        fs::write(format!("/proc/{process}/setgroups"), "deny")?;
        fs::write(format!("/proc/{process}/gid_map"), line(&ids.gids))?;
        return fs::write(format!("/proc/{process}/uid_map"), line(&ids.uids));
    }
    let start = |helper: &str, ranges: &[IdRange]| {
        let mut command = Command::new(helper);
        command.arg(process.to_string());
        for range in ranges {
            command.args([range.inside, range.outside, range.count].map(|n| n.to_string()));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    // Both at once.
    let helpers = [
        ("newuidmap", start("newuidmap", &ids.uids)),
        ("newgidmap", start("newgidmap", &ids.gids)),
    ];
    for (name, helper) in helpers {
        let output = helper?.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(match said.is_empty() {
                true => format!("{name}: {}", output.status),
                false => said,
            }));
        }
    }
    Ok(())
}

/// Moves this process into a mount namespace of its own, in a user namespace in which it is who it was, and may mount until it
/// runs another program. Everybody else is nobody there. Only while the process has one thread.
pub fn mounts_of_own() -> io::Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    unshare(Namespaces {
        user: true,
        mounts: true,
        ..Namespaces::default()
    })?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))
}

/// Does `work` in a child that is root of a user namespace with these ids; true if it succeeded. Only while the process has
/// one thread.
pub fn as_root_of(ids: &IdMap, work: impl FnOnce() -> bool) -> io::Result<bool> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let namespaces = Namespaces {
        user: true,
        ..Namespaces::default()
    };
    match clone_into(namespaces)? {
        Fork::Child => {
            drop(write);
            // Nothing comes: the end of the parent's side says that the maps are written; a byte that they are not.
            let mut byte = [0u8];
            let mapped = matches!(rustix::io::read(&read, &mut byte), Ok(0));
            let done = mapped && become_root().is_ok() && work();
            exit_now(i32::from(!done))
        }
        Fork::Parent(child) => {
            drop(read);
            let mapped = write_maps(child, ids);
            if mapped.is_err() {
                // The child ends either way.
                let _ = rustix::io::write(&write, b"!");
            }
            drop(write);
            let pid = crate::sys::proc::pid(child);
            let status = loop {
                match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other?,
                }
            };
            mapped?;
            Ok(status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
        }
    }
}

/// Removes a directory with everything in it as root of a user namespace: files of all ids that it maps. A process with
/// threads cannot fork; it has another `mica` do it.
pub fn remove_tree(directory: &std::path::Path) -> io::Result<()> {
    let failed = || io::Error::from(io::ErrorKind::PermissionDenied);
    let (ids, single) = plan();
    // Root may everything as it is; and a single id is the caller's own.
    if single.is_some() || rustix::process::geteuid().is_root() {
        return Err(failed());
    }
    let threads = super::procfs::own_threads()?;
    let done = if threads == 1 {
        as_root_of(&ids, || super::deep::remove(directory).is_ok())?
    } else {
        Command::new(OWN)
            .arg("container")
            .arg("remove-tree")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?
            .success()
    };
    if done || !directory.exists() {
        Ok(())
    } else {
        Err(failed())
    }
}

/// Takes the root ids of the user namespace this process is in.
pub fn become_root() -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_number() {
        let text = "a:100000:65536\n# c\nb:1:2\n1000:300000:10\na:bad:1\na:0:5\n";
        assert_eq!(
            subordinate(text, Some("a"), 1000),
            [(100_000, 65_536), (300_000, 10)]
        );
        assert_eq!(subordinate(text, None, 7), []);
    }
}
