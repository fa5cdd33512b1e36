//! What a build needs from the program around it: a console, other images, processes.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};

use super::moving::Line;
use crate::cli::output::{Lines, Printable};
use crate::oci::{ImageId, Platform, TagRef};
use crate::ops::build::{BuildError, End, Event, Execution, Host, Ran};
use crate::runtime::{self, Job, OutOfReach};
use crate::store::Store;
use crate::store::containers::Status;
use crate::sys::container::{exit_now, signal};
use crate::sys::fork::{Fork, fork};
use crate::sys::own_binary;
use crate::sys::signal::SignalFd;
use crate::sys::{proc, procfs};
use crate::text::format::human_size;

/// Where the output of a build goes.
pub(super) struct Console {
    lines: Mutex<Lines>,
    /// With `-q`: everything, until it is known whether anybody wants to see it.
    kept: Option<File>,
}

impl Console {
    pub(super) fn new(quiet: bool) -> io::Result<Console> {
        let kept = match quiet {
            true => Some(File::from(rustix::fs::memfd_create(
                "build",
                MemfdFlags::CLOEXEC,
            )?)),
            false => None,
        };
        Ok(Console {
            lines: Mutex::default(),
            kept,
        })
    }

    /// Prints a line. A tab of a Dockerfile stays one.
    fn print(&self, line: &str) {
        if line.contains('\t') && self.kept.is_none() {
            let parts: Vec<String> = line
                .split('\t')
                .map(|part| Printable(part).to_string())
                .collect();
            return self.lines.lock().print_safe(&parts.join("\t"));
        }
        match &self.kept {
            // It is in memory.
            Some(kept) => _ = writeln!(&*kept, "{}", Printable(line)),
            None => self.lines.lock().print(line),
        }
    }

    /// Something that is no error.
    pub(super) fn warn(&self, line: &str) {
        if self.kept.is_none() {
            // A stderr that is closed is no reason to stop.
            let _ = writeln!(io::stderr(), "{}", Printable(line));
        }
    }

    /// The image is there.
    pub(super) fn done(&self, id: &ImageId, tags: &[TagRef]) {
        if self.kept.is_some() {
            self.lines.lock().print(&id.to_string());
            return;
        }
        self.print(&format!("Successfully built {}", id.short()));
        for tag in tags {
            self.print(&format!("Successfully tagged {}", tag.familiar()));
        }
    }

    /// Shows on stderr what `-q` has kept back.
    pub(super) fn show_all(&self) {
        let Some(kept) = &self.kept else { return };
        let mut at = 0;
        let mut buffer = vec![0; 64 << 10];
        while let Ok(got @ 1..) = kept.read_at(&mut buffer, at) {
            if io::stderr()
                .write_all(buffer.get(..got).unwrap_or_default())
                .is_err()
            {
                return;
            }
            at += got as u64;
        }
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        std::mem::take(&mut *self.lines.lock()).finish()
    }
}

/// The steps of one build.
pub(super) struct Steps<'a> {
    store: &'a Store,
    console: &'a Console,
    out_of_reach: OutOfReach,
    line: Option<Arc<Line>>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        store: &'a Store,
        console: &'a Console,
        out_of_reach: OutOfReach,
        line: Option<Arc<Line>>,
    ) -> Steps<'a> {
        Steps {
            store,
            console,
            out_of_reach,
            line,
        }
    }
}

impl Host for Steps<'_> {
    fn tell(&mut self, event: &Event<'_>) {
        let line = match event {
            Event::Context { bytes } => {
                format!(
                    "Sending build context to Docker daemon  {}",
                    human_size(*bytes)
                )
            }
            Event::Step {
                number,
                total,
                text,
            } => {
                if let Some(line) = &self.line {
                    line.step(*number, *total);
                }
                format!("Step {number}/{total} : {text}")
            }
            Event::Triggers(1) => "# Executing 1 build trigger".to_owned(),
            Event::Triggers(count) => format!("# Executing {count} build triggers"),
            Event::Cached => " ---> Using cache".to_owned(),
            Event::Running(container) => format!(" ---> Running in {container}"),
            Event::Removed(container) => format!("Removing intermediate container {container}"),
            Event::Image(id) => format!(" ---> {}", id.short()),
            Event::Warning(text) => return self.console.warn(&format!("[Warning] {text}")),
        };
        self.console.print(&line);
    }

    fn pull(&mut self, name: &str, platform: &Platform) -> Result<(), BuildError> {
        let mut command = Command::new(own_binary::OWN);
        command.arg("--store").arg(self.store.path()).arg("pull");
        if *platform != Platform::host() {
            command.arg("--platform").arg(platform.to_string());
        }
        let status = command
            .args(["--", name])
            .stdin(Stdio::null())
            .stdout(match self.console.kept {
                Some(_) => Stdio::null(),
                None => Stdio::from(io::stderr().as_fd().try_clone_to_owned()?),
            })
            .status()?;
        match status.success() {
            true => Ok(()),
            // It has said why.
            false => Err(BuildError::Context(format!("cannot get image {name}"))),
        }
    }

    /// A process of its own is the container's supervisor: what it does to signals, threads and descriptors ends with it.
    fn run(&mut self, execution: Execution<'_>) -> Result<Ran, BuildError> {
        let id = execution.container.record.id.clone();
        let job = Job {
            store: execution.store.clone(),
            container: execution.container,
            lock: execution.lock,
            mounts: execution.mounts,
            volumes: Vec::new(),
            images: execution.images,
        };
        wait_until_alone()?;
        let signals = SignalFd::block()?;
        let pid = match fork()? {
            Fork::Child => supervise(job, self.out_of_reach, self.console.kept.as_ref()),
            Fork::Parent(pid) => proc::pid(pid),
        };
        let waited = pid.ok_or_else(|| io::Error::other("a process without a number"));
        let (code, interrupted) = waited.and_then(|pid| wait(pid, &signals))?;
        signals.release()?;
        let container = self.store.container(&id)?.unwrap_or(job.container);
        let end = match (&container.state.status, interrupted) {
            (_, true) => End::Interrupted,
            (Status::Exited { code, .. }, false) => End::Exited(*code),
            (_, false) => End::NotStarted(
                code,
                match container.state.error.is_empty() {
                    true => "the step's supervisor was killed".to_owned(),
                    false => container.state.error.clone(),
                },
            ),
        };
        Ok(Ran {
            container,
            lock: job.lock,
            end,
        })
    }
}

/// Becomes the supervisor of a step's container.
fn supervise(job: Job, out_of_reach: OutOfReach, kept: Option<&File>) -> ! {
    // What is typed at the terminal is for the build, which then ends this process.
    let _ = rustix::process::setpgid(None, None);
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    if let Some(kept) = kept {
        let shown =
            rustix::stdio::dup2_stdout(kept).and_then(|()| rustix::stdio::dup2_stderr(kept));
        if let Err(error) = shown {
            log::warn!("keeping a step's output back: {error}");
        }
    }
    if !tied {
        exit_now(125)
    }
    let (_, result) = runtime::run(job, out_of_reach);
    exit_now(match result {
        Ok(code) => code.into(),
        Err(error) => error.code.into(),
    })
}

/// Waits for the supervisor; its exit status, and whether the user has broken it off.
fn wait(pid: Pid, signals: &SignalFd) -> io::Result<(u8, bool)> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut interrupted = false;
    loop {
        let mut fds = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        while signals.take()?.is_some() {
            interrupted = true;
            // The container's guard ends every process of the step with it.
            signal(&process, libc::SIGKILL)?;
        }
        if ended {
            break;
        }
    }
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => {
                let code = status
                    .exit_status()
                    .and_then(|code| u8::try_from(code).ok());
                return Ok((code.unwrap_or(125), interrupted));
            }
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Threads that have been joined may be seen for a moment more; none may be left when this process forks.
fn wait_until_alone() -> io::Result<()> {
    for _ in 0..1000 {
        if procfs::own_threads()? == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
