//! The edge towards the kernel: the only module that uses the `fuser` crate.
//!
//! [`session::start`] takes a mounted `/dev/fuse` descriptor (mounting is `sys::mount`'s: fuser's own mount code takes down
//! whatever stands at the path later) and serves a [`crate::fs::FileSystem`] on it from several threads. The adapter decides
//! nothing: count, call, convert, reply. What the kernel is to forget goes through [`notify::NotifyQueue`].
//!
//! A panic in a handler is answered with EIO and logged; a thread that ends while the connection lives is reported, and the
//! owner of the session takes the mount down rather than serve on with fewer threads.

mod adapter;
mod connection;
mod convert;
mod errno;
mod events;
mod handler;
pub mod handshake;
mod images;
mod kernel;
pub mod notify;
pub mod options;
mod reply;
pub mod session;
pub mod stats;
mod volumes;
