//! What system calls a process in a container may make: profiles in docker's form, resolved for one container, as the OCI
//! runtime spec writes them and as the program that the kernel runs.
//!
//! A [`Profile`] speaks of names, capabilities, machines and kernels. [`Profile::resolve`] keeps what holds for one container;
//! [`Filter::document`] is that as `linux.seccomp` of a runtime bundle, [`Filter::program`] as instructions for the kernel.
//! Both come from the same rules, so that runc and mica refuse the same calls.
//!
//! Where libseccomp compares all 64 bits of an argument that the kernel takes as 32, a caller passes any comparison by setting
//! a bit that nobody looks at; such arguments are compared as what they are (see `numbers::is_word`).

mod default;
mod numbers;
mod profile;
mod program;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use numbers::Machine;
pub use profile::{Profile, ProfileError};
pub use program::Instruction;

use numbers::Abi;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made and logged.
    Log,
    /// It fails with this error.
    Errno(u16),
    /// The thread gets `SIGSYS`.
    Trap,
    /// A tracer decides, who is given this number; without one it fails with `ENOSYS`.
    Trace(u16),
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Action::Allow => "SCMP_ACT_ALLOW",
            Action::Log => "SCMP_ACT_LOG",
            Action::Errno(_) => "SCMP_ACT_ERRNO",
            Action::Trap => "SCMP_ACT_TRAP",
            Action::Trace(_) => "SCMP_ACT_TRACE",
            Action::KillThread => "SCMP_ACT_KILL_THREAD",
            Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
        }
    }

    fn number(self) -> Option<u16> {
        match self {
            Action::Errno(number) | Action::Trace(number) => Some(number),
            _ => None,
        }
    }

    /// Whether a call that nobody has thought of goes through.
    fn lets_through(self) -> bool {
        matches!(self, Action::Allow | Action::Log)
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of this mask.
    Masked(u64),
}

/// One condition: on the argument of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) argument: u8,
    pub(crate) comparison: Comparison,
    pub(crate) value: u64,
}

/// What holds for some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    /// All of them; with two on the same argument, any of them, as runc has it.
    pub(crate) conditions: Vec<Condition>,
}

impl Rule {
    /// The sets of conditions of which one must hold.
    fn alternatives(&self) -> Vec<Vec<Condition>> {
        let all = &self.conditions;
        let repeated = all.iter().enumerate().any(|(at, one)| {
            let before = all.iter().take(at);
            before
                .into_iter()
                .any(|other| other.argument == one.argument)
        });
        match repeated {
            true => all.iter().map(|one| vec![*one]).collect(),
            false => vec![all.clone()],
        }
    }
}

/// The rules of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub(crate) default: Action,
    /// The machine's own, and those its kernel runs as well.
    pub(crate) abis: Vec<Abi>,
    pub(crate) flags: u32,
    pub(crate) rules: Vec<Rule>,
}

impl Filter {
    /// What the kernel is told beside the program: `SECCOMP_FILTER_FLAG_*`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// `linux.seccomp` of the OCI runtime spec.
    pub fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("defaultAction".to_owned(), json!(self.default.name()));
        if let Some(number) = self.default.number() {
            document.insert("defaultErrnoRet".to_owned(), json!(number));
        }
        let abis: Vec<&str> = self.abis.iter().map(|abi| abi.name()).collect();
        document.insert("architectures".to_owned(), json!(abis));
        let calls = self.rules.iter().map(|rule| {
            let mut call = Map::new();
            call.insert("names".to_owned(), json!(rule.names));
            call.insert("action".to_owned(), json!(rule.action.name()));
            if let Some(number) = rule.action.number() {
                call.insert("errnoRet".to_owned(), json!(number));
            }
            if !rule.conditions.is_empty() {
                let conditions = rule.conditions.iter().map(condition);
                call.insert("args".to_owned(), conditions.collect());
            }
            Value::Object(call)
        });
        document.insert("syscalls".to_owned(), calls.collect());
        Value::Object(document)
    }
}

fn condition(condition: &Condition) -> Value {
    let (op, value, second) = match condition.comparison {
        Comparison::Equal => ("SCMP_CMP_EQ", condition.value, None),
        Comparison::NotEqual => ("SCMP_CMP_NE", condition.value, None),
        Comparison::Less => ("SCMP_CMP_LT", condition.value, None),
        Comparison::LessOrEqual => ("SCMP_CMP_LE", condition.value, None),
        Comparison::Greater => ("SCMP_CMP_GT", condition.value, None),
        Comparison::GreaterOrEqual => ("SCMP_CMP_GE", condition.value, None),
        Comparison::Masked(mask) => ("SCMP_CMP_MASKED_EQ", mask, Some(condition.value)),
    };
    let mut document = Map::new();
    document.insert("index".to_owned(), json!(condition.argument));
    document.insert("value".to_owned(), json!(value));
    if let Some(second) = second {
        document.insert("valueTwo".to_owned(), json!(second));
    }
    document.insert("op".to_owned(), json!(op));
    Value::Object(document)
}
