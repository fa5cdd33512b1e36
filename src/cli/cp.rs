//! `mica cp`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path as HostPath, PathBuf};
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Context;
use super::output::Printable;
use crate::ops::container as containers;
use crate::ops::container::copy::{
    self, CopyError, Destination, Kind, Notes, Owner, Owners, Packing, Path, Unpacking,
};
use crate::ops::container::run;
use crate::runtime::{self, Job, OutOfReach, Visitor};
use crate::store::Store;
use crate::store::containers::Container;
use crate::sys::beneath::Host;
use crate::text::format::human_size;

/// Copy files between a container and here
///
/// The container runs or not. Of a directory the content is copied if its path ends with /. and the directory itself otherwise. A
/// dash is a tar archive on standard input or output. What is copied out belongs to you, and what is copied in to whom it belongs
/// here.
#[derive(clap::Args)]
pub(super) struct Args {
    /// In: everything belongs to the container's user; out, as root: to whom it belongs in the container, with set-id bits and
    /// devices
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link at the end of the source's path leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing of the success
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, PATH, or - for a tar archive on standard input
    #[arg(value_name = "SOURCE", add = super::completion::containers())]
    source: String,
    /// PATH, CONTAINER:PATH, or - for a tar archive on standard output
    #[arg(value_name = "DESTINATION", add = super::completion::containers())]
    destination: String,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let usage = |text: &str| Err(CopyError::Usage(text.to_owned()).into());
    if args.source.is_empty() {
        return usage("source can not be empty");
    }
    if args.destination.is_empty() {
        return usage("destination can not be empty");
    }
    let source = copy::split_argument(&args.source);
    let destination = copy::split_argument(&args.destination);
    let out_of_reach = OutOfReach::ensure()?;
    let store = context.store()?;
    match (source, destination) {
        ((Some(_), _), (Some(_), _)) => usage("copying between containers is not supported"),
        ((None, _), (None, _)) => usage("must specify at least one container source"),
        ((Some(name), from), (None, to)) => {
            let container = containers::find(&store, name)?;
            let copied = copy_out(&args, &store, &container, from, to, out_of_reach);
            copied.map_err(|error| missing(error, from, &container.record.name))
        }
        ((None, from), (Some(name), to)) => {
            let container = containers::find(&store, name)?;
            let copied = copy_in(&args, &store, &container, from, to, out_of_reach);
            copied.map_err(|error| missing(error, to, &container.record.name))
        }
    }
}

/// docker's words for a file that a container has not.
fn not_there(path: &str, name: &str) -> CopyError {
    CopyError::Refused(format!(
        "Could not find the file {path} in container {name}"
    ))
}

fn missing(error: anyhow::Error, path: &str, name: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Gone) => not_there(path, name).into(),
        None => error,
    }
}

/// The container's side is not there.
#[derive(Debug, thiserror::Error)]
#[error("not there")]
struct Gone;

/// Goes to see a container, running or not.
pub(super) fn visit(
    store: &Store,
    container: &Container,
    out_of_reach: OutOfReach,
) -> anyhow::Result<Visitor> {
    Ok(match run::as_it_is(store, container.record.id.as_str())? {
        (_, Some(ready)) => runtime::visit_stopped(Job::new(store, ready), out_of_reach)?,
        (container, None) => runtime::visit_running(&container, out_of_reach)?,
    })
}

fn copy_out(
    args: &Args,
    store: &Store,
    container: &Container,
    from: &str,
    to: &str,
    out_of_reach: OutOfReach,
) -> anyhow::Result<ExitCode> {
    let to_stdout = to == "-";
    if to_stdout && io::stdout().is_terminal() {
        let text = "refusing to write an archive to a terminal: redirect it, or name a destination";
        return Err(CopyError::Usage(text.to_owned()).into());
    }
    let visitor = visit(store, container, out_of_reach)?;
    let given = Path::new(from.as_bytes());
    let mut source = from.as_bytes().to_vec();
    let mut found = visitor.look(&source)?.ok_or(Gone)?;
    if args.follow_link
        && let Some(target) = found.target.take()
    {
        found = visitor.look(&target)?.ok_or(Gone)?;
        source = target;
    }
    if to_stdout {
        let name: &[u8] = if given.is_content { b"" } else { given.name() };
        let mut archive = visitor.read(&source, name)?;
        let mut out = io::stdout().lock();
        let copied = io::copy(&mut archive, &mut out).and_then(|_| out.flush());
        drop(archive);
        let done = visitor.done();
        copied?;
        tell(&done?);
        return Ok(ExitCode::SUCCESS);
    }
    let (place, shown) = here(to)?;
    let plan = copy::place(found.kind, given.name(), given.is_content, &place)?;
    let directory = open_directory(&plan.directory)?;
    let archive = visitor.read(&source, &plan.name)?;
    let host = Host::new().map_err(io::Error::from)?;
    let trusted = args.archive && rustix::process::geteuid().is_root();
    let unpacking = Unpacking {
        host: &host,
        inside: false,
        owner: match trusted {
            true => Owner::Archive,
            false => Owner::Caller,
        },
        powers: trusted,
    };
    let mut counted = Counted::new(BufReader::with_capacity(1 << 18, archive));
    let unpacked = copy::unpack(unpacking, &directory, &mut counted);
    let bytes = counted.bytes;
    drop(counted);
    let notes = both(unpacked, visitor.done())?;
    tell(&notes);
    success(args, bytes, &shown);
    Ok(ExitCode::SUCCESS)
}

fn copy_in(
    args: &Args,
    store: &Store,
    container: &Container,
    from: &str,
    to: &str,
    out_of_reach: OutOfReach,
) -> anyhow::Result<ExitCode> {
    let from_stdin = from == "-";
    // Before anybody is visited: what is not here needs no look there.
    let source = match from_stdin {
        true => None,
        false => Some(Here::find(from, args.follow_link)?),
    };
    let visitor = visit(store, container, out_of_reach)?;
    let name = &container.record.name;
    let mut path = to.as_bytes().to_vec();
    let mut found = visitor.look(&path)?;
    if let Some(target) = found.as_mut().and_then(|found| found.target.take()) {
        found = visitor.look(&target)?;
        path = target;
    }
    let kind = found.map(|found| found.kind);
    if !matches!(kind, None | Some(Kind::Directory | Kind::File)) {
        let text = format!("destination \"{name}:{to}\" must be a directory or a regular file");
        return Err(CopyError::Usage(text).into());
    }
    let place = Destination {
        path: Path::new(&path),
        kind,
    };
    let Some(source) = source else {
        if kind != Some(Kind::Directory) {
            let text = format!("destination \"{name}:{to}\" must be a directory");
            return Err(CopyError::Usage(text).into());
        }
        let mut pipe = visitor.write(&place.path.clean, args.archive)?;
        let copied = io::copy(&mut io::stdin().lock(), &mut pipe);
        drop(pipe);
        let notes = both(
            refused(copied.map(drop)).map(|()| Notes::default()),
            visitor.done(),
        )?;
        tell(&notes);
        return Ok(ExitCode::SUCCESS);
    };
    let plan = copy::place(source.kind, &source.name, source.content, &place)?;
    let directory = String::from_utf8_lossy(&plan.directory).into_owned();
    if visitor.look(format!("{directory}/").as_bytes())?.is_none() {
        return Err(not_there(&directory, name).into());
    }
    let pipe = visitor.write(&plan.directory, args.archive)?;
    let host = Host::new().map_err(io::Error::from)?;
    let packing = Packing {
        host: &host,
        owners: match &container.record.ids {
            Some(ids) => Owners::Inside(ids),
            None => Owners::Same,
        },
        one_file_system: false,
    };
    let mut counted = Counted::new(BufWriter::with_capacity(1 << 18, pipe));
    let packed = copy::pack(packing, source.node, &plan.name, &mut counted);
    let flushed = counted.flush();
    let bytes = counted.bytes;
    drop(counted);
    let packed = packed.and_then(|notes| refused(flushed).map(|()| notes));
    let notes = both(packed, visitor.done())?;
    tell(&notes);
    success(args, bytes, &format!("{name}:{to}"));
    Ok(ExitCode::SUCCESS)
}

/// A pipe whose other end is closed: why is for the other side to say.
fn refused(written: io::Result<()>) -> Result<(), CopyError> {
    written.map_err(CopyError::Write)
}

/// Both sides' results. An end of the archive that one side did not expect is the other's fault.
fn both(
    ours: Result<Notes, CopyError>,
    theirs: Result<Notes, CopyError>,
) -> Result<Notes, CopyError> {
    match (ours, theirs) {
        (Err(CopyError::Write(_) | CopyError::Archive(_)), Err(error)) | (Ok(_), Err(error)) => {
            Err(error)
        }
        (Err(error), _) => Err(error),
        (Ok(ours), Ok(theirs)) => Ok(ours.and(theirs)),
    }
}

pub(super) fn tell(notes: &Notes) {
    for line in notes.lines() {
        eprintln!("mica: {line}");
    }
}

/// docker's word to a terminal.
fn success(args: &Args, bytes: u64, to: &str) {
    if !args.quiet && io::stdout().is_terminal() {
        let text = format!("Successfully copied {} to {to}", human_size(bytes));
        eprintln!("{}", Printable(&text));
    }
}

/// A source on the host.
struct Here {
    node: OwnedFd,
    kind: Kind,
    name: Vec<u8>,
    content: bool,
}

impl Here {
    /// Symbolic links in the directories of the path are followed, as for any program that is given one; that at its end only with
    /// `follow`, or where a directory is meant.
    fn find(text: &str, follow: bool) -> anyhow::Result<Here> {
        let path = absolute(text)?;
        let given = Path::new(path.as_os_str().as_bytes());
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !(follow || given.is_directory) {
            flags |= OFlags::NOFOLLOW;
        }
        if given.is_directory {
            flags |= OFlags::DIRECTORY;
        }
        let failed = |error: rustix::io::Errno| {
            CopyError::Usage(format!(
                "lstat {}: {}",
                path.display(),
                io::Error::from(error)
            ))
        };
        let node = openat(CWD, &path, flags, Mode::empty()).map_err(failed)?;
        let stat = crate::sys::beneath::stat(&node).map_err(failed)?;
        Ok(Here {
            kind: kind_of(u32::from(stat.stx_mode)),
            name: given.name().to_vec(),
            content: given.is_content,
            node,
        })
    }
}

fn kind_of(mode: u32) -> Kind {
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::Directory => Kind::Directory,
        rustix::fs::FileType::RegularFile => Kind::File,
        rustix::fs::FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

/// Below the working directory; what its end says stays.
fn absolute(text: &str) -> anyhow::Result<PathBuf> {
    let mut path = std::env::current_dir()?.into_os_string().into_vec();
    if text.starts_with('/') {
        path.clear();
    } else {
        path.push(b'/');
    }
    path.extend_from_slice(text.as_bytes());
    Ok(std::ffi::OsString::from_vec(path).into())
}

/// A destination on the host, with the words for it.
fn here(text: &str) -> anyhow::Result<(Destination, String)> {
    let path = absolute(text)?;
    let given = Path::new(path.as_os_str().as_bytes());
    let shown = String::from_utf8_lossy(&given.clean).into_owned();
    let mut place = Destination {
        path: given,
        kind: None,
    };
    let bytes = |path: PathBuf| path.into_os_string().into_vec();
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&place.path.clean));
    match std::fs::metadata(&path) {
        Ok(metadata) => {
            place.kind = Some(kind_of(std::os::unix::fs::MetadataExt::mode(&metadata)));
            // Of a link to a file it is the file that is replaced.
            let real = bytes(path.canonicalize()?);
            let is_directory = place.path.is_directory;
            place.path = Path {
                is_directory,
                ..Path::new(&real)
            };
        }
        Err(_) => {
            // A link to nothing yet: what it names is made.
            if let Ok(target) = std::fs::read_link(HostPath::new(&path)) {
                let parent = path.parent().unwrap_or(HostPath::new("/"));
                place.path = Path::new(&bytes(parent.join(target)));
            }
            let parent = std::ffi::OsStr::from_bytes(place.path.parent());
            if !HostPath::new(parent).is_dir() {
                let text = format!(
                    "invalid output path: directory \"{}\" does not exist",
                    HostPath::new(parent).display()
                );
                return Err(CopyError::Usage(text).into());
            }
        }
    }
    if place.kind == Some(Kind::Other) {
        let text =
            format!("invalid output path: \"{shown}\" must be a directory or a regular file");
        return Err(CopyError::Usage(text).into());
    }
    Ok((place, shown))
}

fn open_directory(path: &[u8]) -> anyhow::Result<OwnedFd> {
    let path = HostPath::new(std::ffi::OsStr::from_bytes(path));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty());
    let opened = opened.map_err(|error| {
        CopyError::Usage(format!("{}: {}", path.display(), io::Error::from(error)))
    })?;
    Ok(opened)
}

/// Counts what goes through.
struct Counted<T> {
    inner: T,
    bytes: u64,
}

impl<T> Counted<T> {
    fn new(inner: T) -> Counted<T> {
        Counted { inner, bytes: 0 }
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(into)?;
        self.bytes += got as u64;
        Ok(got)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(data)?;
        self.bytes += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The tree of a container without what is mounted in it: `export`.
pub(super) fn export_container(
    store: &Store,
    container: &Container,
    out_of_reach: OutOfReach,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let visitor = visit(store, container, out_of_reach)?;
    let mut archive: File = visitor.read_root()?;
    let copied = io::copy(&mut archive, out);
    drop(archive);
    let done = visitor.done();
    copied?;
    tell(&done?);
    Ok(())
}
