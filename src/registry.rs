//! Images as they arrive from distribution registries and go there. Archives are in [`crate::archive`].
//!
//! Everything read here is hostile. This module says which images an input holds and where their bytes are; it neither
//! knows the store nor writes anything but credentials.
//!
//! The client ([`Client`]) is a small one on `ureq` (blocking, rustls) rather than `oci-client` (async, reqwest): a pull
//! is three layers at a time, each a stream that is hashed and decompressed on threads of its own, so blocking reads are
//! the natural form and no runtime has to be bridged to; it brings some 40 crates instead of 180, which shows in build
//! time and in the size of the program; and what a registry client has to get right (digests while streaming, resuming
//! with ranges, which host sees which credential on a redirect) has to be written here in any case. Credentials are found by
//! `docker_credential`, which knows docker's and podman's files and helpers.

mod auth;
mod blob;
mod client;
pub mod credentials;
pub mod docker_config;
mod endpoint;
mod error;
mod proxy;
mod settings;
mod upload;

pub use blob::BlobReader;
pub use client::{Client, Failure, Fetched, Options};
pub use error::RegistryError;
pub use settings::{Mirror, Settings, settings};
pub use upload::Send;
