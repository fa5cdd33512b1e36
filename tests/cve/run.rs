//! What a process in a container asks of the kernel.

use crate::running::syscalls::probes;
use crate::running::{sandbox, shown};

/// `AF_PACKET` on the host's own network: reading and forging what is the host's.
#[test]
#[cfg(target_arch = "x86_64")]
fn root_cve_2020_13401_no_raw_sockets_on_the_host_s_network() {
    let s = sandbox();
    s.load(&probes("probe:1"));
    let raw = "probe:1 probe 41 17 3 768";
    assert_eq!(shown(&s, &format!("run --rm {raw}")), "41 1\n");
    assert_eq!(
        shown(&s, &format!("run --rm --cap-add NET_RAW {raw}")),
        "41 0\n"
    );
}

/// Without user namespaces inside there are no capabilities to attack the kernel's mounts, control groups and filters with.
#[test]
#[cfg(target_arch = "x86_64")]
fn root_cve_2022_0185_no_user_namespaces_inside() {
    let s = sandbox();
    s.load(&probes("probe:1"));
    shown(&s, "run -d --name up probe:1 sleep 600");
    // unshare, clone, fsopen, mount, bpf.
    for call in [
        "272 268435456",
        "56 268435473 0 0 0 0",
        "430 0 0",
        "165 0 0 0 0 0",
        "321 0 0 0",
    ] {
        let number = call.split(' ').next().unwrap();
        let denied = format!("{number} 1\n");
        assert_eq!(shown(&s, &format!("run --rm probe:1 probe {call}")), denied);
        assert_eq!(shown(&s, &format!("exec up probe {call}")), denied);
    }
    shown(&s, "rm -f up");
}

/// A line break in a variable or a name makes no second one.
#[test]
fn root_cve_2026_23953_a_line_break_in_a_setting() {
    let s = sandbox();
    let count = s
        .mica([
            "run",
            "--rm",
            "-e",
            "A=1\nLD_PRELOAD=/x",
            "app:1",
            "sh",
            "-c",
            "env | grep -c LD_PRELOAD; echo \"${LD_PRELOAD-none}\"",
        ])
        .ok();
    assert_eq!(count.stdout(), "1\nnone\n");
    s.mica(["run", "--rm", "-h", "x\n6.6.6.6 bank", "app:1", "true"])
        .code(125);
}
