//! `mica bundle`: an image as an OCI runtime bundle, for `runc`, `crun` and whoever else runs one.
//!
//! Nothing is copied. `DIR/rootfs` is a kernel overlayfs: the image's tree in a mount of mica below, `DIR/upper` on top,
//! which takes what the container writes; it is mounted here and stays until `umount DIR/rootfs`. With a read-only root
//! there is no mount: `config.json` names the tree itself.

mod spec;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::layer::merged::{Image, MergedEntry};
use crate::layer::{IndexError, ReadError};
use crate::oci::ImageId;
use crate::store::LiveLease;
use crate::store::containers::Seccomp;
use crate::store::{MaybeMissing, Store, StoreError};
use crate::sys::fd;

use crate::ops::container::run::{security, user};
use crate::ops::image::ImageError;
use crate::ops::image::resolve;

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
    Image(#[from] ImageError),
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
    /// Whoever owns it can put links in the way.
    #[error("{} belongs to another user: give a new directory", .0.display())]
    Foreign(PathBuf),
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
        BundleError::Image(error.into())
    }
}

impl From<IndexError> for BundleError {
    fn from(error: IndexError) -> Self {
        BundleError::Read(error.into())
    }
}

impl MaybeMissing for BundleError {
    fn is_missing(&self) -> bool {
        matches!(self, BundleError::Image(error) if error.is_missing())
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
    let filter = security::filter(&Seccomp::Default, &spec::capabilities());
    let filter = filter.map_err(BundleError::User)?;
    let wanted = spec::Wanted {
        command: options.command,
        terminal: options.terminal,
        read_only: options.read_only,
        root: &root,
        user: &who,
        seccomp: filter.map_or(serde_json::Value::Null, |filter| filter.document()),
    };
    let document = spec::document(&id, &config, &image, &wanted)?;
    let document = document.ok_or(BundleError::NoCommand)?;

    let made = Place::prepare(options.directory)?;
    let filled = made.fill(options, &tree, &document.to_string());
    if filled.is_err() {
        made.clear(options.directory);
    }
    filled.map(|()| id)
}

/// The bundle's directory: empty, ours, and closed to others. Everything in it is done from its descriptor.
struct Place {
    directory: OwnedFd,
    /// Whether it had to be made.
    made: bool,
}

impl Place {
    fn prepare(path: &Path) -> Result<Place, BundleError> {
        let private = Mode::from_raw_mode(0o700);
        let made = match mkdirat(CWD, path, private) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(io_error("create", path)(error.into())),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || -> rustix::io::Result<_> {
            let directory = openat(CWD, path, flags, Mode::empty())?;
            let owner = fstat(&directory)?.st_uid;
            Ok((directory, owner))
        };
        let (directory, owner) = open().map_err(|error| io_error("open", path)(error.into()))?;
        if owner != rustix::process::geteuid().as_raw() {
            return Err(BundleError::Foreign(path.to_owned()));
        }
        fchmod(&directory, private)
            .map_err(|error| io_error("change the mode of", path)(error.into()))?;
        let mut entries =
            Dir::read_from(&directory).map_err(|error| io_error("read", path)(error.into()))?;
        let is_entry = |entry: &rustix::io::Result<rustix::fs::DirEntry>| match entry {
            Ok(entry) => !matches!(entry.file_name().to_bytes(), b"." | b".."),
            Err(_) => true,
        };
        match entries.find(is_entry) {
            None => Ok(Place { directory, made }),
            Some(Ok(_)) => Err(BundleError::NotEmpty(path.to_owned())),
            Some(Err(error)) => Err(io_error("read", path)(error.into())),
        }
    }

    /// Takes away what was made. Whatever was not is not there; the first error is the one that counts.
    fn clear(&self, path: &Path) {
        for (name, flags) in [
            ("config.json", AtFlags::empty()),
            ("rootfs", AtFlags::REMOVEDIR),
            ("upper", AtFlags::REMOVEDIR),
            ("work/work", AtFlags::REMOVEDIR),
            ("work", AtFlags::REMOVEDIR),
        ] {
            // What is not there was not made; why the making failed is what is told.
            let _ = unlinkat(&self.directory, name, flags);
        }
        if self.made {
            // What somebody else has put there stays, and the directory with it.
            let _ = fs::remove_dir(path);
        }
    }

    fn fill(&self, options: &Options<'_>, tree: &Path, document: &str) -> Result<(), BundleError> {
        let shown = |name: &str| options.directory.join(name);
        let fails = |action, name: &str| {
            let path = shown(name);
            move |error: Errno| io_error(action, &path)(error.into())
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let config = openat(
            &self.directory,
            "config.json",
            flags,
            Mode::from_raw_mode(0o600),
        )
        .map_err(fails("create", "config.json"))?;
        File::from(config)
            .write_all(format!("{document}\n").as_bytes())
            .map_err(io_error("write", &shown("config.json")))?;
        if options.read_only {
            return Ok(());
        }
        for name in ["rootfs", "upper", "work"] {
            mkdirat(&self.directory, name, Mode::from_raw_mode(0o700))
                .map_err(fails("create", name))?;
        }
        // The root of an overlay is its upper directory: with the mode and owner of the image's.
        let like = fs::metadata(tree).map_err(io_error("stat", tree))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let upper = openat(&self.directory, "upper", flags, Mode::empty())
            .map_err(fails("open", "upper"))?;
        fchmod(
            &upper,
            Mode::from_raw_mode(like.permissions().mode() & 0o7777),
        )
        .map_err(fails("change the mode of", "upper"))?;
        let (owner, group) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
        fchown(&upper, Some(owner), Some(group)).map_err(fails("change the owner of", "upper"))?;
        let rootfs = openat(&self.directory, "rootfs", flags, Mode::empty())
            .map_err(fails("open", "rootfs"))?;
        self.mount(tree, &rootfs)
            .map_err(io_error("mount an overlay on", &shown("rootfs")))?;
        // What cannot be looked at now will not run either.
        let looked = openat(&self.directory, "rootfs", flags, Mode::empty());
        let looked = looked.and_then(|root| Dir::read_from(&root)?.next().transpose());
        if let Err(error) = looked {
            let path = shown("rootfs");
            if let Err(error) = rustix::mount::unmount(&path, UnmountFlags::DETACH) {
                log::warn!("cannot unmount {}: {error}", path.display());
            }
            return Err(io_error("read", &path)(error.into()));
        }
        Ok(())
    }

    /// The directory's own name, as the kernel has it, is what `mount` shows; nobody else can change anything below it.
    fn mount(&self, tree: &Path, rootfs: &OwnedFd) -> io::Result<()> {
        let own = fs::read_link(fd::path(&self.directory))?;
        let (there, here) = (rustix::fs::stat(&own)?, fstat(&self.directory)?);
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Err(io::Error::other("the directory has been moved"));
        }
        let mut data = b"redirect_dir=off,metacopy=off,index=off".to_vec();
        let (upper, work) = (own.join("upper"), own.join("work"));
        for (key, path) in [("lowerdir", tree), ("upperdir", &upper), ("workdir", &work)] {
            data.extend_from_slice(format!(",{key}=").as_bytes());
            data.extend_from_slice(&escaped(path));
        }
        let data = CString::new(data)?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        let point = fd::path(&rootfs);
        Ok(rustix::mount::mount(
            "mica", point, "overlay", flags, &*data,
        )?)
    }
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
    let points = leases.iter().filter_map(LiveLease::mountpoint);
    let mut trees = points.map(|point| point.join(crate::mount_paths::BY_ID).join(id.0.hex()));
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
