//! Images of mica for containerd: a proxy snapshotter (`containerd.services.snapshots.v1` over a unix socket).
//!
//! | module | what it knows |
//! |---|---|
//! | [`snapshotter`] | what containerd asks for, done on a store of mica's |
//! | [`filter`], [`error`] | containerd's filters, containerd's codes |
//! | [`proto`], [`service`] | the messages, and the gRPC edge |
//! | [`listen`] | the socket |
//!
//! A package of its own: gRPC brings an async runtime, which mica does without.

pub mod error;
pub mod filter;
pub mod listen;
pub mod proto;
pub mod service;
pub mod snapshotter;
