//! Profiles in docker's form: JSON with `defaultAction`, `archMap` and `syscalls` that hold for some capabilities, machines and
//! kernels only.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::numbers::{Abi, Machine};
use super::{Action, Comparison, Condition, Filter, Rule};

/// The longest profile that is read; docker's own has 20 KiB.
pub(super) const MAX_PROFILE: usize = 1 << 20;

/// `EPERM`, which a denied call fails with if nothing else is said.
const EPERM: u16 = 1;
/// The largest error number that the kernel passes on.
const MAX_ERRNO: u16 = 4095;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No JSON, or other than a profile's.
    #[error("Decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    /// Too long.
    #[error("the seccomp profile is longer than {MAX_PROFILE} bytes")]
    TooLong,
    /// Go reads keys in any case; what is read as another key here would be left out silently.
    #[error("seccomp profile: unknown key {found:?}, write it {known:?}")]
    Case {
        /// As it is written.
        found: String,
        /// As it should be.
        known: &'static str,
    },
    /// Two ways of saying one thing.
    #[error("both '{0}' and '{1}' are specified in the seccomp profile, use either '{0}' or '{1}'")]
    Both(&'static str, &'static str),
    /// A word that means nothing.
    #[error("seccomp profile: unknown {what} {text:?}")]
    Unknown {
        /// Of what kind.
        what: &'static str,
        /// The word.
        text: String,
    },
    /// Known, but not here.
    #[error("seccomp profile: {0} is not supported")]
    Unsupported(&'static str),
    /// A number out of its range.
    #[error("seccomp profile: {what} {number} is out of range")]
    Range {
        /// Which.
        what: &'static str,
        /// The number.
        number: u64,
    },
}

/// A profile as it is written.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) default: Option<Action>,
    /// `None`: the machine's own only.
    pub(super) abis: Abis,
    pub(super) flags: u32,
    pub(super) calls: Vec<Call>,
}

/// For which programs a profile speaks.
#[derive(Debug, Clone)]
pub(super) enum Abis {
    /// For the machine's own and what else its kernel runs.
    Family,
    /// For these, by name.
    Named(Vec<String>),
    /// By machine: its own and others.
    Map(Vec<(String, Vec<String>)>),
}

/// A rule and when it holds.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) rule: Rule,
    pub(super) includes: When,
    pub(super) excludes: When,
}

/// All of these, for `includes`; any of them, for `excludes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct When {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) caps: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) arches: Vec<String>,
    #[serde(default)]
    pub(super) min_kernel: Option<String>,
}

impl Profile {
    /// Reads docker's JSON.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        if text.len() > MAX_PROFILE {
            return Err(ProfileError::TooLong);
        }
        let value: serde_json::Value = serde_json::from_str(text)?;
        if !value.is_object() {
            let error = <serde_json::Error as serde::de::Error>::custom("not an object");
            return Err(error.into());
        }
        check_case(&value, &KEYS)?;
        let document: Document = serde_json::from_value(value)?;
        let default = match document.default_action.as_deref() {
            None | Some("") => None,
            Some(text) => Some(action(text, document.default_errno_ret)?),
        };
        if default.is_none() && !document.syscalls.is_empty() {
            return Err(ProfileError::Unknown {
                what: "defaultAction",
                text: String::new(),
            });
        }
        let abis = match (
            document.architectures.is_empty(),
            document.arch_map.is_empty(),
        ) {
            (false, false) => return Err(ProfileError::Both("architectures", "archMap")),
            (true, false) => Abis::Map(
                document
                    .arch_map
                    .into_iter()
                    .map(|map| (map.architecture, map.sub_architectures))
                    .collect(),
            ),
            (_, true) => Abis::Named(document.architectures),
        };
        let mut flags = 0;
        for flag in &document.flags {
            flags |= match flag.as_str() {
                // One thread, and it is alone.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
                text => {
                    return Err(ProfileError::Unknown {
                        what: "flag",
                        text: text.to_owned(),
                    });
                }
            };
        }
        let calls = document.syscalls.into_iter().map(call);
        Ok(Profile {
            default,
            abis,
            flags,
            calls: calls.collect::<Result<_, _>>()?,
        })
    }

    /// What holds on `machine` for a process with these capabilities (`CAP_CHOWN`); `None`: the profile says nothing at all.
    pub fn resolve(
        &self,
        machine: &Machine,
        capabilities: &[String],
    ) -> Result<Option<Filter>, ProfileError> {
        let Some(default) = self.default else {
            return Ok(None);
        };
        let mut rules = Vec::new();
        for call in &self.calls {
            if call.excludes.any(machine, capabilities)?
                || !call.includes.all(machine, capabilities)?
            {
                continue;
            }
            // Says nothing new; libseccomp refuses such a rule.
            if call.rule.action != default {
                rules.push(call.rule.clone());
            }
        }
        Ok(Some(Filter {
            default,
            abis: self.abis(machine)?,
            flags: self.flags,
            rules,
        }))
    }

    fn abis(&self, machine: &Machine) -> Result<Vec<Abi>, ProfileError> {
        let names: Vec<&String> = match &self.abis {
            Abis::Family => return Ok(machine.abi.family().to_vec()),
            Abis::Named(names) => names.iter().collect(),
            Abis::Map(maps) => {
                let own = maps.iter().find(|(name, _)| name == machine.abi.name());
                own.into_iter()
                    .flat_map(|(name, others)| [name].into_iter().chain(others))
                    .collect()
            }
        };
        // Its own always: a filter without would end whatever runs here.
        let mut abis = vec![machine.abi];
        for name in names {
            if !name.starts_with("SCMP_ARCH_") {
                return Err(ProfileError::Unknown {
                    what: "architecture",
                    text: name.clone(),
                });
            }
            let family = machine.abi.family().iter();
            let found = family.copied().find(|abi| abi.name() == name);
            // Those of other machines cannot run here.
            abis.extend(found.filter(|abi| *abi != machine.abi));
        }
        abis.dedup();
        Ok(abis)
    }
}

impl When {
    fn kernel(&self, machine: &Machine) -> Result<Option<bool>, ProfileError> {
        let Some(text) = &self.min_kernel else {
            return Ok(None);
        };
        let numbers = text.split_once('.').and_then(|(first, second)| {
            let numbers = (u32::from_str(first).ok()?, u32::from_str(second).ok()?);
            (!second.starts_with('+') && !first.starts_with('+')).then_some(numbers)
        });
        match numbers {
            Some(numbers) => Ok(Some(machine.kernel >= numbers)),
            None => Err(ProfileError::Unknown {
                what: "minKernel",
                text: text.clone(),
            }),
        }
    }

    fn all(&self, machine: &Machine, capabilities: &[String]) -> Result<bool, ProfileError> {
        let arches = &self.arches;
        Ok(
            (arches.is_empty() || arches.iter().any(|a| a == machine.name))
                && self.caps.iter().all(|cap| capabilities.contains(cap))
                && self.kernel(machine)?.unwrap_or(true),
        )
    }

    fn any(&self, machine: &Machine, capabilities: &[String]) -> Result<bool, ProfileError> {
        Ok(self.arches.iter().any(|arch| arch == machine.name)
            || self.caps.iter().any(|cap| capabilities.contains(cap))
            || self.kernel(machine)?.unwrap_or(false))
    }
}

/// What Go makes of `null`.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    default_action: Option<String>,
    #[serde(default)]
    default_errno_ret: Option<u64>,
    #[serde(default, deserialize_with = "or_null")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    arch_map: Vec<DocumentMap>,
    #[serde(default, deserialize_with = "or_null")]
    flags: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    syscalls: Vec<DocumentCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentMap {
    architecture: String,
    #[serde(default, deserialize_with = "or_null")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentCall {
    #[serde(default, deserialize_with = "or_null")]
    name: String,
    #[serde(default, deserialize_with = "or_null")]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u64>,
    #[serde(default, deserialize_with = "or_null")]
    args: Vec<DocumentCondition>,
    #[serde(default, deserialize_with = "or_null")]
    includes: When,
    #[serde(default, deserialize_with = "or_null")]
    excludes: When,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentCondition {
    index: u64,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Every key that means something, at any depth.
const KEYS: [&str; 22] = [
    "defaultAction",
    "defaultErrnoRet",
    "architectures",
    "archMap",
    "flags",
    "syscalls",
    "architecture",
    "subArchitectures",
    "name",
    "names",
    "action",
    "errnoRet",
    "args",
    "includes",
    "excludes",
    "index",
    "value",
    "valueTwo",
    "op",
    "caps",
    "arches",
    "minKernel",
];

fn check_case(value: &serde_json::Value, keys: &[&'static str]) -> Result<(), ProfileError> {
    match value {
        serde_json::Value::Object(map) => {
            for (found, value) in map {
                if let Some(known) = keys.iter().find(|key| key.eq_ignore_ascii_case(found))
                    && known != found
                {
                    return Err(ProfileError::Case {
                        found: found.clone(),
                        known,
                    });
                }
                check_case(value, keys)?;
            }
            Ok(())
        }
        serde_json::Value::Array(values) => {
            values.iter().try_for_each(|value| check_case(value, keys))
        }
        _ => Ok(()),
    }
}

fn call(call: DocumentCall) -> Result<Call, ProfileError> {
    let names = match (call.name.is_empty(), call.names.is_empty()) {
        (false, false) => return Err(ProfileError::Both("name", "names")),
        (false, true) => vec![call.name],
        (true, _) => call.names,
    };
    let conditions = call.args.into_iter().map(condition);
    Ok(Call {
        rule: Rule {
            names,
            action: action(&call.action, call.errno_ret)?,
            conditions: conditions.collect::<Result<_, _>>()?,
        },
        includes: call.includes,
        excludes: call.excludes,
    })
}

fn action(text: &str, number: Option<u64>) -> Result<Action, ProfileError> {
    let number = match number {
        None => EPERM,
        Some(number) => u16::try_from(number)
            .ok()
            .filter(|number| *number <= MAX_ERRNO)
            .ok_or(ProfileError::Range {
                what: "errnoRet",
                number,
            })?,
    };
    Ok(match text {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(number),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Unsupported("SCMP_ACT_NOTIFY")),
        text => {
            return Err(ProfileError::Unknown {
                what: "action",
                text: text.to_owned(),
            });
        }
    })
}

fn condition(condition: DocumentCondition) -> Result<Condition, ProfileError> {
    let argument = u8::try_from(condition.index)
        .ok()
        .filter(|argument| *argument < 6);
    let argument = argument.ok_or(ProfileError::Range {
        what: "argument",
        number: condition.index,
    })?;
    let mut value = condition.value;
    let comparison = match condition.op.as_str() {
        "SCMP_CMP_EQ" => Comparison::Equal,
        "SCMP_CMP_NE" => Comparison::NotEqual,
        "SCMP_CMP_LT" => Comparison::Less,
        "SCMP_CMP_LE" => Comparison::LessOrEqual,
        "SCMP_CMP_GT" => Comparison::Greater,
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual,
        "SCMP_CMP_MASKED_EQ" => {
            let mask = value;
            value = condition.value_two;
            Comparison::Masked(mask)
        }
        text => {
            return Err(ProfileError::Unknown {
                what: "operator",
                text: text.to_owned(),
            });
        }
    };
    Ok(Condition {
        argument,
        comparison,
        value,
    })
}
