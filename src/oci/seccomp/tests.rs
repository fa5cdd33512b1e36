use proptest::prelude::*;

use super::numbers::{Abi, Machine, X32_BIT, is_word};
use super::profile::Profile;
use super::program::Instruction;
use super::{Action, Comparison, Condition, Filter, Rule};

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

fn machine(name: &'static str, abi: Abi) -> Machine {
    let kernel = (6, 1);
    Machine { name, abi, kernel }
}

fn amd64() -> Machine {
    machine("amd64", Abi::X86_64)
}

/// What the kernel's interpreter does with the instructions that there are.
fn execute(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let (code, yes, no, k) = program[at];
        at += 1;
        let go = |holds: bool| usize::from(if holds { yes } else { no });
        match code {
            0x20 => {
                let from = k as usize;
                assert_eq!(from % 4, 0);
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x05 => at += k as usize,
            0x15 => at += go(accumulator == k),
            0x25 => at += go(accumulator > k),
            0x35 => at += go(accumulator >= k),
            0x54 => accumulator &= k,
            0x06 => return k,
            other => panic!("no such instruction: {other:#x}"),
        }
    }
}

fn holds(condition: &Condition, name: &str, arguments: [u64; 6]) -> bool {
    let mut argument = arguments[usize::from(condition.argument)];
    if is_word(name, condition.argument) && condition.value <= u64::from(u32::MAX) {
        argument &= u64::from(u32::MAX);
    }
    let value = condition.value;
    match condition.comparison {
        Comparison::Equal => argument == value,
        Comparison::NotEqual => argument != value,
        Comparison::Less => argument < value,
        Comparison::LessOrEqual => argument <= value,
        Comparison::Greater => argument > value,
        Comparison::GreaterOrEqual => argument >= value,
        Comparison::Masked(mask) => argument & mask == value & mask,
    }
}

/// The same by reading the rules one after the other.
fn model(filter: &Filter, abi: Abi, number: u32, arguments: [u64; 6]) -> Action {
    let mine = |rule: &&Rule| rule.names.iter().any(|n| abi.number(n) == Some(number));
    let rules: Vec<&Rule> = filter.rules.iter().filter(mine).collect();
    if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        return rule.action;
    }
    for rule in &rules {
        let name = rule.names.iter().find(|n| abi.number(n) == Some(number));
        let name = name.unwrap();
        let of = |conditions: &[Condition]| conditions.iter().all(|c| holds(c, name, arguments));
        if rule.alternatives().iter().any(|conditions| of(conditions)) {
            return rule.action;
        }
    }
    let named = filter.rules.iter().flat_map(|rule| &rule.names);
    let last = named.filter_map(|name| abi.number(name)).max();
    match last {
        Some(last) if number > last && !filter.default.lets_through() => ENOSYS,
        _ => filter.default,
    }
}

fn action_of(code: u32) -> Action {
    let all = [
        Action::Allow,
        Action::Log,
        Action::Trap,
        Action::KillThread,
        Action::KillProcess,
    ];
    let number = (code & 0xffff) as u16;
    let mut all = all
        .into_iter()
        .chain([Action::Errno(number), Action::Trace(number)]);
    all.find(|action| action.code() == code).unwrap()
}

fn default_filter(machine: Machine, capabilities: &[&str]) -> Filter {
    let capabilities: Vec<String> = capabilities.iter().map(|&c| c.to_owned()).collect();
    let filter = Profile::default().resolve(&machine, &capabilities);
    filter.unwrap().unwrap()
}

/// The answer of the default profile to a call with these first arguments.
fn answer(capabilities: &[&str], abi: Abi, name: &str, arguments: [u64; 2]) -> Action {
    let filter = default_filter(amd64(), capabilities);
    let program = filter.program().unwrap();
    let [first, second] = arguments;
    let number = abi.number(name).unwrap_or_else(|| panic!("no {name}"));
    let code = execute(&program, abi.audit(), number, [first, second, 0, 0, 0, 0]);
    action_of(code)
}

#[test]
fn the_default_profile_denies_what_docker_s_does() {
    let plain = |name: &str| answer(&["CAP_SYS_CHROOT"], Abi::X86_64, name, [0, 0]);
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "userfaultfd",
        "kexec_load",
        "reboot",
        "open_by_handle_at",
        "init_module",
        "swapon",
        "ptrace_nothing",
        "clock_settime",
        "iopl",
        "mbind",
        "open_tree",
        "fsopen",
        "syslog",
        "pidfd_getfd",
        "kcmp",
        "vhangup",
        "quotactl",
        "acct",
        "uselib",
        "sysfs",
        "ustat",
        "nfsservctl",
    ] {
        if name != "ptrace_nothing" {
            assert_eq!(plain(name), EPERM, "{name}");
        }
    }
    assert_eq!(plain("clone3"), ENOSYS);
    for name in [
        "read",
        "execve",
        "ptrace",
        "chroot",
        "openat2",
        "mseal",
        "landlock_create_ruleset",
        "clone",
        "memfd_secret",
    ] {
        assert_eq!(plain(name), Action::Allow, "{name}");
    }
    assert_eq!(answer(&[], Abi::X86_64, "chroot", [0, 0]), EPERM);
    let admin = |name: &str| answer(&["CAP_SYS_ADMIN"], Abi::X86_64, name, [0x1000_0000, 0]);
    for name in ["mount", "clone", "clone3", "unshare", "bpf"] {
        assert_eq!(admin(name), Action::Allow, "{name}");
    }
}

#[test]
fn the_default_profile_looks_at_arguments() {
    let call = |name: &str, first: u64| answer(&[], Abi::X86_64, name, [first, 0]);
    for family in [1, 2, 10, 16, 17, 37, 39, 44] {
        assert_eq!(call("socket", family), Action::Allow, "family {family}");
    }
    for family in [38, 40, 46, 0x1_0000_0000 | 40, 0x1_0000_0000 | 38] {
        assert_eq!(call("socket", family), EPERM, "family {family:#x}");
    }
    for flag in [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        assert_eq!(call("clone", flag | 17), EPERM, "flag {flag:#x}");
    }
    // What pthread_create and fork ask for.
    assert_eq!(call("clone", 0x3d_0f00), Action::Allow);
    assert_eq!(call("clone", 0x0120_0011), Action::Allow);
    for kind in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff, u64::MAX] {
        assert_eq!(call("personality", kind), Action::Allow, "{kind:#x}");
    }
    assert_eq!(call("personality", 0x4_0000), EPERM);
}

#[test]
fn other_interfaces_of_the_machine_are_filtered_too() {
    for abi in [Abi::X86, Abi::X32] {
        for name in [
            "mount",
            "unshare",
            "keyctl",
            "bpf",
            "io_uring_setup",
            "userfaultfd",
        ] {
            assert_eq!(answer(&[], abi, name, [0, 0]), EPERM, "{abi:?} {name}");
        }
        assert_eq!(answer(&[], abi, "clone3", [0, 0]), ENOSYS, "{abi:?}");
        assert_eq!(
            answer(&[], abi, "clone", [0x1000_0000, 0]),
            EPERM,
            "{abi:?}"
        );
        for name in ["read", "execve", "ioctl", "openat", "futex"] {
            assert_eq!(
                answer(&[], abi, name, [0, 0]),
                Action::Allow,
                "{abi:?} {name}"
            );
        }
    }
    let program = default_filter(amd64(), &[]).program().unwrap();
    let run = |audit, number| action_of(execute(&program, audit, number, [0; 6]));
    // Newer than the profile, in each of them; and no interface of this machine at all.
    for (audit, number) in [
        (0xc000_003e, 470),
        (0xc000_003e, 5000),
        (0x4000_0003, 470),
        (0xc000_003e, X32_BIT | 600),
    ] {
        assert_eq!(run(audit, number), ENOSYS, "{number}");
    }
    assert_eq!(run(0xc000_003e, u32::MAX), ENOSYS);
    assert_eq!(run(Abi::Aarch64.audit(), 63), Action::KillProcess);
    let arm = default_filter(machine("arm64", Abi::Aarch64), &[]);
    let program = arm.program().unwrap();
    for (abi, name, wanted) in [
        (Abi::Aarch64, "mount", EPERM),
        (Abi::Aarch64, "openat", Action::Allow),
        (Abi::Arm, "set_tls", Action::Allow),
        (Abi::Arm, "cacheflush", Action::Allow),
        (Abi::Arm, "unshare", EPERM),
        (Abi::Arm, "open", Action::Allow),
    ] {
        let number = abi.number(name).unwrap();
        let got = action_of(execute(&program, abi.audit(), number, [0; 6]));
        assert_eq!(got, wanted, "{abi:?} {name}");
    }
    assert_eq!(
        action_of(execute(&program, Abi::Arm.audit(), 900, [0; 6])),
        ENOSYS
    );
}

/// Every name of the table is a call of some machine: a slip of the pen would allow nothing.
#[test]
fn every_name_of_the_default_profile_is_known() {
    let all = [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm, Abi::Riscv64];
    for call in &Profile::default().calls {
        for name in &call.rule.names {
            assert!(all.iter().any(|abi| abi.number(name).is_some()), "{name}");
        }
    }
}

#[test]
fn a_profile_s_mistakes_are_told() {
    for (text, wanted) in [
        ("", "Decoding seccomp profile failed"),
        ("[]", "Decoding seccomp profile failed"),
        (
            r#"{"defaultAction":"SCMP_ACT_FOO"}"#,
            "unknown action \"SCMP_ACT_FOO\"",
        ),
        (
            r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "unknown defaultAction",
        ),
        (
            r#"{"DefaultAction":"SCMP_ACT_ALLOW"}"#,
            "write it \"defaultAction\"",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            "both 'architectures' and 'archMap' are specified",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "both 'name' and 'names' are specified",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#,
            "errnoRet 70000 is out of range",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6 is out of range",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            "SCMP_ACT_NOTIFY is not supported",
        ),
    ] {
        let error = Profile::parse(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let two = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW"},{"names":["read"],"action":"SCMP_ACT_KILL"}]}"#;
    let filter = Profile::parse(two).unwrap().resolve(&amd64(), &[]).unwrap();
    assert!(
        filter
            .unwrap()
            .program()
            .unwrap_err()
            .contains("two answers for read")
    );
    assert!(
        Profile::parse("{}")
            .unwrap()
            .resolve(&amd64(), &[])
            .unwrap()
            .is_none()
    );
}

#[test]
fn includes_and_excludes_are_docker_s() {
    let of = |condition: &str, capabilities: &[&str]| {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","archMap":null,"syscalls":[{{"names":["mount"],"action":"SCMP_ACT_ALLOW",{condition}}}]}}"#
        );
        let capabilities: Vec<String> = capabilities.iter().map(|&c| c.to_owned()).collect();
        let filter = Profile::parse(&text)
            .unwrap()
            .resolve(&amd64(), &capabilities)
            .unwrap();
        !filter.unwrap().rules.is_empty()
    };
    assert!(of(r#""includes":{},"excludes":null"#, &[]));
    assert!(!of(r#""includes":{"caps":["CAP_A","CAP_B"]}"#, &["CAP_A"]));
    assert!(of(
        r#""includes":{"caps":["CAP_A","CAP_B"]}"#,
        &["CAP_A", "CAP_B"]
    ));
    assert!(!of(r#""excludes":{"caps":["CAP_A","CAP_B"]}"#, &["CAP_B"]));
    assert!(of(r#""includes":{"arches":["x86","amd64"]}"#, &[]));
    assert!(!of(r#""includes":{"arches":["arm64"]}"#, &[]));
    assert!(!of(r#""excludes":{"arches":["amd64"]}"#, &[]));
    assert!(of(r#""includes":{"minKernel":"4.8"}"#, &[]));
    assert!(!of(r#""includes":{"minKernel":"6.12"}"#, &[]));
    assert!(!of(r#""excludes":{"minKernel":"4.8"}"#, &[]));
}

/// The document is a profile as well, and means the same.
#[test]
fn a_filter_s_document_means_the_same() {
    let filter = default_filter(amd64(), &["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    let text = filter.document().to_string();
    let again = Profile::parse(&text)
        .unwrap()
        .resolve(&amd64(), &[])
        .unwrap();
    assert_eq!(again.unwrap(), filter);
}

/// The kernel's limit is 4096 instructions, and a container waits for each.
#[test]
fn the_default_program_is_short() {
    let length = default_filter(amd64(), &[]).program().unwrap().len();
    assert!(length < 1500, "{length} instructions");
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let value = prop_oneof![
        0u64..4,
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        Just(u64::MAX)
    ];
    let comparison = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
        any::<u64>().prop_map(Comparison::Masked),
    ];
    let condition = (0u8..3, comparison, value);
    let condition = condition.prop_map(|(argument, comparison, value)| Condition {
        argument,
        comparison,
        value,
    });
    proptest::collection::vec(condition, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The program says of every call what the rules say.
    #[test]
    fn a_program_does_what_its_rules_say(
        rules in proptest::collection::vec((0usize..8, conditions()), 0..12),
        calls in proptest::collection::vec((0usize..3, 0u32..600, 0usize..8, proptest::array::uniform6(prop_oneof![0u64..4, any::<u64>()])), 40),
        open in any::<bool>(),
    ) {
        let names = ["read", "socket", "ioctl", "mount", "clone", "io_setup", "statx", "listxattrat"];
        let rules = rules.into_iter().map(|(name, conditions)| Rule {
            names: vec![names[name].to_owned()],
            action: if open { EPERM } else { Action::Allow },
            conditions,
        });
        let filter = Filter {
            default: if open { Action::Allow } else { EPERM },
            abis: vec![Abi::X86_64, Abi::X86, Abi::X32],
            flags: 0,
            rules: rules.collect(),
        };
        let program = filter.program().unwrap();
        for (abi, number, name, arguments) in calls {
            let abi = filter.abis[abi];
            let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
            for number in [number | bit, abi.number(names[name]).unwrap()] {
                let got = action_of(execute(&program, abi.audit(), number, arguments));
                prop_assert_eq!(got, model(&filter, abi, number, arguments), "{:?} {}", abi, number);
            }
        }
    }
}
