//! What a process in a container may ask of the kernel.

use std::os::unix::fs::PermissionsExt as _;

use crate::running::syscalls::probes;
use crate::running::{sandbox, shown};

/// A process in a container makes only the system calls that docker's default profile allows, in programs of every kind that the machine runs; the others fail with EPERM, those newer than the profile with ENOSYS.
#[test]
fn root_calls_are_those_of_the_profile() {
    let s = sandbox();
    if cfg!(target_arch = "x86_64") {
        s.load(&probes("probe:1"));
        // unshare by numbers of 64 and of 32 bits, and a number that no kernel has yet.
        for (call, answer) in [
            ("probe 272 268435456", "272 1\n"),
            ("probe32 310 268435456", "310 1\n"),
            ("probe 900", "900 38\n"),
            ("probe 39", "39 0\n"),
        ] {
            assert_eq!(shown(&s, &format!("run --rm probe:1 {call}")), answer);
        }
    }
    let mode = shown(&s, "run --rm app:1 grep Seccomp: /proc/self/status");
    assert_eq!(mode, "Seccomp:\t2\n");
}

/// What `exec` starts, and the small init of `--init`, have the system calls, capabilities and privileges of the container's own program, and no more.
#[test]
fn root_exec_and_init_have_no_more() {
    let s = sandbox();
    let fields = "grep -E ^(Cap|NoNewPrivs|Seccomp:)";
    let own = shown(&s, &format!("run --rm app:1 {fields} /proc/self/status"));
    assert_eq!(own.lines().count(), 7, "{own}");
    shown(&s, "run -d --name up --init app:1 sleep 600");
    for process in ["1", "self"] {
        let line = format!("exec up {fields} /proc/{process}/status");
        assert_eq!(shown(&s, &line), own, "{process}");
    }
    shown(&s, "rm -f up");
}

/// `mica bundle` gives a runtime the restrictions of `run`, in a directory that is its owner's alone, and no label of the image as an order.
#[test]
fn root_a_bundle_is_restricted_as_run_is() {
    let s = sandbox();
    s.load(&crate::running::image("label:1").config(|c| {
        c["config"]["Labels"] = serde_json::json!({"run.oci.handler": "x", "note": "y"});
    }));
    let mount = s.mount();
    s.mica(["bundle", "--read-only", "label:1", "b", "true"])
        .ok();
    let mode = std::fs::metadata(s.path("b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let text = std::fs::read(s.path("b/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        config["linux"]["seccomp"]["defaultAction"],
        "SCMP_ACT_ERRNO"
    );
    assert_eq!(config["process"]["noNewPrivileges"], true);
    assert_eq!(config["annotations"]["note"], "y");
    assert!(config["annotations"].get("run.oci.handler").is_none());
    drop(mount);
}
