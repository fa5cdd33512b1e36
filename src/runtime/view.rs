//! A command of the host that sees volumes and images where it wants them: no container, no daemon.
//!
//! This process moves into a mount namespace of its own, mounts there, and becomes the command; with the last process of the
//! namespace everything is gone. An ordinary user's is in a user namespace that maps the user's own id to itself. What the host mounts or
//! unmounts meanwhile happens there too, and nothing the other way round.
//!
//! Trees of images are served by a process beside it, with a lease of its own, which ends with the mount.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Pid, WaitOptions, chdir, getegid, geteuid, waitpid};
use serde::{Deserialize, Serialize};

use super::channel::{self, Channel};
use super::child::{Kind, What, fuse, open_mounts, part_of, put, trees_on};
use super::failure::{Fails, Failure};
use super::supervisor::{detach, hint, no_namespaces};
use super::{NotStarted, image};
use crate::mount_paths;
use crate::oci::{Digest, ImageId};
use crate::ops::container::run::mounts::ReadyMount;
use crate::store::{OpenMode, Store, StoreError};
use crate::sys::container::{Namespaces, exit_now, unshare};
use crate::sys::fd;
use crate::sys::fork::{Fork, close_inherited, fork};
use crate::sys::source::Source;
use crate::sys::userns::mounts_of_own;

/// How long the server of the images sleeps at a time.
const LONG: Duration = Duration::from_secs(3600);

/// What a command is going to see.
#[derive(Debug)]
pub struct View {
    store: PathBuf,
    /// To the server of the images, if there are any.
    server: Option<Channel>,
}

/// What is said between the two.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// The images are there, and stay.
    Held,
    /// With a descriptor: the connection to serve them on.
    Connection,
    /// They are served.
    Served,
    /// They will not be.
    Failed { text: String },
}

impl View {
    /// Takes hold of the images. Before any lease is taken, which the server would keep longer than the command.
    pub fn prepare(store: &Store, images: &[ImageId]) -> Result<View, NotStarted> {
        let server = match images.is_empty() {
            true => None,
            false => Some(server(store.path(), images)?),
        };
        let store = store.path().to_owned();
        Ok(View { store, server })
    }

    /// Moves this process to where all that is mounted. Only while it has one thread. After an error it can only end.
    pub fn enter(self, mounts: Vec<ReadyMount>) -> Result<(), NotStarted> {
        let user = (!geteuid().is_root()).then(|| (geteuid().as_raw(), getegid().as_raw()));
        let here = std::env::current_dir().ok();
        let moved = match user {
            Some(_) => mounts_of_own(),
            None => unshare(Namespaces {
                mounts: true,
                ..Namespaces::default()
            }),
        };
        moved.map_err(|error| no_namespaces(&error, user.is_some()))?;
        self.assemble(mounts, user).map_err(|mut failure| {
            if user.is_some() {
                failure.text.push_str(hint());
            }
            failure
        })?;
        // By its name: something may be mounted there now.
        if let Some(here) = here {
            chdir(&here).fails(format!(
                "{}, the working directory, is behind a mount",
                here.display()
            ))?;
        }
        Ok(())
    }

    fn assemble(self, mounts: Vec<ReadyMount>, user: Option<(u32, u32)>) -> Result<(), Failure> {
        // Not private: what the host unmounts would stay mounted here.
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .fails("making mounts the host's followers")?;
        let (store, mounts) = open_mounts(&self.store, mounts)?;
        let trees = match &self.server {
            Some(server) => Some(trees(server, &store, user)?),
            None => None,
        };
        let mut made = Vec::new();
        for mount in mounts {
            let at = mount.destination;
            let (mount, kind) = match mount.what {
                What::Bound { mount, kind, .. } => (mount, kind),
                What::Image { image, subpath } => {
                    let trees = trees.as_ref().ok_or(Errno::NOENT).fails(at.display())?;
                    let name = Path::new(mount_paths::BY_ID).join(image.0.hex());
                    let root = Source::within(trees, &name).fails(at.display())?;
                    part_of(root.node(), &subpath)?
                }
                What::Tmpfs { .. } | What::Text { .. } => {
                    let text = format!("{}: only volumes and images", at.display());
                    return Err(Failure::start(text));
                }
            };
            made.push((at, mount, kind));
        }
        if let Some(trees) = trees {
            let whole = fd::path(&trees);
            unmount(whole.as_str(), UnmountFlags::DETACH).fails("mounting the image")?;
        }
        for (at, mount, kind) in made {
            attach(&at, &mount, kind)?;
        }
        Ok(())
    }
}

/// Puts a mount where the caller has said, symbolic links followed as for any of the caller's programs.
fn attach(at: &Path, mount: &OwnedFd, kind: Kind) -> Result<(), Failure> {
    let shown = at.display();
    let refused = |why: String| Failure::start(format!("invalid mount config: {why}"));
    let place = Source::follow(at).map_err(|error| match error {
        Errno::NOENT => refused(format!(
            "mount destination does not exist: {shown}; make it first"
        )),
        error => refused(format!("{shown}: {error}")),
    })?;
    match (place.is_directory(), kind) {
        (true, Kind::Directory) | (false, Kind::File) => {}
        (true, Kind::File) => {
            return Err(refused(format!(
                "cannot mount a file on {shown}: it is a directory"
            )));
        }
        (false, Kind::Directory) => {
            return Err(refused(format!(
                "cannot mount a directory on {shown}: not a directory"
            )));
        }
    }
    put(mount, place.node()).fails(format!("mounting {shown}"))
}

/// The trees of the images, for a moment mounted on the store's directory: of a mount that is attached nowhere no part can be
/// mounted (before Linux 6.15).
fn trees(server: &Channel, store: &Source, user: Option<(u32, u32)>) -> Result<OwnedFd, Failure> {
    let what = "serving the image";
    let connection = fuse()?;
    let mount = trees_on(&connection, user)?;
    let sent = server.send(&Word::Connection, Some(connection.as_fd()));
    sent.fails(what)?;
    // See `image_trees` in the child: nothing is looked up before this is let go.
    drop(connection);
    hear(server)?;
    put(&mount, store.node()).fails("mounting the image")?;
    Ok(mount)
}

/// Waits for the server's next word.
fn hear(server: &Channel) -> Result<(), Failure> {
    match server.receive::<Word>().fails("serving the image")? {
        Some((Word::Failed { text }, _)) => Err(Failure::start(text)),
        Some(_) => Ok(()),
        None => Err(Failure::start("the image's server ended".to_owned())),
    }
}

/// Starts the server of the images: nobody's child, in nobody's session.
fn server(store: &Path, images: &[ImageId]) -> Result<Channel, NotStarted> {
    let what = "starting the image's server";
    let (ours, theirs) = channel::pair().map_err(NotStarted::because(what))?;
    match fork().map_err(NotStarted::because(what))? {
        Fork::Child => {
            if let Ok(Fork::Child) = fork() {
                let served = serve(theirs, store, images);
                if let Err(error) = served {
                    log::warn!("{error}");
                }
            }
            exit_now(0)
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            while let Err(Errno::INTR) = waitpid(pid, WaitOptions::empty()) {}
        }
    }
    hear(&ours)?;
    Ok(ours)
}

fn serve(line: Channel, store: &Path, images: &[ImageId]) -> std::io::Result<()> {
    // The caller's cannot be its own: whoever waits for the end of one would wait for the tree's.
    close_inherited(&[line.as_fd()])?;
    let path = std::path::absolute(store)?;
    detach();
    chdir("/")?;
    let failed = |error: StoreError| {
        let text = error.to_string();
        line.send(&Word::Failed { text }, None)
    };
    let store = match Store::open(&path, OpenMode::Existing) {
        Ok(store) => store,
        Err(error) => return failed(error),
    };
    let held = store.lease_volumes(&[]).and_then(|lease| {
        let names = image::names(&store, images, &[])?;
        let blobs: Vec<Digest> = names.blobs().into_iter().collect();
        lease.hold(&blobs)?;
        // Removed meanwhile, it is an error now and not later.
        Ok((lease, image::names(&store, images, &[])?))
    });
    let (_lease, names) = match held {
        Ok(held) => held,
        Err(error) => return failed(error),
    };
    line.send(&Word::Held, None)?;
    let Some((Word::Connection, Some(connection))) = line.receive()? else {
        return Ok(());
    };
    let session = match image::serve(&store, names, connection, false) {
        Ok(session) => session,
        Err(error) => {
            let text = format!("serving the image: {error}");
            return line.send(&Word::Failed { text }, None);
        }
    };
    line.send(&Word::Served, None)?;
    drop(line);
    while !session.wait(LONG) {}
    Ok(())
}
