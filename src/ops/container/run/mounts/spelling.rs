//! How mounts are written on the command line: fields with quotes, relative paths, options of a tmpfs.

use std::path::PathBuf;

use crate::ops::container::run::RunError;
use crate::ops::container::run::mounts::size_of;

/// docker's words for what goes from one side of a bind to the other when something is mounted below it later. All are taken; it
/// is always `rprivate`, whose container sees nothing that was not there when it started.
pub(super) fn is_propagation(word: &str) -> bool {
    let word = word.strip_prefix('r').unwrap_or(word);
    matches!(word, "private" | "slave" | "shared")
}

/// A path of the host as seen from here.
pub(super) fn absolute(path: &str) -> Result<PathBuf, RunError> {
    let here = std::path::absolute(path).map_err(RunError::io("looking at the directory"))?;
    // As docker's client does it: by the text.
    let mut clean = PathBuf::new();
    for part in here.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    Ok(clean)
}

/// The fields of a line of comma-separated values: a field in quotes holds commas, and quotes twice.
pub(super) fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(format!("bare \" in non-quoted field {field}"));
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut left = quoted;
        let after = loop {
            let Some((text, behind)) = left.split_once('"') else {
                return Err("extraneous or missing \" in quoted field".to_owned());
            };
            field.push_str(text);
            match behind.strip_prefix('"') {
                Some(behind) => {
                    field.push('"');
                    left = behind;
                }
                None => break behind,
            }
        };
        fields.push(field);
        match (after, after.strip_prefix(',')) {
            ("", _) => return Ok(fields),
            (_, Some(after)) => rest = after,
            (_, None) => return Err("extraneous or missing \" in quoted field".to_owned()),
        }
    }
}

/// The options of a `--tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tmpfs {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Of its root.
    pub(super) mode: Option<u32>,
    /// Cannot be written to.
    pub(super) read_only: bool,
    /// `KEY=VALUE` for the kernel, and flags that take away a limit or set how times are kept.
    pub(super) options: Vec<String>,
}

impl Tmpfs {
    pub(super) fn parse(text: &str) -> Result<Tmpfs, String> {
        let mut tmpfs = Tmpfs::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let wrong = || option.to_owned();
            match option.split_once('=') {
                // A share of the memory is the kernel's to work out.
                Some(("size", value)) if value.ends_with('%') => {
                    let share = value.trim_end_matches('%').parse::<u32>();
                    share.map_err(|_| wrong())?;
                    tmpfs.options.push(option.to_owned());
                }
                Some(("size", value)) => tmpfs.size = Some(size_of(value).ok_or_else(wrong)?),
                Some(("mode", value)) => {
                    let bits = u32::from_str_radix(value, 8).ok();
                    tmpfs.mode = Some(bits.filter(|bits| *bits <= 0o7777).ok_or_else(wrong)?);
                }
                Some(("uid" | "gid", value)) => {
                    value.parse::<u32>().map_err(|_| wrong())?;
                    tmpfs.options.push(option.to_owned());
                }
                Some((key @ ("nr_inodes" | "nr_blocks"), value)) => {
                    let number = size_of(value).ok_or_else(wrong)?;
                    tmpfs.options.push(format!("{key}={number}"));
                }
                Some(("huge", "never" | "always" | "within_size" | "advise"))
                | Some(("mpol", _)) => {
                    tmpfs.options.push(option.to_owned());
                }
                None if matches!(option, "ro" | "rw") => tmpfs.read_only = option == "ro",
                // The defaults, and what means nothing for memory.
                None if matches!(option, "defaults" | "sync" | "async" | "dirsync") => {}
                None if matches!(option, "nosuid" | "nodev" | "noexec") => {
                    let other = option.trim_start_matches("no");
                    tmpfs.options.retain(|set| set != other);
                }
                None if FLAGS.contains(&option) => tmpfs.options.push(option.to_owned()),
                _ => return Err(wrong()),
            }
        }
        Ok(tmpfs)
    }
}

/// Flags that differ from the defaults.
/// Not `dev`: nothing but `nodev` stands between a container's root and the machine's devices.
const FLAGS: [&str; 10] = [
    "suid",
    "exec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "strictatime",
    "inode32",
    "inode64",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_hold_commas_and_quotes() {
        let table: [(&str, &[&str]); 5] = [
            ("a,b=c,", &["a", "b=c", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("a,\"\"", &["a", ""]),
            ("", &[""]),
        ];
        for (line, expected) in table {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in ["a\"b", "\"a", "\"a\"b", "\"a\"\"", "x,\""] {
            assert!(fields(line).is_err(), "{line}");
        }
    }

    #[test]
    fn options_of_a_tmpfs() {
        let tmpfs =
            Tmpfs::parse("size=1m,mode=700,uid=5,gid=6,nr_inodes=2k,size=10%,exec,ro").unwrap();
        assert_eq!(
            (tmpfs.size, tmpfs.mode, tmpfs.read_only),
            (Some(1 << 20), Some(0o700), true)
        );
        assert_eq!(
            tmpfs.options,
            ["uid=5", "gid=6", "nr_inodes=2048", "size=10%", "exec"]
        );
        for text in [
            "uid=x",
            "uid",
            "mode=9",
            "mode=77777",
            "size=x%",
            "huge=no",
            "x",
            "nr_inodes=-1",
            "remount",
            "source=/x",
            // Devices: nothing else keeps a container from the machine's.
            "dev",
        ] {
            assert!(Tmpfs::parse(text).is_err(), "{text}");
        }
    }
}
