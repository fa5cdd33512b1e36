//! A container made by hand: its record in the store, its tree by kernel overlayfs on top of a mount of mica.
//!
//! What `run` does inside namespaces of its own, without them: so that what is committed can be compared with what is
//! still mounted.

use std::path::PathBuf;
use std::process::Command;

use mica::oci::ImageId;
use mica::store::containers::{
    Container, ContainerConfig, ContainerId, ContainerLock, ContainerRecord, MountUse,
};
use mica::store::{OpenMode, Store};

use super::sandbox::{Mount, Run, Sandbox};

/// A container and its mounted tree.
pub struct ByHand<'s> {
    sandbox: &'s Sandbox,
    pub container: Container,
    pub lock: ContainerLock,
    /// The merged tree.
    pub root: PathBuf,
}

impl<'s> ByHand<'s> {
    /// Makes it from an image and mounts its tree.
    pub fn new(sandbox: &'s Sandbox, mount: &Mount, image: &str, name: &str) -> ByHand<'s> {
        ByHand::with(sandbox, mount, image, name, |_| {})
    }

    /// The same with a record that is changed before it is written.
    pub fn with(
        sandbox: &'s Sandbox,
        mount: &Mount,
        image: &str,
        name: &str,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> ByHand<'s> {
        let store = Store::open(&sandbox.store(), OpenMode::Existing).expect("the store");
        let id = sandbox.mica(["inspect", "-f", "{{.Id}}", image]).ok();
        let id: ImageId = id.stdout().trim().parse().expect("an image ID");
        let config = store.config(&id).expect("the config");
        let run = &config.run;
        let mut record = ContainerRecord {
            version: 1,
            id: ContainerId::random().expect("random bytes"),
            name: name.to_owned(),
            image: id,
            image_name: image.to_owned(),
            layers: config.diff_ids.clone(),
            created: jiff::Timestamp::now(),
            config: ContainerConfig {
                user: run.user.clone(),
                env: run.env.clone(),
                entrypoint: run.entrypoint.clone(),
                cmd: run.cmd.clone(),
                working_dir: run.working_dir.clone(),
                labels: run.labels.clone(),
                stop_signal: run.stop_signal.clone(),
                tty: false,
                open_stdin: false,
            },
            mounts: Vec::<MountUse>::new(),
            auto_remove: false,
            detached: false,
            read_only: false,
            init: false,
            hostname: String::new(),
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            capabilities: Vec::new(),
            security: Default::default(),
            ids: None,
        };
        change(&mut record);
        let lock = store.lock().expect("the store's lock");
        let (container, running) = store.create_container(record, &lock).expect("a container");
        drop(lock);
        let lower = mount.path(format!("by-id/{}", id.0.hex()));
        let root = sandbox.mkdir(&format!("root-{name}"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=off",
            lower.display(),
            container.upper().display(),
            container.work().display()
        );
        let mut overlay = Command::new("mount");
        overlay.args(["-t", "overlay", "-o", &options, "overlay"]);
        overlay.arg(&root);
        sandbox.run(overlay).ok();
        ByHand {
            sandbox,
            container,
            lock: running,
            root,
        }
    }

    /// A shell script in the container's root directory.
    pub fn sh(&self, script: &str) -> Run {
        let mut command = Command::new("sh");
        command.arg("-euc").arg(script).current_dir(&self.root);
        self.sandbox.run(command).ok()
    }
}

impl Drop for ByHand<'_> {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.root);
        let run = self.sandbox.run(umount);
        if !run.status.success() {
            eprintln!("{}", run.describe());
        }
    }
}
