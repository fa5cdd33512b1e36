//! The process that becomes the container, from the moment it has its namespaces to its `exec`.
//!
//! It is a fork of the supervisor and the only thread of its process. It mounts, gives up what it may not keep, and replaces
//! itself by the container's program. Whatever goes wrong is told through the channel; nothing it has mounted outlives it,
//! for its mount namespace is its own.

mod copy_up;
mod mounts;
mod process;

use std::fmt::Display;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    unmount,
};

use super::channel::{Channel, FromChild, ToChild};
use crate::ops::run::mounts::{ReadyMount, ReadySource};
use crate::sys::container::{
    close_others_on_exec, exit_now, limit_mount, reset_signals, set_hostname,
};
use crate::sys::userns::become_root;
use mounts::{Kind, Tree};
pub(super) use process::{Program, Stdio, run as run_program};

/// Everything the child needs to know, worked out before it exists.
#[derive(Debug)]
pub(super) struct Plan {
    /// The container's directory in the store.
    pub(super) directory: PathBuf,
    /// The image: 64 hex digits.
    pub(super) image: String,
    /// In a user namespace: made by an ordinary user.
    pub(super) rootless: bool,
    /// With one user id only.
    pub(super) single_id: bool,
    /// The upper directory goes with the container: it need not survive a power cut.
    pub(super) volatile: bool,
    pub(super) read_only: bool,
    pub(super) hostname: String,
    /// Parents before what is below them.
    pub(super) mounts: Vec<ReadyMount>,
    pub(super) program: Program,
}

/// Why the container does not run: an exit code, docker's, and a text.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Failure {
    /// mica's own failure to start anything.
    pub(super) fn start(text: String) -> Failure {
        Failure { code: 125, text }
    }
}

/// Errors with what was being done.
pub(super) trait Fails<T> {
    fn fails(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Fails<T> for Result<T, E> {
    fn fails(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::start(format!("{what}: {error}")))
    }
}

/// Becomes the container. Never returns.
pub(super) fn main(plan: &Plan, channel: Channel, stdio: Option<Stdio>) -> ! {
    reset_signals();
    let closed = close_others_on_exec().fails("closing what was handed down");
    let Err(failure) = closed.and_then(|()| become_container(plan, &channel, stdio));
    let code = failure.code;
    let text = failure.text;
    // Without a supervisor there is nobody to tell.
    let _ = channel.send(&FromChild::Failed { code, text }, None);
    exit_now(i32::from(code))
}

fn become_container(
    plan: &Plan,
    channel: &Channel,
    stdio: Option<Stdio>,
) -> Result<std::convert::Infallible, Failure> {
    if plan.rootless {
        wait_for(channel)?;
        become_root().fails("taking the root ids of the user namespace")?;
    }
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .fails("making mounts private")?;
    set_hostname(&plan.hostname).fails("setting the host name")?;
    rustix::process::chdir(&plan.directory)
        .fails(format!("changing to {}", plan.directory.display()))?;
    let images = image_trees(channel)?;
    root(plan)?;
    let mut tree = Tree::open(Path::new("root"))?;
    tree.pseudo(plan.rootless, plan.single_id)?;
    etc(plan, &mut tree)?;
    for mount in &plan.mounts {
        mount_one(plan, &mut tree, &images, mount)?;
    }
    drop(images);
    if plan.read_only {
        let root = mounts::proc_path(&tree.root());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty()).fails("the root")?;
        limit_mount(root.as_fd(), mounts::read_only(), false).fails("making / read-only")?;
    }
    enter(&tree)?;
    let made = std::mem::take(&mut tree.made);
    drop(tree);
    process::run(&plan.program, channel, stdio, Some(made), plan.single_id)
}

/// Waits for the supervisor's word.
pub(super) fn wait_for(channel: &Channel) -> Result<(), Failure> {
    match channel.receive::<ToChild>() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::start("the supervisor ended".to_owned())),
        Err(error) => Err(Failure::start(format!("the supervisor: {error}"))),
    }
}

/// Mounts the trees of the images on `root` and hands the connection over. The answer is their root.
fn image_trees(channel: &Channel) -> Result<OwnedFd, Failure> {
    let what = "mounting the image";
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let connection = match openat(CWD, "/dev/fuse", flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            return Err(Failure::start(
                "no /dev/fuse: the kernel has no FUSE support loaded (modprobe fuse)".to_owned(),
            ));
        }
        other => other.fails("opening /dev/fuse")?,
    };
    let fuse = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).fails(what)?;
    let descriptor = connection.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "mica"),
        ("subtype", "mica"),
        ("fd", descriptor.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(&fuse, key, value).fails(what)?;
    }
    fsconfig_set_flag(&fuse, "allow_other").fails(what)?;
    fsconfig_set_flag(&fuse, "default_permissions").fails(what)?;
    fsconfig_create(&fuse).fails(what)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(&fuse, FsMountFlags::FSMOUNT_CLOEXEC, attributes).fails(what)?;
    channel
        .send(&FromChild::Connection, Some(connection.as_fd()))
        .fails("handing over the FUSE connection")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "root", flags, Mode::empty()).fails(what)?;
    mounts::put(&mount, &root).fails(what)?;
    openat(&mount, ".", flags, Mode::empty()).fails(what)
}

/// Mounts the container's root over the images. The paths are relative: no character of the store's path means anything.
fn root(plan: &Plan) -> Result<(), Failure> {
    // Left by a mount that need not survive a power cut; there was none, or nothing of it would be here.
    let incompatible = Path::new("work/work/incompat");
    if incompatible.exists() {
        fs::remove_dir_all(incompatible).fails("taking the upper directory back into use")?;
    }
    let mut options = format!(
        "lowerdir=root/by-id/{},upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,xino=off",
        plan.image
    );
    match plan.rootless {
        true => options.push_str(",userxattr"),
        false => options.push_str(",index=off"),
    }
    if plan.volatile {
        options.push_str(",volatile");
    }
    let data = std::ffi::CString::new(options).fails("the root")?;
    let flags = MountFlags::NODEV;
    match rustix::mount::mount("mica", "root", "overlay", flags, data.as_c_str()) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(Failure::start(format!(
            "mounting the root: the kernel refuses an overlay with its upper directory in {}; is the store itself on an overlay or a network file system?",
            plan.directory.display()
        ))),
        Err(Errno::NODEV) => Err(Failure::start(
            "mounting the root: the kernel has no overlayfs (modprobe overlay)".to_owned(),
        )),
        Err(error) => Err(error).fails("mounting the root"),
    }
}

/// The files of `/etc` that are the container's own, unless something is mounted on them.
fn etc(plan: &Plan, tree: &mut Tree) -> Result<(), Failure> {
    for name in super::files::FILES {
        let path = Path::new("/etc").join(name);
        let over = |mount: &ReadyMount| {
            mount.destination == path || mount.destination == Path::new("/etc")
        };
        if plan.mounts.iter().any(over) {
            continue;
        }
        let (mount, kind) = mounts::bind(&plan.directory.join(name), false)?;
        tree.attach(&mount, &path, kind)?;
    }
    Ok(())
}

fn mount_one(
    plan: &Plan,
    tree: &mut Tree,
    images: &OwnedFd,
    mount: &ReadyMount,
) -> Result<(), Failure> {
    let shown = mount.destination.display();
    let (made, kind) = match &mount.source {
        ReadySource::Host { source, fill } => {
            if *fill
                && let Some(found) = tree.find(&mount.destination)?
                && mounts::is_directory(&found).fails(shown.to_string())?
            {
                copy_up::fill(&found, source, plan.single_id)
                    .fails(format!("copying the image's {shown} to the volume"))?;
            }
            mounts::bind(source, mount.read_only)?
        }
        ReadySource::Tmpfs { size, mode } => {
            let made = mounts::tmpfs(*size, *mode, mount.read_only)
                .fails(format!("mounting a tmpfs on {shown}"))?;
            (made, Kind::Directory)
        }
        ReadySource::Image { image, subpath } => mounts::bind_beneath(
            images,
            &Path::new("by-id").join(image.0.hex()).join(subpath),
        )?,
    };
    tree.attach(&made, &mount.destination, kind)
}

/// Makes the tree the root of everything this process sees.
fn enter(tree: &Tree) -> Result<(), Failure> {
    let what = "entering the root";
    rustix::process::fchdir(tree.root()).fails(what)?;
    rustix::process::pivot_root(".", ".").fails(what)?;
    unmount(".", UnmountFlags::DETACH).fails(what)?;
    rustix::process::chdir("/").fails(what)
}
