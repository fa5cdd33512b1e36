//! Volumes: content, trees of small files, looks at them, changes of them and lives, beside the host's file system and other FUSE file systems on it.

mod changes;
mod content;
mod ground;
mod life;
mod looks;
mod trees;

use self::ground::{Ground, Host};
use crate::common::sandbox::Sandbox;

pub fn run(quick: bool) {
    let archives = Sandbox::new();
    let tree = trees::archive(&archives);
    for host in [Host::Disk, Host::Memory] {
        let ground = Ground::new(host);
        content::run(&ground, quick);
        looks::run(&ground, &tree, quick);
        changes::run(&ground, &tree, quick);
        trees::run(&ground, &tree, quick);
    }
    life::run(quick);
}
