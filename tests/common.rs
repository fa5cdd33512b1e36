//! What the tests share.
//!
//! - [`image::ImageBuilder`]: images from short tree descriptions, written as docker-archive, oci-archive or OCI layout.
//! - [`sandbox::Sandbox`]: one test's directory, store and mounts; runs the `mica` binary and shows everything on failure.
//! - [`mount::Mount`]: a mount that always goes away, and the daemon behind it.
//! - [`walk`]: trees as data, and the comparison of two trees entry by entry.
//! - [`real`] and [`podman`]: the images that `contrib/test-images` has built, and the same in podman's storage.
//!
//! Tests whose names start with `fuse_` or `root_` need root, `/dev/fuse` and a private mount namespace; [`tier::root`]
//! gives the calling thread such a namespace, or stops the test with the reason. Nothing is ever skipped silently.
#![allow(dead_code)]

pub mod container;
pub mod image;
pub mod keeper;
pub mod mount;
pub mod podman;
pub mod random;
pub mod real;
pub mod registry;
pub mod sandbox;
pub mod tarball;
pub mod terminal;
pub mod tier;
pub mod user;
pub mod walk;
