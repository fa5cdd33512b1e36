//! The process that becomes the container, from the moment it has its namespaces to its `exec`.
//!
//! It is a fork of the supervisor and the only thread of its process. It mounts, gives up what it may not keep, and replaces
//! itself by the container's program. Whatever goes wrong is told through the channel; nothing it has mounted outlives it,
//! for its mount namespace is its own.

mod copy_up;
mod devices;
mod filesystems;
mod mounts;
mod process;
mod sources;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    unmount,
};
use rustix::process::{Signal, fchdir, set_parent_process_death_signal, umask};

use super::channel::{Channel, FromChild, ToChild};
use super::failure::{Fails, Failure};
use super::standard::Stdio;
use super::visitor;
use crate::mount_paths;
use crate::sys::container::{exit_now, limit_mount, reset_signals, set_hostname};
use crate::sys::deep;
use crate::sys::fork::close_inherited;
use crate::sys::inherited::{give_up_preference, leave_session_keyring};
use crate::sys::signal::survive_file_size_limit;
use crate::sys::source::{Source, path_of};
use crate::sys::userns::become_root;
use devices::Terminal;
pub(super) use filesystems::put;
use mounts::Tree;
pub(super) use mounts::part_of;
pub(super) use process::{Program, come_with_little, run as run_program};
use sources::Host;
pub(super) use sources::{Kind, Mount, Paths, What, fuse, open_mounts};

/// Everything the child needs to know, worked out before it exists.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where on the host everything is; used up when it is opened.
    pub(super) paths: Paths,
    pub(super) inside: Inside,
}

/// What has to do with no path of the host.
#[derive(Debug)]
pub(super) struct Inside {
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
    /// Of /dev/shm, if not the usual.
    pub(super) shm_size: Option<u64>,
    /// In place of the program somebody looks into it and changes it from outside.
    pub(super) visited: bool,
    pub(super) program: Program,
}

/// Becomes the container. Never returns.
pub(super) fn main(plan: Plan, channel: Channel, stdio: Option<Stdio>) -> ! {
    let tied = end_with_supervisor(&channel);
    reset_signals();
    // Of what is copied to a volume, not of the program.
    survive_file_size_limit();
    // Of what is made on the way the modes are those asked for.
    umask(Mode::from_raw_mode(0o022));
    let left = tied.and_then(|()| leave_behind(&channel, stdio.as_ref(), &[]));
    let Err(failure) = left.and_then(|()| become_container(plan, &channel, stdio));
    let code = failure.code;
    let text = failure.text;
    // Without a supervisor there is nobody to tell.
    let _ = channel.send(&FromChild::Failed { code, text }, None);
    exit_now(i32::from(code))
}

/// Has the kernel kill this process when the supervisor ends, which it may have done already.
fn end_with_supervisor(channel: &Channel) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).fails("tying it to its supervisor")?;
    let mut fds = [PollFd::new(channel, PollFlags::empty())];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(0) | Err(Errno::INTR) => Ok(()),
        _ => Err(Failure::start("the supervisor ended".to_owned())),
    }
}

/// Leaves what was handed down and not given: every descriptor but the channel, the standard ones and those to `keep`, the keys of
/// whoever started this, and the caller's precedence. For a fresh fork, while it sees the host's `/proc`.
pub(super) fn leave_behind(
    channel: &Channel,
    stdio: Option<&Stdio>,
    keep: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let standard = stdio.into_iter().flat_map(|stdio| stdio.0.iter());
    let keep: Vec<BorrowedFd<'_>> = standard
        .map(AsFd::as_fd)
        .chain([channel.as_fd()])
        .chain(keep.iter().copied())
        .collect();
    close_inherited(&keep).fails("closing what was handed down")?;
    leave_session_keyring()
        .fails("leaving the caller's keys (too many keyrings of this user? kernel.keys.maxkeys)")?;
    give_up_preference().fails("giving up precedence")
}

fn become_container(
    plan: Plan,
    channel: &Channel,
    stdio: Option<Stdio>,
) -> Result<std::convert::Infallible, Failure> {
    let Plan { paths, inside } = plan;
    let way = match inside.visited {
        true => Some(visitor::way()?),
        false => None,
    };
    if inside.rootless {
        wait_for(channel)?;
        become_root().fails("taking the root ids of the user namespace")?;
    }
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .fails("making mounts private")?;
    let (host, connection) = sources::open(paths)?;
    set_hostname(&inside.hostname).fails("setting the host name")?;
    let (terminal, made) = assemble(&inside, host, connection, channel)?;
    if let Some(way) = way {
        let sent = channel.send(&FromChild::Ready { made }, None);
        sent.fails("telling the supervisor")?;
        wait_for(channel)?;
        return Err(visitor::serve(channel, way, false, &inside.program.user));
    }
    let slave = match terminal {
        Some(Terminal { master, slave }) => {
            let sent = channel.send(&FromChild::Terminal, Some(master.as_fd()));
            sent.fails("opening a terminal")?;
            Some(slave)
        }
        None => None,
    };
    process::run(
        &inside.program,
        channel,
        stdio,
        slave,
        Some(made),
        inside.single_id,
    )
}

/// Puts the root together and makes it the root of everything that this process sees. What had to be made to mount on.
fn assemble(
    inside: &Inside,
    host: Host,
    connection: OwnedFd,
    channel: &Channel,
) -> Result<(Option<Terminal>, Vec<String>), Failure> {
    let images = image_trees(&host, connection, channel)?;
    root(inside, &host)?;
    let mut tree = Tree::open(&host.directory, "root")?;
    // While the image's own file system is all there is.
    for mount in &host.mounts {
        fill(inside, &tree, mount)?;
    }
    let terminal = tree.pseudo(&host, inside.single_id, inside.program.tty, inside.shm_size)?;
    etc(&host, &mut tree)?;
    for mount in &host.mounts {
        attach(&mut tree, &images, &host.directory, mount)?;
    }
    drop((images, host));
    if inside.read_only {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(tree.root(), ".", flags, Mode::empty()).fails("the root")?;
        limit_mount(root.as_fd(), filesystems::read_only(), false).fails("making / read-only")?;
    }
    enter(&tree)?;
    Ok((terminal, std::mem::take(&mut tree.made)))
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
fn image_trees(host: &Host, connection: OwnedFd, channel: &Channel) -> Result<OwnedFd, Failure> {
    let what = "mounting the image";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(&host.directory, "root", flags, Mode::empty()).fails(what)?;
    let mount = trees_on(&connection, None)?;
    put(&mount, &root).fails(what)?;
    channel
        .send(&FromChild::Connection, Some(connection.as_fd()))
        .fails("handing over the FUSE connection")?;
    // Nothing is looked up in it before this process has let go of it: it would wait for a supervisor that has died for as long
    // as it holds the connection itself.
    drop(connection);
    Ok(mount)
}

/// A mount of the trees that are going to be served on `connection`, attached to nothing. With `owner`, an ordinary user and that
/// user's group: nobody else sees it, and no modes are checked, as in any ordinary user's mount.
pub(super) fn trees_on(
    connection: &OwnedFd,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, Failure> {
    let what = "mounting the image";
    let fuse = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).fails(what)?;
    let descriptor = connection.as_raw_fd().to_string();
    let (uid, gid) = owner.unwrap_or_default();
    for (key, value) in [
        ("source", "mica"),
        ("subtype", "mica"),
        ("fd", descriptor.as_str()),
        ("rootmode", "40000"),
        ("user_id", &uid.to_string()),
        ("group_id", &gid.to_string()),
    ] {
        fsconfig_set_string(&fuse, key, value).fails(what)?;
    }
    if owner.is_none() {
        fsconfig_set_flag(&fuse, "allow_other").fails(what)?;
        fsconfig_set_flag(&fuse, "default_permissions").fails(what)?;
    }
    fsconfig_create(&fuse).fails(what)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&fuse, FsMountFlags::FSMOUNT_CLOEXEC, attributes).fails(what)
}

/// Mounts the container's root over the images. The paths are names in the container's directory, where nobody else is: no
/// character of the store's path means anything.
fn root(inside: &Inside, host: &Host) -> Result<(), Failure> {
    fchdir(&host.directory).fails("changing to the container's directory")?;
    // Left by a mount that need not survive a power cut; there was none, or nothing of it would be here.
    match Source::within(&host.directory, Path::new("work/work")) {
        Ok(work) => match deep::remove_at(work.node(), c"incompat") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.fails("taking the upper directory back into use")?,
        },
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error).fails("taking the upper directory back into use"),
    }
    let mut options = format!(
        "lowerdir=root/by-id/{},upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,xino=off",
        inside.image
    );
    match inside.rootless {
        true => options.push_str(",userxattr"),
        false => options.push_str(",index=off"),
    }
    if inside.volatile {
        options.push_str(",volatile");
    }
    let data = CString::new(options).fails("the root")?;
    let flags = MountFlags::NODEV;
    match rustix::mount::mount("mica", "root", "overlay", flags, data.as_c_str()) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(Failure::start(format!(
            "mounting the root: the kernel refuses an overlay with its upper directory in {}; is the store itself on an overlay or a network file system?",
            path_of(&host.directory).unwrap_or_default().display()
        ))),
        Err(Errno::NODEV) => Err(Failure::start(
            "mounting the root: the kernel has no overlayfs (modprobe overlay)".to_owned(),
        )),
        Err(error) => Err(error).fails("mounting the root"),
    }
}

/// The files of `/etc` that are the container's own, unless something is mounted on them.
fn etc(host: &Host, tree: &mut Tree) -> Result<(), Failure> {
    for (name, file) in &host.files {
        let path = Path::new("/etc").join(name);
        let over =
            |mount: &Mount| mount.destination == path || mount.destination == Path::new("/etc");
        if !host.mounts.iter().any(over) {
            tree.attach_asked(file, &path, Kind::File, false)?;
        }
    }
    Ok(())
}

/// Gives an empty volume what the image has at its place.
fn fill(inside: &Inside, tree: &Tree, mount: &Mount) -> Result<(), Failure> {
    if let What::Bound {
        fill: Some(volume), ..
    } = &mount.what
        && let Some(found) = tree.directory_of_image(&mount.destination)?
    {
        let shown = mount.destination.display();
        copy_up::fill(&found, volume, inside.single_id)
            .fails(format!("copying the image's {shown} to the volume"))?;
    }
    Ok(())
}

fn attach(
    tree: &mut Tree,
    images: &OwnedFd,
    directory: &OwnedFd,
    mount: &Mount,
) -> Result<(), Failure> {
    let shown = mount.destination.display();
    let at = &mount.destination;
    match &mount.what {
        What::Bound {
            mount: made, kind, ..
        } => tree.attach_asked(made, at, *kind, mount.volume),
        What::Tmpfs {
            size,
            mode,
            options,
        } => {
            let made = filesystems::tmpfs(*size, *mode, mount.read_only, options)
                .fails(format!("mounting a tmpfs on {shown}"))?;
            tree.attach_asked(&made, at, Kind::Directory, false)
        }
        What::Text {
            content,
            mode,
            owner,
        } => {
            let made = filesystems::text(directory, content, *mode, *owner, mount.read_only)
                .fails(format!("making the file {shown}"))?;
            tree.attach_asked(&made, at, Kind::File, false)
        }
        What::Image { image, subpath } => {
            let name = Path::new(mount_paths::BY_ID).join(image.0.hex());
            let image = Source::within(images, &name).fails(format!("mounting {shown}"))?;
            let (made, kind) = mounts::part_of(image.node(), subpath)?;
            tree.attach_asked(&made, at, kind, false)
        }
    }
}

/// Makes the tree the root of everything this process sees.
fn enter(tree: &Tree) -> Result<(), Failure> {
    let what = "entering the root";
    fchdir(tree.root()).fails(what)?;
    rustix::process::pivot_root(".", ".").fails(what)?;
    unmount(".", UnmountFlags::DETACH).fails(what)?;
    rustix::process::chdir("/").fails(what)
}
