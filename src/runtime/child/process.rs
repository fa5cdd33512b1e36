//! From inside the container's tree to its program: terminal, user, working directory, privileges, `exec`.

mod init;
mod privileges;
mod replace;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::process::{Signal, chdir, getcwd, ioctl_tiocsctty, setsid, umask};
use rustix::pty::OpenptFlags;

use self::init::init;
pub(in crate::runtime) use self::privileges::come_with_little;
use self::privileges::{drop_privileges, hide, restrict};
use self::replace::{execute, lookup_path, strings};
use super::super::channel::{Channel, FromChild};
use super::wait_for;
use crate::ops::container::run::{limits, security, user};
use crate::runtime::failure::{Fails, Failure};
use crate::runtime::standard::Stdio;
use crate::runtime::users::read_list;
use crate::store::containers::Ulimit;
use crate::sys::pause::pause;

/// A program to run in a container.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Program {
    /// The first is looked up in the container's `PATH`.
    pub(in crate::runtime) args: Vec<String>,
    pub(in crate::runtime) env: Vec<String>,
    pub(in crate::runtime) cwd: String,
    /// Make the working directory if it is not there.
    pub(in crate::runtime) make_cwd: bool,
    pub(in crate::runtime) user: String,
    pub(in crate::runtime) tty: bool,
    /// Process 1 is a small init in front of the program.
    pub(in crate::runtime) init: bool,
    /// Ends with the supervisor, however that ends.
    pub(in crate::runtime) tied: bool,
    pub(in crate::runtime) capabilities: Vec<u32>,
    /// What holds it to the system calls it may make.
    pub(in crate::runtime) filter: Option<security::Program>,
    /// Set-user-id bits and file capabilities have their effect.
    pub(in crate::runtime) new_privileges: bool,
    pub(in crate::runtime) ulimits: Vec<Ulimit>,
}

/// Runs the program in place of this process, which is inside the container's namespaces and root already.
pub(in crate::runtime) fn run(
    program: &Program,
    channel: &Channel,
    stdio: Option<Stdio>,
    terminal: Option<OwnedFd>,
    made: Option<Vec<String>>,
    single_id: bool,
) -> Result<Infallible, Failure> {
    umask(Mode::from_raw_mode(0o022));
    pause("joined");
    let slave = match (terminal, program.tty) {
        (None, true) => Some(open_terminal(channel)?),
        (given, _) => given,
    };
    let user = who(program, single_id)?;
    if program.make_cwd {
        // What is wrong with it comes out when it is entered.
        let _ = make_directory(&program.cwd);
    }
    let path = lookup_path(&program.env);
    let mut env = program.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let env = strings(&env)?;
    let args = strings(&program.args)?;
    if let Some(made) = made {
        channel
            .send(&FromChild::Ready { made }, None)
            .fails("telling the supervisor")?;
        wait_for(channel)?;
    }
    // Until the program is there, /proc/PID/exe leads to the binary of mica on the host, and a process of the container that has
    // the same privileges could keep it open. After the exec the program is as any other.
    hide()?;
    limits::set(&program.ulimits).map_err(|error| Failure::start(error.to_string()))?;
    drop_privileges(program, &user, single_id)?;
    if program.init {
        // Process 1 has no more rights than what it waits for.
        init(program)?;
    }
    // The terminal of whoever started us is none of the program's business.
    if setsid().is_err() {
        log::debug!("leading a session already");
    }
    match (slave, stdio) {
        (Some(slave), _) => {
            ioctl_tiocsctty(&slave).fails("taking the terminal")?;
            redirect([&slave, &slave, &slave])?;
        }
        (None, Some(Stdio([input, output, errors]))) => redirect([&input, &output, &errors])?,
        (None, None) => {}
    }
    let cwd = match program.cwd.as_str() {
        "" => "/",
        cwd => cwd,
    };
    go_to(cwd).map_err(|error| Failure {
        code: 126,
        text: format!("unable to start container process: chdir to cwd ({cwd:?}) failed: {error}"),
    })?;
    if program.tied {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .fails("tying the process to its supervisor")?;
        // It may have ended before that call.
        let mut fds = [PollFd::new(channel, PollFlags::empty())];
        let now = rustix::event::Timespec::default();
        if poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && !program.init {
            return Err(Failure::start("the supervisor ended".to_owned()));
        }
    }
    restrict(program)?;
    Err(execute(&args, &env, &path, &program.capabilities))
}

/// Makes a directory and those above it, as far as they are missing: of directories, and of links that the image has, which lead
/// to places below its root.
fn make_directory(path: &str) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| openat2(&root, path, flags, Mode::empty(), inside);
    let mut way = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => {
                let above = open(&Path::new(".").join(&way))?;
                way.push(name);
                match open(&way) {
                    Err(Errno::NOENT) => mkdirat(&above, name, Mode::from_raw_mode(0o755))?,
                    found => drop(found?),
                }
            }
            Component::ParentDir => drop(way.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(())
}

/// Changes the working directory, to one that lies below the root.
fn go_to(path: &str) -> rustix::io::Result<()> {
    chdir(path)?;
    // The kernel's name of one that does not begins with "(unreachable)".
    match getcwd(Vec::new())?.as_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(Errno::NOENT),
    }
}

/// What the kernel's file system of terminals says it is.
const DEVPTS: rustix::fs::FsWord = 0x1cd1;

/// Opens a terminal of the container's own and gives its master side away. What is in the place of one, by a volume or a process
/// in there, is not one.
fn open_terminal(channel: &Channel) -> Result<OwnedFd, Failure> {
    let what = "opening a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let direct = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), direct).fails(what)?;
    if rustix::fs::fstatfs(&master).fails(what)?.f_type != DEVPTS {
        let text = format!("{what}: /dev/pts of the container is something else");
        return Err(Failure::start(text));
    }
    let waiting = rustix::fs::fcntl_getfl(&master).fails(what)? - OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&master, waiting).fails(what)?;
    rustix::pty::unlockpt(&master).fails(what)?;
    // By the master, not by a name that somebody may have given to another.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).fails(what)?;
    channel
        .send(&FromChild::Terminal, Some(master.as_fd()))
        .fails(what)?;
    Ok(slave)
}

/// The user to run as, by the container's own files.
fn who(program: &Program, single_id: bool) -> Result<user::User, Failure> {
    // Images without one exist.
    let read = |path: &str| read_list(path).unwrap_or_default();
    let found = user::resolve(&program.user, &read("/etc/passwd"), &read("/etc/group")).map_err(
        |error| Failure {
            code: 126,
            text: format!("unable to start container process: {error}"),
        },
    )?;
    if single_id && (found.uid != 0 || found.gid != 0) {
        return Err(Failure {
            code: 126,
            text: format!(
                "cannot run as user {:?}: there is only one user id here, root; /etc/subuid and /etc/subgid give more (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)",
                program.user
            ),
        });
    }
    Ok(found)
}

fn redirect(descriptors: [&OwnedFd; 3]) -> Result<(), Failure> {
    let [input, output, errors] = descriptors;
    rustix::stdio::dup2_stdin(input).fails("standard input")?;
    rustix::stdio::dup2_stdout(output).fails("standard output")?;
    rustix::stdio::dup2_stderr(errors).fails("standard error")
}
