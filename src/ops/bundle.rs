//! `mica bundle`: an image as an OCI runtime bundle, for `runc`, `crun` and whoever else runs one.
//!
//! Nothing is copied. `DIR/rootfs` is a kernel overlayfs: the image's tree in a mount of mica below, `DIR/upper` on top,
//! which takes what the container writes; it is mounted here and stays until `umount DIR/rootfs`. With a read-only root
//! there is no mount: `config.json` names the tree itself.

mod spec;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::layer::merged::{Image, MergedEntry};
use crate::layer::{IndexError, ReadError};
use crate::oci::ImageId;
use crate::store::{LeaseKind, MaybeMissing, Store, StoreError};

use super::error::OpsError;
use super::resolve;
use super::run::user;

/// The largest `/etc/passwd` or `/etc/group` that is read.
const MAX_ACCOUNTS: u64 = 8 << 20;

/// What to make.
#[derive(Debug)]
pub struct Options<'a> {
    /// The image.
    pub image: &'a str,
    /// Where; made if it is not there, else empty.
    pub directory: &'a Path,
    /// The command, in place of the image's.
    pub command: &'a [String],
    /// The process gets a terminal.
    pub terminal: bool,
    /// The root cannot be written to.
    pub read_only: bool,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The argument, or the store.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Something in the way, or no right to do it.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Files are there already.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The tree is nowhere to be seen.
    #[error("the store is not mounted here: run mica mount DIR first")]
    NotMounted,
    /// Mounting is root's.
    #[error(
        "a writable bundle needs root, for its overlay: --read-only makes one without, \
         and mica run needs no root at all"
    )]
    NotRoot,
    /// Who the process is to be.
    #[error("{0}")]
    User(String),
    /// Neither the image nor the caller says what to run.
    #[error("no command specified")]
    NoCommand,
    /// A layer is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StoreError> for BundleError {
    fn from(error: StoreError) -> Self {
        BundleError::Ops(error.into())
    }
}

impl From<IndexError> for BundleError {
    fn from(error: IndexError) -> Self {
        BundleError::Read(error.into())
    }
}

impl MaybeMissing for BundleError {
    fn is_missing(&self) -> bool {
        matches!(self, BundleError::Ops(error) if error.is_missing())
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io {
        action,
        path,
        source,
    }
}

/// Makes a bundle. On failure what was made is taken away again.
pub fn bundle(store: &Store, options: &Options<'_>) -> Result<ImageId, BundleError> {
    let (id, config, image) = store.read(|names| {
        let id = resolve::image(names, options.image)?.id;
        let record = names.images.get(&id).ok_or(StoreError::NoSuchImage(id))?;
        let layers = record.layers.iter().map(|layer| store.open_layer(layer));
        let image = Image::new(layers.collect::<Result<_, _>>()?)?;
        Ok::<_, BundleError>((id, store.config(&id)?, image))
    })?;
    if !options.read_only && !rustix::process::geteuid().is_root() {
        return Err(BundleError::NotRoot);
    }
    let tree = tree(store, &id)?;
    let accounts = |path: &[u8]| text(&image, path);
    let who = user::resolve(
        &config.run.user,
        &accounts(b"etc/passwd")?,
        &accounts(b"etc/group")?,
    );
    let who = who.map_err(BundleError::User)?;
    let root = match options.read_only {
        true => tree.clone(),
        false => PathBuf::from("rootfs"),
    };
    let wanted = spec::Wanted {
        command: options.command,
        terminal: options.terminal,
        read_only: options.read_only,
        root: &root,
        user: &who,
    };
    let document = spec::document(&id, &config, &image, &wanted)?;
    let document = document.ok_or(BundleError::NoCommand)?;

    let made = prepare(options.directory)?;
    let filled = fill(options, &tree, &document.to_string());
    if filled.is_err() {
        for name in ["config.json", "rootfs", "upper", "work/work", "work"] {
            let path = options.directory.join(name);
            // Whatever was not made is not there; the first error is the one that counts. So below.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
        if made {
            // What somebody else has put there stays, and the directory with it.
            let _ = fs::remove_dir(options.directory);
        }
    }
    filled.map(|()| id)
}

/// An empty directory; whether it had to be made.
fn prepare(directory: &Path) -> Result<bool, BundleError> {
    match fs::create_dir(directory) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("create", directory)(error)),
    }
    let mut entries = fs::read_dir(directory).map_err(io_error("read", directory))?;
    match entries.next() {
        None => Ok(false),
        Some(_) => Err(BundleError::NotEmpty(directory.to_owned())),
    }
}

fn fill(options: &Options<'_>, tree: &Path, document: &str) -> Result<(), BundleError> {
    let directory =
        fs::canonicalize(options.directory).map_err(io_error("resolve", options.directory))?;
    let path = directory.join("config.json");
    fs::write(&path, format!("{document}\n")).map_err(io_error("write", &path))?;
    if options.read_only {
        return Ok(());
    }
    let parts = ["rootfs", "upper", "work"].map(|name| directory.join(name));
    for part in &parts {
        fs::create_dir(part).map_err(io_error("create", part))?;
    }
    let [rootfs, upper, work] = &parts;
    // The root of an overlay is its upper directory: with the mode and owner of the image's.
    let like = fs::metadata(tree).map_err(io_error("stat", tree))?;
    fs::set_permissions(
        upper,
        fs::Permissions::from_mode(like.permissions().mode() & 0o7777),
    )
    .map_err(io_error("change the mode of", upper))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&like);
    let group = std::os::unix::fs::MetadataExt::gid(&like);
    std::os::unix::fs::chown(upper, Some(owner), Some(group))
        .map_err(io_error("change the owner of", upper))?;
    let mut data = b"redirect_dir=off,metacopy=off,index=off".to_vec();
    for (key, path) in [("lowerdir", tree), ("upperdir", upper), ("workdir", work)] {
        data.extend_from_slice(format!(",{key}=").as_bytes());
        data.extend_from_slice(&escaped(path));
    }
    let mounted = CString::new(data)
        .map_err(io::Error::from)
        .and_then(|data| {
            let flags = MountFlags::NODEV;
            Ok(rustix::mount::mount(
                "mica", rootfs, "overlay", flags, &*data,
            )?)
        });
    mounted.map_err(io_error("mount an overlay on", rootfs))?;
    // What cannot be looked at now will not run either.
    if let Err(error) = fs::read_dir(rootfs) {
        if let Err(error) = rustix::mount::unmount(rootfs, UnmountFlags::DETACH) {
            log::warn!("cannot unmount {}: {error}", rootfs.display());
        }
        return Err(io_error("read", rootfs)(error));
    }
    Ok(())
}

/// A path in the options of an overlay: commas separate options, colons directories.
fn escaped(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// The image's tree in a mount of this store that this process sees.
fn tree(store: &Store, id: &ImageId) -> Result<PathBuf, BundleError> {
    let leases = store.live_leases()?;
    let points = leases.iter().filter_map(|lease| match &lease.record.kind {
        LeaseKind::Daemon { mountpoint } => Some(mountpoint),
        _ => None,
    });
    let mut trees = points.map(|point| point.join("by-id").join(id.0.hex()));
    trees
        .find(|tree| tree.is_dir())
        .ok_or(BundleError::NotMounted)
}

/// A file of the image as text; nothing if there is no such file.
fn text(image: &Image, path: &[u8]) -> Result<String, BundleError> {
    let Some(MergedEntry::Leaf(node)) = image.resolve(path)? else {
        return Ok(String::new());
    };
    let attributes = image.attributes(node)?;
    if attributes.kind != crate::tree::NodeKind::Regular || attributes.size > MAX_ACCOUNTS {
        return Ok(String::new());
    }
    let mut bytes = vec![0; usize::try_from(attributes.size).unwrap_or(0)];
    let got = image.layer(node.layer).read_at(node.node, 0, &mut bytes)?;
    bytes.truncate(got);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
