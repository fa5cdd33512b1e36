//! The figures of `make bench`: mica beside kernel overlayfs, both fuse-overlayfs versions and podman, on the same image; volumes
//! beside the file system that they lie on.
//!
//! Medians of interleaved runs. Targets are printed beside the figures and judge nothing: only an error makes this fail.
//! `QUICK=1` takes fewer runs and leaves out what takes longest; `ONLY=warm,cold,ls,verbs,commit,build,run,engines,registry,volumes,scale` selects parts;
//! `containerd` is of the snapshotter's package.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

mod common;
mod bench {
    pub mod builds;
    pub mod commits;
    pub mod engines;
    pub mod million;
    pub mod registries;
    pub mod running;
    pub mod scale;
    pub mod systems;
    pub mod table;
    pub mod timing;
    pub mod verbs;
    pub mod volumes;
    pub mod wakeup;
    pub mod workloads;
}

use common::tier;

fn main() {
    // `cargo test --all-targets` runs this binary too; only `cargo bench` means it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tier::root();
    let quick = std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|name| name == part);
    println!("{}", bench::systems::machine());
    println!("{}", bench::wakeup::line());
    if ["warm", "cold", "ls"].into_iter().any(wanted) {
        bench::workloads::run(quick, wanted("warm"), wanted("cold"), wanted("ls"));
    }
    if wanted("verbs") {
        bench::verbs::run(quick);
    }
    if wanted("commit") {
        bench::commits::run(quick);
    }
    if wanted("build") {
        bench::builds::run(quick);
    }
    if wanted("run") {
        bench::running::run(quick);
    }
    if wanted("engines") {
        bench::engines::run(quick);
    }
    if wanted("registry") {
        bench::registries::run(quick);
    }
    if wanted("volumes") {
        bench::volumes::run(quick);
    }
    if wanted("scale") {
        bench::scale::run(quick);
    }
}
