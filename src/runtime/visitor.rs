//! The visitor: in the container's mount namespace, with its root for its own.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::failure::{Fails as _, Failure};
use super::users::read_list;
use crate::layer::compress;
use crate::ops::container::copy::{
    self, CopyError, Kind, Notes, Owner, Owners, Packing, Path, Unpacking,
};
use crate::ops::container::run::user;
use crate::sys::beneath::{self, Host};
use crate::sys::container::exit_now;
use crate::sys::pause::pause;
use crate::sys::source;

/// Of a pipe at once.
const PIECE: usize = 256 << 10;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) enum Ask {
    /// What is at a path, a link at its end not followed.
    Look { path: Vec<u8> },
    /// With the end of a pipe: what is there, as a tar whose first entry is called `name`.
    Read { path: Vec<u8>, name: Vec<u8> },
    /// With the end of a pipe: the container's own file system, without what is mounted in it.
    ReadRoot,
    /// With the end of a pipe: a tar, perhaps compressed, goes into a directory.
    Write { directory: Vec<u8>, own: bool },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) enum Answer {
    /// To a look.
    Found(Option<Found>),
    /// To the others, at their end.
    Done(Notes),
    /// To any.
    Failed { text: String, refused: bool },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Where a symbolic link leads in the end, as the container sees it.
    pub target: Option<Vec<u8>>,
}

/// What the visitor takes along from the host: a way to its own descriptors.
pub(in crate::runtime) type Way = Host;

/// Opens it. While `/proc` is the host's, after everything inherited has been closed.
pub(in crate::runtime) fn way() -> Result<Way, Failure> {
    Host::new().fails("looking at the own descriptors")
}

struct Inside<'a> {
    root: OwnedFd,
    host: Host,
    /// What is in memory only is of use.
    running: bool,
    /// The container's user, as its configuration has it.
    user: &'a str,
}

/// Answers until nobody asks any more. Comes back only with why it cannot.
pub(in crate::runtime) fn serve(
    channel: &Channel,
    host: Way,
    running: bool,
    user: &str,
) -> Failure {
    rustix::process::umask(Mode::empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match openat(CWD, c"/", flags, Mode::empty()).fails("the root") {
        Ok(root) => root,
        Err(failure) => return failure,
    };
    let inside = Inside {
        root,
        host,
        running,
        user,
    };
    loop {
        let (ask, pipe) = match channel.receive::<Ask>() {
            Ok(Some(asked)) => asked,
            Ok(None) => exit_now(0),
            Err(error) => return Failure::start(format!("listening: {error}")),
        };
        let answer = inside
            .answer(ask, pipe)
            .unwrap_or_else(|error| Answer::Failed {
                refused: error.is_daemons(),
                text: error.to_string(),
            });
        if channel.send(&answer, None).is_err() {
            exit_now(0)
        }
    }
}

impl Inside<'_> {
    fn answer(&self, ask: Ask, pipe: Option<OwnedFd>) -> Result<Answer, CopyError> {
        let pipe = || pipe.map(File::from).ok_or_else(no_pipe);
        match ask {
            Ask::Look { path } => self.look(&path).map(Answer::Found),
            Ask::Read { path, name } => self.read(&path, &name, pipe()?).map(Answer::Done),
            Ask::ReadRoot => self.read_root(pipe()?).map(Answer::Done),
            Ask::Write { directory, own } => self.write(&directory, own, pipe()?).map(Answer::Done),
        }
    }

    /// Where a path leads, never out of the root; a link at its end is followed only where a directory is meant.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let given = Path::new(path);
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if given.is_directory {
            return source::open(
                &self.root,
                given.clean.as_slice(),
                OFlags::DIRECTORY,
                inside,
            );
        }
        let parent = source::open(&self.root, given.parent(), OFlags::DIRECTORY, inside)?;
        pause("visit-found");
        self.host.child(&parent, given.name())
    }

    fn look(&self, path: &[u8]) -> Result<Option<Found>, CopyError> {
        let failed = |source| CopyError::File {
            path: path.to_vec(),
            source,
        };
        let node = match self.open(path) {
            Ok(node) => node,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let kind = match beneath::kind(&beneath::stat(&node).map_err(failed)?) {
            rustix::fs::FileType::Directory => Kind::Directory,
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        let target = match kind {
            Kind::Link => Some(self.target(path, &node).map_err(failed)?),
            _ => None,
        };
        Ok(Some(Found { kind, target }))
    }

    /// Where a link leads: to the end of all links if that is there.
    fn target(&self, path: &[u8], link: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let given = Path::new(path);
        let flags = OFlags::empty();
        if let Ok(end) = source::open(&self.root, given.clean.as_slice(), flags, inside) {
            return self.host.path_of(&end);
        }
        let text = beneath::read_link(link)?;
        if text.first() == Some(&b'/') {
            return Ok(text);
        }
        Ok([given.parent(), b"/", &text].concat())
    }

    fn read(&self, path: &[u8], name: &[u8], pipe: File) -> Result<Notes, CopyError> {
        let node = self.open(path).map_err(|source| CopyError::File {
            path: path.to_vec(),
            source,
        })?;
        self.pack(node, name, pipe, false)
    }

    fn read_root(&self, pipe: File) -> Result<Notes, CopyError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        // A mount of its own has nothing mounted on it.
        let root = open_tree(&self.root, c"", flags).map_err(|source| CopyError::File {
            path: b"/".to_vec(),
            source,
        })?;
        self.pack(root, b"", pipe, true)
    }

    fn pack(
        &self,
        node: OwnedFd,
        name: &[u8],
        pipe: File,
        one_file_system: bool,
    ) -> Result<Notes, CopyError> {
        let packing = Packing {
            host: &self.host,
            owners: Owners::Same,
            one_file_system,
        };
        let mut out = BufWriter::with_capacity(PIECE, pipe);
        let packed = copy::pack(packing, node, name, &mut out);
        let flushed = out.flush().map_err(CopyError::Write);
        packed.and_then(|notes| flushed.map(|()| notes))
    }

    fn write(&self, directory: &[u8], own: bool, pipe: File) -> Result<Notes, CopyError> {
        let shown = String::from_utf8_lossy(directory).into_owned();
        let failed = |source| CopyError::File {
            path: directory.to_vec(),
            source,
        };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let clean = Path::new(directory).clean;
        let target = match source::open(&self.root, clean.as_slice(), OFlags::DIRECTORY, inside) {
            Err(Errno::NOTDIR) => {
                let text = "extraction point is not a directory".to_owned();
                return Err(CopyError::Refused(text));
            }
            found => found.map_err(failed)?,
        };
        pause("visit-found");
        if !self.running && is_in_memory(&target) {
            return Err(CopyError::Refused(format!(
                "{shown} is there only while the container runs: start it first"
            )));
        }
        let owner = match own {
            true => self.own_user()?,
            false => Owner::Archive,
        };
        let unpacking = Unpacking {
            host: &self.host,
            inside: true,
            owner,
            powers: true,
        };
        let mut input = BufReader::with_capacity(PIECE, pipe);
        let mut start = Vec::new();
        (&mut input)
            .take(compress::SNIFF as u64)
            .read_to_end(&mut start)
            .map_err(crate::layer::TarReadError::from)?;
        let kind = compress::sniff(&start);
        let whole = io::Cursor::new(start).chain(input);
        let archive = compress::reader(Box::new(whole), kind);
        copy::unpack(unpacking, &target, archive).map_err(|error| match error {
            CopyError::File {
                source: Errno::ROFS,
                ..
            } => CopyError::Refused(match self.is_root(&target) {
                true => "container rootfs is marked read-only".to_owned(),
                false => "mounted volume is marked read-only".to_owned(),
            }),
            error => error,
        })
    }

    /// Whether a directory is of the container's own file system.
    fn is_root(&self, directory: &OwnedFd) -> bool {
        let mount = |node: &OwnedFd| {
            let stat = statx(node, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
            stat.map(|stat| stat.stx_mnt_id).ok()
        };
        mount(directory) == mount(&self.root)
    }

    /// Who the container's processes are, by its own files.
    fn own_user(&self) -> Result<Owner, CopyError> {
        if self.user.is_empty() {
            return Ok(Owner::Archive);
        }
        let read = |path: &str| read_list(path).unwrap_or_default();
        let found = user::resolve(self.user, &read("/etc/passwd"), &read("/etc/group"));
        let found = found.map_err(CopyError::Refused)?;
        Ok(Owner::Fixed(found.uid, found.gid))
    }
}

/// A tmpfs.
fn is_in_memory(directory: &OwnedFd) -> bool {
    // statfs(2)
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    // One cannot be asked of a place alone.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(directory, c".", flags, Mode::empty());
    opened.is_ok_and(|opened| rustix::fs::fstatfs(opened).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC))
}

fn no_pipe() -> CopyError {
    CopyError::Usage("asked without a pipe".to_owned())
}
