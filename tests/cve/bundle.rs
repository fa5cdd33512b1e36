//! Bundles: what an image says must not become an order to the runtime, and what a runtime does with one.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::running::syscalls::{outcomes, probes};

const HOSTILE: [&str; 8] = [
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.handler",
    "org.systemd.property.ExecStopPost",
    "io.katacontainers.config.hypervisor.path",
    "io.kubernetes.cri-o.Devices",
    "dev.gvisor.spec.mount.x",
    "module.wasm.image/variant",
];

fn sandbox() -> Sandbox {
    tier::root();
    let s = Sandbox::new();
    s.load(&probes("app:1").config(|c| {
        let mut labels = json!({"org.example.kept": "yes"});
        for key in HOSTILE {
            labels[key] = json!("/etc/x");
        }
        c["config"]["Labels"] = labels;
    }));
    s
}

fn config(s: &Sandbox) -> Value {
    let text = fs::read(s.path("b/config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn runc(s: &Sandbox) -> String {
    let mut runc = Command::new("runc");
    runc.arg("--root").arg(s.path("runc"));
    runc.args(["run", "-b"]).arg(s.path("b")).arg("one");
    s.run(runc).ok().stdout()
}

#[test]
fn root_cve_2026_53488_labels_are_no_orders_to_a_runtime() {
    let s = sandbox();
    let mount = s.mount();
    s.mica([
        "bundle",
        "app:1",
        "b",
        "grep",
        "Seccomp:",
        "/proc/self/status",
    ])
    .ok();
    let annotations = config(&s)["annotations"].as_object().unwrap().clone();
    for key in HOSTILE {
        assert!(!annotations.contains_key(key), "{key}");
    }
    assert_eq!(annotations["org.example.kept"], "yes");
    assert_eq!(runc(&s), "Seccomp:\t2\n");
    s.umount("b/rootfs");
    s.sh("rm -r b").ok();
    drop(mount);
}

/// Two programs make the filter, runc with libseccomp and mica: they deny the same calls. (Those that the library of the day
/// does not know are left out.)
#[test]
#[cfg(target_arch = "x86_64")]
fn root_a_bundle_s_profile_is_that_of_run() {
    let s = sandbox();
    let mount = s.mount();
    s.mica(["bundle", "app:1", "b", "probe"]).ok();
    let theirs = outcomes(&runc(&s));
    let ours = outcomes(&s.mica(["run", "--rm", "app:1", "probe"]).ok().stdout());
    let verdict = |result: i32| match result {
        libc::EPERM => "EPERM",
        libc::ENOSYS => "ENOSYS",
        _ => "made",
    };
    for (number, result) in &ours {
        // personality(-1): mica looks at the half of the argument that the kernel looks at.
        if *number < 449 && *number != 135 {
            let other = theirs.get(number).copied().unwrap_or(i32::MIN);
            assert_eq!(
                verdict(*result),
                verdict(other),
                "{number}: {result} {other}"
            );
        }
    }
    s.umount("b/rootfs");
    s.sh("rm -r b").ok();
    drop(mount);
}

/// The energy counters and the like are covered in a bundle as in `run`; it has a control group namespace; what lies on the
/// host is its owner's alone, and set-id bits and devices mean nothing there.
#[test]
fn root_ghsa_jq35_85cj_fj4p_a_bundle_hides_what_run_hides() {
    let s = sandbox();
    let mount = s.mount();
    s.mica(["bundle", "app:1", "b", "cat", "/proc/interrupts"])
        .ok();
    let linux = config(&s)["linux"].clone();
    let masked = linux["maskedPaths"].to_string();
    for path in [
        "/sys/devices/virtual/powercap",
        "/proc/interrupts",
        "/proc/scsi",
        "/proc/acpi",
    ] {
        assert!(masked.contains(path), "{path}");
    }
    let namespaces = linux["namespaces"].to_string();
    assert!(namespaces.contains("cgroup"), "{namespaces}");
    assert_eq!(runc(&s), "");
    let mode = |path: &str| fs::metadata(s.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("b"), mode("b/config.json")), (0o700, 0o600));
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains("/b/rootfs "))
        .unwrap();
    let options = line.split(' ').nth(5).unwrap();
    assert!(
        options.contains("nosuid") && options.contains("nodev"),
        "{line}"
    );
    s.umount("b/rootfs");
    s.sh("rm -r b").ok();
    drop(mount);
}

#[test]
fn root_cve_2026_48749_a_bundle_follows_no_planted_link() {
    let s = sandbox();
    let mount = s.mount();
    let theirs = s.mkdir("theirs");
    chown(&theirs, Some(54_344), Some(54_344)).unwrap();
    let run = s.mica(["bundle", "app:1", "theirs"]).fails();
    assert!(
        run.stderr().contains("belongs to another user"),
        "{}",
        run.describe()
    );
    s.mkdir("empty");
    symlink(s.path("empty"), s.path("link")).unwrap();
    s.mica(["bundle", "app:1", "link"]).fails();
    assert_eq!(fs::read_dir(s.path("empty")).unwrap().count(), 0);
    let own = s.mkdir("own");
    symlink("/etc/written-by-bundle", own.join("config.json")).unwrap();
    let run = s.mica(["bundle", "app:1", "own"]).fails();
    assert!(run.stderr().contains("is not empty"), "{}", run.describe());
    assert!(!Path::new("/etc/written-by-bundle").exists());
    drop(mount);
}
