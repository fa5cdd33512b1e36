//! The promises of `doc/SEMANTICS.md`, one test each; the doc comment of a test is the promise.
//!
//! [`doc`] compares the two lists, so that neither a sentence without a test nor a test of a lost sentence remains.

use std::io;
use std::path::Path;

use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::sandbox::{Mount, Sandbox};

mod archives;
mod budgets;
mod building;
mod calls;
mod committing;
mod damage;
mod doc;
mod ending;
mod ending_engines;
mod ending_shortage;
mod ending_upgrade;
mod ending_volumes;
mod engines;
mod ephemeral;
mod facts;
mod lasting;
mod managing;
mod names;
mod private_store;
mod processes;
mod registries;
mod removing;
mod renaming;
mod running;
mod shared_ephemeral;
mod shifted;
mod tree;
mod verbs;
mod volume_files;
mod volume_names;
mod volumes;

/// A layer that several images share.
fn base(layer: LayerBuilder) -> LayerBuilder {
    layer
        .dir("etc", 0o755)
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .file("etc/hosts", "127.0.0.1 localhost\n")
        .dir("usr", 0o755)
        .file("usr/big", vec![b'b'; 300_000])
        .hardlink("usr/big2", "usr/big")
}

/// `name` on the shared layer, with a layer of its own that holds `own` = the name.
fn image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .layer(base)
        .layer(|l| l.file("own", name))
}

/// A store with these images, each as `image` makes it, mounted.
fn mounted(names: &[&str]) -> (Sandbox, Mount) {
    let sandbox = Sandbox::new();
    for name in names {
        sandbox.load(&image(name));
    }
    let mount = sandbox.mount();
    (sandbox, mount)
}

/// The errno of a result that must be an error.
#[track_caller]
fn errno<T>(result: io::Result<T>) -> rustix::io::Errno {
    let error = result.err().expect("an error was expected");
    rustix::io::Errno::from_io_error(&error).unwrap_or_else(|| panic!("no errno in {error}"))
}

/// Sorted names in a directory, hidden ones included.
#[track_caller]
fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let dir = dir.as_ref();
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("readdir")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// How many layer tars the store holds.
fn layers(sandbox: &Sandbox) -> usize {
    std::fs::read_dir(sandbox.store().join("layers"))
        .expect("the store's layers")
        .count()
}

/// 64 hex digits of a digest.
fn hex(digest: &str) -> String {
    digest.replace("sha256:", "")
}
