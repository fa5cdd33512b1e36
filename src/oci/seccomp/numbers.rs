//! Names and numbers of system calls, for every kind of program that a machine's kernel runs.

use std::str::FromStr as _;

/// The bit that x32 programs set in the number of a call.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// Above it are calls of the arm port alone, which say nothing about how new a kernel is.
pub(super) const ARM_PRIVATE: u32 = 0xf_0000;

/// One binary interface of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

/// A machine, as profiles call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// What `includes` and `excludes` compare with.
    pub(super) name: &'static str,
    pub(super) abi: Abi,
    /// The kernel's first two numbers.
    pub(super) kernel: (u32, u32),
}

impl Machine {
    /// This one; `None` if there is no table for it.
    pub fn this(kernel: (u32, u32)) -> Option<Machine> {
        let (name, abi) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", Abi::X86_64),
            "aarch64" => ("arm64", Abi::Aarch64),
            "riscv64" => ("riscv64", Abi::Riscv64),
            _ => return None,
        };
        Some(Machine { name, abi, kernel })
    }
}

impl Abi {
    /// How OCI and docker write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Abi::X86_64 => "SCMP_ARCH_X86_64",
            Abi::X86 => "SCMP_ARCH_X86",
            Abi::X32 => "SCMP_ARCH_X32",
            Abi::Aarch64 => "SCMP_ARCH_AARCH64",
            Abi::Arm => "SCMP_ARCH_ARM",
            Abi::Riscv64 => "SCMP_ARCH_RISCV64",
        }
    }

    /// Those that a kernel for this one runs, this one first.
    pub(super) fn family(self) -> &'static [Abi] {
        match self {
            Abi::X86_64 | Abi::X86 | Abi::X32 => &[Abi::X86_64, Abi::X86, Abi::X32],
            Abi::Aarch64 | Abi::Arm => &[Abi::Aarch64, Abi::Arm],
            Abi::Riscv64 => &[Abi::Riscv64],
        }
    }

    /// `AUDIT_ARCH_*`: what the kernel says a call came by. x32 comes by that of x86_64.
    pub(super) fn audit(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::X86 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
            Abi::Riscv64 => 0xc000_00f3,
        }
    }

    /// The number of a call; `None` if there is none of that name, or it is newer than the tables.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Abi::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            Abi::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Abi::X32 => return x32(name),
            Abi::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
            Abi::Arm => return arm(name),
            Abi::Riscv64 => syscalls::riscv64::Sysno::from_str(name).ok()?.id(),
        };
        u32::try_from(number).ok()
    }
}

/// The calls of x32 that take other structures than those of x86_64 and have numbers of their own.
const X32_OWN: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

fn x32(name: &str) -> Option<u32> {
    let own = X32_OWN.iter().find(|(own, _)| *own == name);
    let number = match own {
        Some((_, number)) => *number,
        None => Abi::X86_64.number(name)?,
    };
    Some(number | X32_BIT)
}

fn arm(name: &str) -> Option<u32> {
    Some(match name {
        "breakpoint" => ARM_PRIVATE + 1,
        "cacheflush" => ARM_PRIVATE + 2,
        "set_tls" => ARM_PRIVATE + 5,
        // Two names of one call.
        "sync_file_range2" => Abi::Arm.number("arm_sync_file_range")?,
        name => u32::try_from(syscalls::arm::Sysno::from_str(name).ok()?.id()).ok()?,
    })
}

/// Whether the kernel takes this argument of a call as 32 bits, whatever the upper half of the register says.
pub(super) fn is_word(name: &str, argument: u8) -> bool {
    matches!(
        (name, argument),
        ("socket" | "socketpair", 0..=2)
            | ("personality" | "prctl" | "keyctl" | "bpf", 0)
            | ("ioctl" | "fcntl" | "fcntl64", 0 | 1)
            | ("setns" | "fsconfig", 1)
            | ("setsockopt" | "getsockopt", 0..=2)
            | ("umount2" | "pidfd_open", 1)
    )
}
