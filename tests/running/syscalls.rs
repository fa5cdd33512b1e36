//! The system calls that a container may make: a program makes every one of them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::rootless::user;
use super::*;

const USER: u32 = 54_336;

/// What docker's default profile denies on x86_64. `socket` is asked for the family -1, which is none.
const DENIED: &str = "
    _sysctl acct add_key afs_syscall bpf clock_settime clone create_module delete_module fanotify_init finit_module
    fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module io_uring_enter io_uring_register
    io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree
    perf_event_open pidfd_getfd pivot_root process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key
    security set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday socket swapoff swapon sysfs syslog
    tuxcall umount2 unshare uselib userfaultfd ustat vhangup vserver
";

/// Newer than the profile, or without a number of their own: as if there were no such call.
const MISSING: &str = "clone3 open_tree_attr file_getattr file_setattr";

/// The probe for 64 or 32 bits.
pub(crate) fn probe(bits: u32) -> Vec<u8> {
    static BOTH: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        ["-m64", "-m32"].map(|bits| {
            let out = dir.path().join(bits);
            let built = Command::new("gcc")
                .args([bits, "-O1", "-static", "-nostdlib", "-ffreestanding"])
                .args(["-fno-stack-protector", "-fno-pic", "-no-pie", "-o"])
                .arg(&out)
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/syscalls/probe.c"
                ))
                .status()
                .expect("gcc: contrib/install-packages");
            assert!(built.success(), "gcc {bits}");
            fs::read(out).unwrap()
        })
    });
    both[usize::from(bits == 32)].clone()
}

pub(crate) fn probes(name: &str) -> ImageBuilder {
    image(name).layer(|l| {
        l.file("bin/probe", probe(64))
            .mode(0o755)
            .file("bin/probe32", probe(32))
            .mode(0o755)
    })
}

/// What came of each call, by number.
pub(crate) fn outcomes(output: &str) -> BTreeMap<u32, i32> {
    let lines = output.lines().map(|line| {
        let (number, result) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), result.parse().unwrap())
    });
    lines.collect()
}

/// Only what the profile denies is other than without a profile.
#[track_caller]
fn check(filtered: &str, free: &BTreeMap<u32, i32>) {
    let filtered = outcomes(filtered);
    assert!(filtered.len() > 460, "{filtered:?}");
    let names =
        |list: &str| -> Vec<String> { list.split_whitespace().map(str::to_owned).collect() };
    let (denied, missing) = (names(DENIED), names(MISSING));
    let mut wrong = Vec::new();
    for (number, result) in &filtered {
        let name = usize::try_from(*number)
            .ok()
            .and_then(::syscalls::x86_64::Sysno::new);
        let name = name
            .map(|sysno| sysno.name().to_owned())
            .unwrap_or_default();
        let wanted = match () {
            () if denied.contains(&name) => libc::EPERM,
            () if missing.contains(&name) || *number > 469 => libc::ENOSYS,
            // No call has this number; which error is all the same.
            () if name.is_empty() => *result,
            // Depends on who is there to be asked.
            () if name == "kill" && *result != libc::EPERM => *result,
            () => free.get(number).copied().unwrap_or(i32::MIN),
        };
        if *result != wanted {
            wrong.push(format!("{number} {name}: {result}, not {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn one_call(s: &Sandbox, options: &str, program: &str, call: &str) -> i32 {
    let out = shown(s, &format!("run --rm {options} probe:1 {program} {call}"));
    out.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn root_every_system_call_that_docker_denies_is_denied() {
    let s = sandbox();
    s.load(&probes("probe:1"));
    let free = shown(
        &s,
        "run --rm --security-opt seccomp=unconfined probe:1 probe",
    );
    let free = outcomes(&free);
    check(&shown(&s, "run --rm probe:1 probe"), &free);
    check(&shown(&s, "run --rm --init probe:1 probe"), &free);
    shown(&s, "run -d --name up probe:1 sleep 600");
    check(&shown(&s, "exec up probe"), &free);
    shown(&s, "rm -f up");
    // Without no_new_privs it is installed before capabilities go.
    let option = "--security-opt no-new-privileges=false";
    let line = |more: &str| format!("run --rm {option} {more} probe:1 probe");
    let free = outcomes(&shown(&s, &line("--security-opt seccomp=unconfined")));
    check(&shown(&s, &line("")), &free);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn fuse_rootless_every_system_call_that_docker_denies_is_denied() {
    let s = user(USER, &format!("{USER}:700000:65536\n"));
    s.load(&probes("probe:1"));
    let free = shown(
        &s,
        "run --rm --security-opt seccomp=unconfined probe:1 probe",
    );
    let free = outcomes(&free);
    check(&shown(&s, "run --rm probe:1 probe"), &free);
    shown(&s, "run -d --name up probe:1 sleep 600");
    check(&shown(&s, "exec up probe"), &free);
    shown(&s, "rm -f up");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn root_arguments_and_other_interfaces_are_looked_at() {
    let s = sandbox();
    s.load(&probes("probe:1"));
    let table = [
        // socket: local, AF_ALG, AF_VSOCK, and that with a bit that the kernel does not look at.
        ("probe", "41 1 1 0", 0),
        ("probe", "41 38 5 0", libc::EPERM),
        ("probe", "41 40 1 0", libc::EPERM),
        ("probe", "41 4294967336 1 0", libc::EPERM),
        // clone and unshare with a user namespace; personality.
        ("probe", "56 268435473 0 0 0 0", libc::EPERM),
        ("probe", "272 268435456", libc::EPERM),
        ("probe", "135 262144", libc::EPERM),
        ("probe", "135 0", 0),
        // The same by numbers of 32 bits: unshare, keyctl, io_uring_setup, mount, clone3, and socket itself.
        ("probe32", "310 268435456", libc::EPERM),
        ("probe32", "288 0", libc::EPERM),
        ("probe32", "425 1 0", libc::EPERM),
        ("probe32", "21 0 0 0 0 0", libc::EPERM),
        ("probe32", "435 0 0", libc::ENOSYS),
        ("probe32", "359 40 1 0", libc::EPERM),
        ("probe32", "20", 0),
        // And by those of x32: getpid, unshare. Kernels without x32 have neither.
        ("probe", "1073742096 268435456", libc::EPERM),
        // Newer than everything.
        ("probe", "5000", libc::ENOSYS),
    ];
    for (program, call, wanted) in table {
        assert_eq!(one_call(&s, "", program, call), wanted, "{program} {call}");
    }
    // What a capability opens.
    let mount = "165 0 0 0 0 0";
    assert_eq!(one_call(&s, "", "probe", mount), libc::EPERM);
    assert_eq!(
        one_call(&s, "--cap-add SYS_ADMIN", "probe", mount),
        libc::EFAULT
    );
    assert_eq!(
        one_call(&s, "--cap-drop SYS_CHROOT", "probe", "161 0"),
        libc::EPERM
    );
    assert_eq!(one_call(&s, "", "probe", "161 0"), libc::EFAULT);
}

/// docker's own file holds for one container, its processes and its next start; without a filter there is none.
#[test]
#[cfg(target_arch = "x86_64")]
fn root_a_profile_of_docker_s_form_is_used() {
    let s = sandbox();
    s.load(&probes("probe:1"));
    let file = s.path("profile.json");
    fs::write(
        &file,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],
            "syscalls":[
              {"names":["mkdir","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":28,"args":[],"includes":{},"excludes":{}},
              {"name":"getpriority","action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"valueTwo":0,"op":"SCMP_CMP_EQ"}]},
              {"names":["chroot"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_CHROOT"]}}]}"#,
    )
    .unwrap();
    let option = format!("--security-opt seccomp={}", file.display());
    assert_eq!(one_call(&s, &option, "probe", "83 0 0"), 28);
    assert_eq!(one_call(&s, &option, "probe32", "39 0 0"), 28);
    assert_eq!(one_call(&s, &option, "probe", "140 1 0"), libc::EPERM);
    assert_eq!(one_call(&s, &option, "probe", "140 0 0"), 0);
    assert_eq!(one_call(&s, &option, "probe", "161 0"), libc::EFAULT);
    let without = format!("{option} --cap-drop SYS_CHROOT");
    assert_eq!(one_call(&s, &without, "probe", "161 0"), libc::EPERM);
    // What is not denied goes through, and exec and start have the container's own profile. The file has gone meanwhile.
    shown(&s, &format!("run -d --name up {option} probe:1 sleep 600"));
    fs::remove_file(&file).unwrap();
    assert_eq!(shown(&s, "exec up probe 83 0 0"), "83 28\n");
    assert_eq!(shown(&s, "exec up probe 272 0"), "272 0\n");
    shown(&s, "kill up");
    wait_until("it has ended", || !shown(&s, "ps").contains("up"));
    shown(&s, "start up");
    assert_eq!(shown(&s, "exec up probe 83 0 0"), "83 28\n");
    shown(&s, "rm -f up");
    let open = "--security-opt seccomp=unconfined";
    assert_eq!(one_call(&s, open, "probe", "272 268435456"), 0);
    let status = shown(
        &s,
        &format!("run --rm {open} probe:1 cat /proc/self/status"),
    );
    assert!(status.contains("Seccomp:\t0") && status.contains("NoNewPrivs:\t1"));
    // A profile that lets nothing through: the container does not run, and nothing is left.
    fs::write(&file, r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap();
    let run = mica(&s, &format!("run --rm {option} probe:1 probe"));
    assert_ne!(run.status.code(), Some(0), "{}", run.describe());
    fs::write(&file, "{ nonsense").unwrap();
    let run = mica(&s, &format!("run --rm {option} probe:1 probe")).code(125);
    assert!(
        run.stderr().contains("Decoding seccomp profile failed"),
        "{}",
        run.describe()
    );
    assert!(left(&s).is_empty());
}

#[test]
fn root_the_small_init_has_no_more_rights_than_its_program() {
    let s = sandbox();
    let fields = "^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):";
    let script =
        format!("grep -E '{fields}' /proc/1/status; echo ==; grep -E '{fields}' /proc/self/status");
    for options in [
        "--init",
        "--init -u bob",
        "--init --cap-add ALL --security-opt no-new-privileges=false",
    ] {
        let both = shown(&s, &format!("run --rm {options} app:1 -- {script}"));
        let (first, own) = both.split_once("==\n").unwrap();
        assert_eq!(first, own, "{options}");
        assert!(own.contains("Seccomp:\t2"), "{own}");
    }
}

#[test]
fn root_capabilities_and_privileges_by_docker_s_options() {
    let s = sandbox();
    let bounding = |options: &str| {
        let status = shown(
            &s,
            &format!("run --rm {options} app:1 grep CapBnd /proc/self/status"),
        );
        let number = status.split_whitespace().nth(1).unwrap().to_owned();
        u64::from_str_radix(&number, 16).unwrap()
    };
    let default = bounding("");
    assert_eq!(default, 0xa804_05fb, "docker's without NET_RAW");
    assert_eq!(bounding("--cap-add net_raw"), 0xa804_25fb);
    assert_eq!(bounding("--cap-drop ALL --cap-add CAP_CHOWN"), 1);
    assert_eq!(
        bounding("--cap-add ALL --cap-drop SYS_ADMIN") & (1 << 21),
        0
    );
    for (options, words) in [
        (
            "--cap-add NOPE",
            "invalid CapAdd: unknown capability: \"CAP_NOPE\"",
        ),
        (
            "--cap-drop NOPE",
            "invalid CapDrop: unknown capability: \"CAP_NOPE\"",
        ),
        ("--privileged", "--privileged is not supported"),
        (
            "--security-opt apparmor=x",
            "--security-opt apparmor=x is not supported",
        ),
        ("--security-opt x", "invalid --security-opt: \"x\""),
    ] {
        let run = mica(&s, &format!("run --rm {options} app:1 true")).code(125);
        assert!(run.stderr().contains(words), "{}", run.describe());
    }
    // A set-user-id program has its effect only where that is asked for.
    s.load(&image("suid:1").layer(|l| l.file("bin/suid", probe(64)).mode(0o4755)));
    // setuid(0)
    let id = |options: &str| shown(&s, &format!("run --rm -u bob {options} suid:1 suid 105 0"));
    assert_eq!(id(""), "105 1\n");
    assert_eq!(id("--security-opt no-new-privileges"), "105 1\n");
    assert_eq!(id("--security-opt no-new-privileges=false"), "105 0\n");
}

/// `ping` of most distributions wants a capability that a container on the host's network does not have by itself.
#[test]
fn root_a_file_that_wants_a_capability_says_which_option_gives_it() {
    let s = sandbox();
    // Version 2, effective, permitted: CAP_NET_RAW.
    let mut value = vec![0u8; 20];
    value[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
    s.load(&image("ping:1").layer(|l| {
        let program = fs::read("/bin/busybox").unwrap();
        l.file("bin/ping", program)
            .mode(0o755)
            .xattr("security.capability", value)
    }));
    for command in ["run --rm ping:1 ping", "run --rm ping:1 /bin/ping"] {
        let run = mica(&s, command).code(126);
        assert!(
            run.stderr().contains("operation not permitted; the file wants a capability that the container has not: --cap-add NET_RAW"),
            "{}",
            run.describe()
        );
    }
    mica(
        &s,
        "run --rm --cap-add NET_RAW --entrypoint /bin/ping ping:1 --help",
    )
    .code(0);
}
