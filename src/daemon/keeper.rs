//! The keeper of a mount: a small process that holds what the mount stands by, and starts the next server when one has died.
//!
//! It is a small program of its own (`mica-keeper`), as one like `mica` has more than a megabyte of addresses in it that are its own in each
//! process; where that is not installed it is the same program, started anew. It serves nothing and reads no store; what it
//! holds are the connections to the kernel (of M and of `M/stores`), for each the two files of the tree's memory, and the files of the
//! names that the kernel may know things by. A server that ends as it should says so, and the keeper ends too. A line that breaks means that its server has died: the next
//! one is started, at most [`TRIES`] times; if none serves within [`PATIENCE`], the keeper ends, and the kernel with it the
//! connection: who waits gets ENOTCONN.

mod line;
mod programs;
mod words;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};

pub(super) use line::{Line, Message};
pub(super) use words::Words;

use crate::sys::proc;
use crate::sys::signal::SignalFd;

/// The hidden verbs of the program.
pub(super) const KEEP: &str = "keep-mount";
pub(super) const SERVE: &str = "serve-kept";
pub(super) const TRY: &str = "try-kept";

/// How often a server is started for one that has died.
const TRIES: u32 = 3;
/// How long all of these may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two of them, so that what each of them costs is not asked for thousands of times.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a program may take to say that it understands.
const TRY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may go on whose line is broken, and how often it is looked at meanwhile.
const LAST_WORDS: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(1);
/// How long one that was killed is waited for.
const KILLED: Duration = Duration::from_millis(200);
/// A server that has lived so long has worked: its end is not for the same reason as the last one's.
const WORKED: Duration = Duration::from_secs(10);
/// So many files of names are held of a connection at most: of older ones the kernel has been told long ago. All have to fit into
/// one message.
pub(super) const MAX_NAMES: usize = 100;

/// What a mount stands by.
#[derive(Debug, Default)]
struct Kept {
    /// What the server wants to be told; nothing that the keeper reads.
    state: Vec<u8>,
    /// The program of the server that has said so.
    server: Option<OwnedFd>,
    connections: Vec<Connection>,
    /// The program of the next server, if it is another.
    program: Option<OwnedFd>,
}

/// What one connection stands by.
#[derive(Debug)]
struct Connection {
    /// Itself, the tree's table, and its counters.
    files: [OwnedFd; 3],
    names: VecDeque<OwnedFd>,
}

/// Why one server's time is over.
enum Over {
    /// As it should.
    Ended,
    /// It has died.
    Died,
}

/// Keeps the mount that the process at the other end of standard input tells of.
pub(super) fn keep() -> anyhow::Result<()> {
    rustix::thread::set_name(proc::KEEPER).context("naming the process")?;
    // Signals are for the server; the keeper ends with it.
    let signals = SignalFd::block().context("blocking signals")?;
    // Before it can have died and be somebody else.
    let starter =
        rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let mut server = proc::Process::open(starter).context("the server")?;
    let mut line = own_line()?;
    let mut kept = match line.receive()? {
        Some((Message::Keep { names, state }, files)) => {
            let mut kept = Kept::default();
            kept.replace(&names, state, files)?;
            kept
        }
        _ => bail!("nobody has said what to keep"),
    };
    line.send(&Message::Served, &[])?;
    let mut child: Option<Child> = None;
    let mut since = Instant::now();
    let mut crashes = 0;
    loop {
        if let Over::Ended = kept.follow(&line, &signals, server.as_ref())? {
            return Ok(());
        }
        let status = child.take().map(end).transpose()?.flatten();
        crashes = match status {
            Some(status) if crashed(status) && since.elapsed() < WORKED => crashes + 1,
            _ => 0,
        };
        let how = status.map_or_else(String::new, |status| format!(" ({status})"));
        log::warn!("the server of a mount is gone{how}: starting another");
        if crashes >= TRIES {
            bail!("{crashes} servers have crashed one after the other: the mount ends");
        }
        match kept.serve_again()? {
            Some((next, started)) => {
                server = proc::Process::open(started.id()).context("the server")?;
                (line, child) = (next, Some(started));
            }
            None => return Ok(()),
        }
        since = Instant::now();
    }
}

/// The line to the server, which is standard input.
pub(super) fn own_line() -> anyhow::Result<Line> {
    let line = rustix::stdio::stdin()
        .try_clone_to_owned()
        .context("standard input")?;
    let nothing = openat(
        CWD,
        "/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    rustix::stdio::dup2_stdin(nothing.context("/dev/null")?).context("closing stdin")?;
    Ok(Line::from(line))
}

/// A program as `verb`, with a line as its standard input.
fn start(verb: &str, program: &Path) -> io::Result<(Line, Child)> {
    let (ours, theirs) = Line::pair()?;
    let child = Command::new(program)
        .arg0("mica")
        .arg(verb)
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    Ok((ours, child))
}

/// What has been tried is what is run.
fn by_descriptor(program: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", program.as_raw_fd()).into()
}

/// Makes sure of the end of a server whose line is broken. It is about to end, and may have something to say first.
///
/// `None`: it was killed and is not gone yet. A thread of it may wait in the kernel for a lock that is given back only when the
/// next server has answered its holder; a thread here then waits for it.
fn end(mut child: Child) -> anyhow::Result<Option<ExitStatus>> {
    for (patience, last) in [(LAST_WORDS, false), (KILLED, true)] {
        let end_of_patience = Instant::now() + patience;
        loop {
            let status = child.try_wait().context("waiting for a server's end")?;
            if status.is_some() {
                return Ok(status);
            }
            if Instant::now() >= end_of_patience {
                break;
            }
            std::thread::sleep(LOOK);
        }
        if !last {
            // Ended already, most of the time.
            let _ = child.kill();
        }
    }
    let wait = move || drop(child.wait());
    if let Err(error) = std::thread::Builder::new()
        .name("mica-ended".to_owned())
        .stack_size(32 * 1024)
        .spawn(wait)
    {
        log::warn!("a server that was killed stays a zombie: {error}");
    }
    Ok(None)
}

fn said(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "killed".to_owned(), |status| status.to_string())
}

/// By itself, and not as it should: not killed by anybody (nor for want of memory).
fn crashed(status: ExitStatus) -> bool {
    !status.success() && status.signal() != Some(libc::SIGKILL)
}

impl Kept {
    fn replace(
        &mut self,
        names: &[usize],
        state: Vec<u8>,
        files: Vec<OwnedFd>,
    ) -> anyhow::Result<()> {
        let mut files = files.into_iter();
        let server = files.next().context("a descriptor is missing")?;
        let mut connections = Vec::with_capacity(names.len());
        for count in names {
            let mut next = || files.next().context("a descriptor is missing");
            connections.push(Connection {
                files: [next()?, next()?, next()?],
                names: files.by_ref().take(*count).collect(),
            });
        }
        (self.state, self.connections) = (state, connections);
        self.server = Some(server);
        Ok(())
    }

    /// Takes what a server says until its time is over.
    fn follow(
        &mut self,
        line: &Line,
        signals: &SignalFd,
        server: Option<&proc::Process>,
    ) -> anyhow::Result<Over> {
        loop {
            let mut fds = [
                PollFd::new(line, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the server"),
            }
            if let Some(number) = signals.take_number().context("reading signals")?
                && let Some(server) = server
                && let Err(error) = server.signal(number)
            {
                log::debug!("passing signal {number} on: {error}");
            }
            if !line.wait(Duration::ZERO)? {
                continue;
            }
            match line.receive()? {
                None => return Ok(Over::Died),
                Some((Message::End, _)) => return Ok(Over::Ended),
                Some((Message::Try(program), _)) => {
                    let answer = match self.try_program(&program) {
                        Ok(()) => Message::Served,
                        Err(error) => Message::No(format!("{error:#}")),
                    };
                    if line.send(&answer, &[]).is_err() {
                        return Ok(Over::Died);
                    }
                }
                Some((message, files)) => self.note(message, files)?,
            }
        }
    }

    /// Takes a program for that of the next server, if it understands what a server is told.
    fn try_program(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = openat(CWD, path, flags, Mode::empty());
        let program = program.with_context(|| shown.to_string())?;
        let (line, child) =
            start(TRY, &by_descriptor(&program)).with_context(|| format!("starting {shown}"))?;
        let began = self.begin(&line, Instant::now() + TRY_PATIENCE);
        let status = end(child)?;
        match began? {
            None => {
                self.program = Some(program);
                Ok(())
            }
            Some(_) => bail!(
                "{shown} cannot take over from this version ({})",
                said(status)
            ),
        }
    }

    fn note(&mut self, message: Message, files: Vec<OwnedFd>) -> anyhow::Result<()> {
        match message {
            Message::Keep { names, state } => self.replace(&names, state, files)?,
            Message::Names { of, alone } => {
                // Of one that has ended meanwhile: nobody needs them.
                let Some(connection) = self.connections.get_mut(of) else {
                    return Ok(());
                };
                let names = &mut connection.names;
                // The one before the new is what is shown until then.
                while alone && names.len() > 1 {
                    names.pop_front();
                }
                names.extend(files);
                while names.len() > MAX_NAMES {
                    names.pop_front();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Starts servers until one serves. `None`: it found that there is nothing to serve any more.
    fn serve_again(&mut self) -> anyhow::Result<Option<(Line, Child)>> {
        match self.serve_with_program() {
            Err(error) if self.program.take().is_some() => {
                log::error!("{error:#}; the version before goes on");
                self.serve_with_program()
            }
            served => served,
        }
    }

    fn serve_with_program(&mut self) -> anyhow::Result<Option<(Line, Child)>> {
        let end_of_patience = Instant::now() + PATIENCE;
        let mut failed = 0;
        while failed < TRIES {
            let program = self.program.as_ref().or(self.server.as_ref());
            let program = by_descriptor(program.context("no program for a server")?);
            let (line, child) = match start(SERVE, &program) {
                Ok(started) => started,
                // Such as too many processes: there may be fewer in a moment.
                Err(error) if Instant::now() + PAUSE < end_of_patience => {
                    log::warn!("starting a server: {error}");
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(error).context("starting a server"),
            };
            let began = self.begin(&line, end_of_patience);
            match began {
                Ok(Some(Over::Ended)) => {
                    end(child)?;
                    return Ok(None);
                }
                Ok(None) => return Ok(Some((line, child))),
                Ok(Some(Over::Died)) => {
                    let status = end(child)?;
                    log::warn!("a server did not begin: {}", said(status));
                    failed += u32::from(status.is_some_and(crashed));
                    if failed < TRIES {
                        std::thread::sleep(PAUSE);
                    }
                }
                Err(error) => {
                    end(child)?;
                    bail!("{error:#}: the mount ends");
                }
            }
        }
        bail!("{TRIES} servers have failed to begin: the mount ends");
    }

    /// Gives a server all that it needs and waits until it serves.
    fn begin(&mut self, line: &Line, end: Instant) -> anyhow::Result<Option<Over>> {
        let all = self.connections.iter();
        let of_all = all.flat_map(|one| one.files.iter().chain(&one.names));
        let files = self.server.iter().chain(of_all).map(AsFd::as_fd);
        let files: Vec<BorrowedFd<'_>> = files.collect();
        let names = self.connections.iter().map(|one| one.names.len());
        let keep = Message::Keep {
            names: names.collect(),
            state: self.state.clone(),
        };
        if line.send(&keep, &files).is_err() {
            return Ok(Some(Over::Died));
        }
        loop {
            if !line.wait(end.saturating_duration_since(Instant::now()))? {
                bail!("no server has begun within {} s", PATIENCE.as_secs());
            }
            match line.receive()? {
                None => return Ok(Some(Over::Died)),
                Some((Message::End, _)) => return Ok(Some(Over::Ended)),
                Some((Message::Served, _)) => return Ok(None),
                Some((message, files)) => self.note(message, files)?,
            }
        }
    }
}

/// A server's side.
#[derive(Debug)]
pub(super) struct Keeper {
    line: Line,
    /// Only of one that this process has started.
    child: Option<Child>,
}

impl Keeper {
    /// Starts one, tells it `keep`, and waits until it holds everything.
    pub(super) fn start(keep: &Message, files: &[BorrowedFd<'_>]) -> anyhow::Result<Keeper> {
        let (small, own) = programs::keepers();
        for program in small {
            match Keeper::start_by(&program, keep, files) {
                Ok(keeper) => return Ok(keeper),
                // Of another version, most likely.
                Err(error) => log::warn!("{}: {error:#}", program.display()),
            }
        }
        Keeper::start_by(&own, keep, files)
    }

    fn start_by(
        program: &Path,
        keep: &Message,
        files: &[BorrowedFd<'_>],
    ) -> anyhow::Result<Keeper> {
        let (line, child) = start(KEEP, program).context("starting the keeper")?;
        let mut keeper = Keeper {
            line,
            child: Some(child),
        };
        let begun = keeper.line.send(keep, files);
        let begun = begun.and_then(|()| keeper.line.wait(PATIENCE));
        match begun {
            Ok(true) if matches!(keeper.line.receive(), Ok(Some((Message::Served, _)))) => {
                Ok(keeper)
            }
            _ => {
                keeper.reap();
                bail!("the keeper did not begin; its reason is above, or in daemon.log");
            }
        }
    }

    /// The one that has started this process.
    pub(super) fn starter(line: Line) -> Keeper {
        Keeper { line, child: None }
    }

    /// Of one that this process has started.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// This process serves.
    pub(super) fn served(&self) -> io::Result<()> {
        self.line.send(&Message::Served, &[])
    }

    /// Everything that there is to hold from now on.
    pub(super) fn keep(&self, keep: &Message, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.line.send(keep, files)
    }

    /// The names that are shown from now on through the connection at position `of`; `alone`: the kernel knows nothing by older ones than
    /// the present.
    pub(super) fn names(&self, of: usize, file: BorrowedFd<'_>, alone: bool) -> io::Result<()> {
        self.line.send(&Message::Names { of, alone }, &[file])
    }

    /// The mount is over.
    pub(super) fn end(mut self) {
        // Gone already: then there is nothing to end.
        let _ = self.line.send(&Message::End, &[]);
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.wait()
        {
            log::debug!("waiting for the keeper's end: {error}");
        }
    }

    /// Has the next server run `program`; why not, if it cannot.
    pub(super) fn try_program(&self, program: PathBuf) -> Result<(), String> {
        let asked = self.line.send(&Message::Try(program), &[]);
        let answered = asked.and_then(|()| self.line.wait(PATIENCE));
        match answered {
            Ok(true) => match self.line.receive() {
                Ok(Some((Message::Served, _))) => Ok(()),
                Ok(Some((Message::No(reason), _))) => Err(reason),
                _ => Err("the keeper has died".to_owned()),
            },
            Ok(false) => Err("the keeper does not answer".to_owned()),
            Err(error) => Err(format!("asking the keeper: {error}")),
        }
    }

    /// Whether it has died.
    pub(super) fn is_gone(&self) -> bool {
        self.line.is_over()
    }

    /// Takes up one that has died.
    pub(super) fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ended already, or of no use.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
