//! Tests of the snapshotter: by a client of its own, and by containerd. They use what mica's tests have.

// Helpers of tests count as tests; clippy sees only the functions with the attribute.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../../tests/common"]
mod common {
    pub mod image;
    pub mod keeper;
    pub mod mount;
    pub mod registry;
    pub mod sandbox;
    pub mod tarball;
    pub mod tier;
    pub mod walk;
}

mod attack;
mod bad;
mod client;
mod containerd;
mod crash;
mod doc;
mod flood;
mod hostile;
mod kubelet;
mod layers;
mod network;
mod node;
mod semantics;
mod suite;
mod work;
