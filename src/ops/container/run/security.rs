//! What a container's process may do: capabilities and system calls, by docker's options and in its words.

use std::fs::File;
use std::io::Read as _;

use crate::oci::seccomp::{Filter, Instruction, Machine, Profile};
use crate::ops::container::run::{CAPABILITIES, RunError};
use crate::store::containers::{ContainerRecord, Seccomp, Security};

/// All capabilities there are, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The most that is read of a profile's file.
const MAX_FILE: u64 = 1 << 20;

/// The name of a capability by its number, `CAP_CHOWN`.
pub fn capability_name(number: u32) -> Option<String> {
    let name = ALL.get(usize::try_from(number).ok()?)?;
    Some(format!("CAP_{name}"))
}

/// The capabilities of a process with `--cap-add` and `--cap-drop`, by number. `available` says which ones there are here.
pub(in crate::ops) fn capabilities(
    added: &[String],
    dropped: &[String],
    available: impl Fn(u32) -> bool,
) -> Result<Vec<u32>, RunError> {
    // `None` is ALL.
    let normal = |option: &str, names: &[String]| -> Result<Vec<Option<u32>>, RunError> {
        let refused = |text: String| RunError::Refused(format!("invalid {option}: {text}"));
        let numbers = names.iter().map(|name| {
            let upper = name.to_uppercase();
            if upper == "ALL" {
                return Ok(None);
            }
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            let found = (0u32..).zip(ALL).find(|(_, name)| *name == short);
            match found {
                None => Err(refused(format!("unknown capability: \"CAP_{short}\""))),
                Some((number, _)) if !available(number) => Err(refused(format!(
                    "capability not supported by your kernel or not available in the current environment: \"CAP_{short}\""
                ))),
                Some((number, _)) => Ok(Some(number)),
            }
        });
        numbers.collect()
    };
    let added = normal("CapAdd", added)?;
    let dropped = normal("CapDrop", dropped)?;
    let defaults = CAPABILITIES.iter().map(|(_, number)| *number);
    let mut kept: Vec<u32> = if added.contains(&None) {
        (0u32..).zip(ALL).map(|(number, _)| number).collect()
    } else if dropped.contains(&None) {
        added.iter().copied().flatten().collect()
    } else {
        let mut kept: Vec<u32> = defaults
            .filter(|number| !dropped.contains(&Some(*number)))
            .collect();
        kept.extend(added.iter().copied().flatten());
        kept
    };
    if added.contains(&None) {
        kept.retain(|number| available(*number) && !dropped.contains(&Some(*number)));
    }
    kept.sort_unstable();
    kept.dedup();
    Ok(kept)
}

/// Whether a process can have a capability here. In a user namespace of its own it has all that the kernel knows.
pub(in crate::ops) fn is_available(number: u32, own_users: bool) -> bool {
    let Some(bit) = 1u64.checked_shl(number) else {
        return false;
    };
    let set = rustix::thread::CapabilitySet::from_bits_retain(bit);
    // An error: the kernel has none of that number.
    rustix::thread::capability_is_in_bounding_set(set).is_ok_and(|held| held || own_users)
}

/// Reads `--security-opt`s, and the files they name, in docker's words.
pub fn parse_options(options: &[String]) -> Result<Security, RunError> {
    let mut security = Security::default();
    for option in options {
        let invalid = || RunError::Usage(format!("invalid --security-opt: {option:?}"));
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None if option == "no-new-privileges" => (option.as_str(), "true"),
            None => return Err(invalid()),
        };
        if value.is_empty() {
            return Err(invalid());
        }
        let refused = || RunError::Refused(format!("invalid --security-opt 2: {option:?}"));
        match (key, value) {
            ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", file) => security.seccomp = Seccomp::Profile(read(file)?),
            ("no-new-privileges", "1" | "t" | "T" | "TRUE" | "true" | "True") => {
                security.new_privileges = false;
            }
            ("no-new-privileges", "0" | "f" | "F" | "FALSE" | "false" | "False") => {
                security.new_privileges = true;
            }
            // There is neither here, so there is nothing to take away.
            ("label", "disable") | ("apparmor", "unconfined") => {}
            ("label" | "apparmor" | "systempaths" | "writable-cgroups", _) => {
                return Err(RunError::Refused(format!(
                    "--security-opt {option} is not supported: containers have no label of SELinux, no profile of AppArmor, and always docker's masked paths"
                )));
            }
            _ => return Err(refused()),
        }
    }
    Ok(security)
}

/// A profile's file, looked through.
fn read(path: &str) -> Result<String, RunError> {
    let failed =
        |why: &dyn std::fmt::Display| format!("opening seccomp profile ({path}) failed: {why}");
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| RunError::Usage(failed(&error)))?;
    let profile = Profile::parse(&text).map_err(|error| RunError::Refused(error.to_string()))?;
    // Whatever it says for other capabilities comes out when a container has them.
    if let Some(machine) = machine() {
        let program = |filter: Filter| filter.program().map(drop);
        let resolved = profile.resolve(&machine, &[]);
        let resolved = resolved.map_err(|error| RunError::Refused(error.to_string()))?;
        resolved
            .map_or(Ok(()), program)
            .map_err(RunError::Refused)?;
    }
    Ok(text)
}

/// What the kernel is given to hold a process to its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The instructions.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// The filter of a container; `None` if it has none.
pub fn program(record: &ContainerRecord) -> Result<Option<Program>, String> {
    let names = record.capabilities.iter();
    let names: Vec<String> = names.filter_map(|n| capability_name(*n)).collect();
    let Some(filter) = filter(&record.security.seccomp, &names)? else {
        return Ok(None);
    };
    Ok(Some(Program {
        instructions: filter.program()?,
        flags: filter.flags(),
    }))
}

/// The filter for a process with these capabilities (`CAP_CHOWN`).
pub fn filter(seccomp: &Seccomp, capabilities: &[String]) -> Result<Option<Filter>, String> {
    let profile = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => Profile::default(),
        Seccomp::Profile(text) => Profile::parse(text).map_err(|error| error.to_string())?,
    };
    let Some(machine) = machine() else {
        return Err(format!(
            "there is no table of system calls for {}: run without a filter (--security-opt seccomp=unconfined)",
            std::env::consts::ARCH
        ));
    };
    let filter = profile.resolve(&machine, capabilities);
    filter.map_err(|error| error.to_string())
}

fn machine() -> Option<Machine> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Machine::this((number(), number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(added: &[&str], dropped: &[&str]) -> Vec<u32> {
        let own = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        capabilities(&own(added), &own(dropped), |number| number < 40).unwrap()
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_by_docker() {
        let defaults = kept(&[], &[]);
        assert_eq!(defaults.len(), 13);
        assert!(!defaults.contains(&13), "the network is the host's");
        assert!(kept(&["net_raw"], &[]).contains(&13));
        assert_eq!(kept(&[], &["cap_chown", "MKNOD"]).len(), 11);
        assert_eq!(kept(&[], &["ALL"]), [] as [u32; 0]);
        assert_eq!(kept(&["CAP_SYS_TIME"], &["all"]), [25]);
        assert_eq!(kept(&["ALL"], &[]).len(), 40);
        assert_eq!(kept(&["ALL"], &["SYS_ADMIN"]).len(), 39);
        // Added wins.
        assert!(kept(&["CHOWN"], &["CHOWN"]).contains(&0));
        for (added, dropped, text) in [
            (
                "nope",
                "",
                "invalid CapAdd: unknown capability: \"CAP_NOPE\"",
            ),
            (
                "",
                "a-b",
                "invalid CapDrop: unknown capability: \"CAP_A-B\"",
            ),
            (
                "CHECKPOINT_RESTORE",
                "",
                "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \"CAP_CHECKPOINT_RESTORE\"",
            ),
        ] {
            let own = |name: &str| match name {
                "" => Vec::new(),
                name => vec![name.to_owned()],
            };
            let error = capabilities(&own(added), &own(dropped), |number| number < 40);
            assert_eq!(error.unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn security_options_in_docker_s_words() {
        let parse = |text: &str| parse_options(&[text.to_owned()]);
        assert_eq!(
            parse("seccomp=unconfined").unwrap().seccomp,
            Seccomp::Unconfined
        );
        assert_eq!(
            parse("seccomp:unconfined").unwrap().seccomp,
            Seccomp::Unconfined
        );
        assert_eq!(parse("seccomp=builtin").unwrap(), Security::default());
        assert!(!parse("no-new-privileges").unwrap().new_privileges);
        assert!(!parse("no-new-privileges=true").unwrap().new_privileges);
        assert!(parse("no-new-privileges:false").unwrap().new_privileges);
        for (option, text) in [
            ("nonsense", "invalid --security-opt: \"nonsense\""),
            ("seccomp=", "invalid --security-opt: \"seccomp=\""),
            ("a=b", "invalid --security-opt 2: \"a=b\""),
            (
                "no-new-privileges=maybe",
                "invalid --security-opt 2: \"no-new-privileges=maybe\"",
            ),
            (
                "seccomp=/no/such",
                "opening seccomp profile (/no/such) failed: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(parse(option).unwrap_err().to_string(), text);
        }
    }
}
