//! From inside the container's tree to its program: terminal, user, working directory, privileges, `exec`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Pid, Signal, Uid, WaitOptions, chdir, getcwd, ioctl_tiocsctty,
    set_dumpable_behavior, setsid, umask, wait,
};
use rustix::pty::OpenptFlags;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::super::channel::{Channel, FromChild};
use super::{Fails, Failure, wait_for};
use crate::ops::container::run::{limits, security, user};
use crate::store::containers::Ulimit;
use crate::sys::container::{exec, exit_now, install_filter, reset_signals, signal};
use crate::sys::fork::{Fork, close_inherited, fork};
use crate::sys::pause::pause;
use crate::sys::proc;
use crate::sys::signal::SignalFd;

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

/// What the program reads from and writes to, unless it has a terminal.
#[derive(Debug)]
pub(in crate::runtime) struct Stdio(pub(in crate::runtime) [OwnedFd; 3]);

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

/// From here on only the calls that the program may make, for this process and all it will start. With new privileges to be
/// had it takes one that is gone by now: [`drop_privileges`] has done it.
fn restrict(program: &Program) -> Result<(), Failure> {
    match &program.filter {
        Some(filter) if !program.new_privileges => install(filter),
        _ => Ok(()),
    }
}

fn install(filter: &security::Program) -> Result<(), Failure> {
    install_filter(&filter.instructions, filter.flags).map_err(|error| {
        let text = match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL) => format!(
                "the kernel has no seccomp filters ({error}): run without one (--security-opt seccomp=unconfined)"
            ),
            _ => format!("restricting system calls: {error}"),
        };
        Failure::start(text)
    })
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

/// More of a list of users or groups is not read.
const MAX_LIST: u64 = 16 << 20;

/// A file of the container's, which can be anything: a pipe that nobody writes to, or a link to a device that never ends.
pub(in crate::runtime) fn read_list(path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_LIST).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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

/// Gives up, before anything of the container can see this process, all that it takes no more to become the program. Whoever may
/// trace processes in the container (`--cap-add SYS_PTRACE`) finds nothing in this one that he has not, but the means to change its
/// ids and its own capabilities.
pub(in crate::runtime) fn come_with_little(program: &Program) -> Result<(), Failure> {
    let what = "giving up privileges";
    hide()?;
    let mut needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP;
    if program.new_privileges && program.filter.is_some() {
        // What it takes to install a filter then.
        needed |= CapabilitySet::SYS_ADMIN;
    }
    for number in &program.capabilities {
        needed |= CapabilitySet::from_bits_retain(1u64.checked_shl(*number).unwrap_or(0));
    }
    let mut sets = capabilities(None).fails(what)?;
    sets.permitted &= needed;
    sets.effective &= needed;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).fails(what)
}

/// Nobody may look into this process any more. Its name says that nothing is missed thereby.
fn hide() -> Result<(), Failure> {
    let what = "hiding from the container";
    rustix::thread::set_name(proc::STARTER).fails(what)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).fails(what)
}

/// Keeps the capabilities named and no others, for this process and everything it will start.
fn drop_privileges(program: &Program, user: &user::User, single_id: bool) -> Result<(), Failure> {
    let what = "giving up privileges";
    if program.new_privileges
        && let Some(filter) = &program.filter
    {
        install(filter)?;
    }
    let mut kept = CapabilitySet::empty();
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if program.capabilities.contains(&number) {
            kept |= capability;
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel has none of that number.
            Err(rustix::io::Errno::INVAL) => {}
            other => other.fails(what)?,
        }
    }
    clear_ambient_capability_set().fails(what)?;
    if !single_id {
        // The group of the user is one of them: else a file that it is shut out of would be open to him.
        let groups = [user.gid].into_iter().chain(user.groups.iter().copied());
        let groups: BTreeSet<u32> = groups.collect();
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        set_thread_groups(&groups).fails(what)?;
    }
    let unmapped = |error| match error {
        rustix::io::Errno::INVAL => Failure {
            code: 126,
            text: format!(
                "cannot run as user {:?}: the container has no user {} or no group {}",
                program.user, user.uid, user.gid
            ),
        },
        error => Failure::start(format!("{what}: {error}")),
    };
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).map_err(unmapped)?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).map_err(unmapped)?;
    let held = match user.uid {
        0 => kept,
        _ => CapabilitySet::empty(),
    };
    let sets = CapabilitySets {
        effective: held,
        permitted: held,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).fails(what)?;
    match program.new_privileges {
        true => Ok(()),
        false => set_no_new_privs(true).fails(what),
    }
}

/// The directories a program without a slash is looked for in.
fn lookup_path(env: &[String]) -> String {
    let set = env.iter().find_map(|v| v.strip_prefix("PATH="));
    set.unwrap_or(crate::ops::container::run::DEFAULT_PATH)
        .to_owned()
}

/// Replaces this process by the program.
fn execute(args: &[CString], env: &[CString], path: &str, kept: &[u32]) -> Failure {
    let Some(name) = args.first() else {
        return Failure {
            code: 127,
            text: "no command specified".to_owned(),
        };
    };
    let shown = name.to_string_lossy();
    if shown.contains('/') {
        let error = exec(name, args, env);
        return refusal(&error, name, kept, &shown, &format!("stat {shown}: "));
    }
    let mut denied = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let Ok(candidate) = CString::new(format!("{dir}/{shown}")) else {
            continue;
        };
        let error = exec(&candidate, args, env);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            _ => {
                denied.get_or_insert((error, candidate));
            }
        }
    }
    match denied {
        Some((error, file)) => refusal(&error, &file, kept, &shown, ""),
        None => Failure {
            code: 127,
            text: format!(
                "unable to start container process: exec: {shown:?}: executable file not found in $PATH"
            ),
        },
    }
}

fn refusal(error: &io::Error, file: &CString, kept: &[u32], shown: &str, missing: &str) -> Failure {
    let (code, text) = match error.raw_os_error() {
        Some(libc::ENOENT) => (127, format!("{missing}no such file or directory")),
        Some(libc::ENOTDIR) => (127, format!("{missing}not a directory")),
        Some(libc::ENOEXEC) => (126, "exec format error".to_owned()),
        Some(libc::EACCES) => (126, "permission denied".to_owned()),
        Some(libc::EPERM) => (
            126,
            format!("operation not permitted{}", wanted(file, kept)),
        ),
        _ => (126, error.to_string()),
    };
    Failure {
        code,
        text: format!("unable to start container process: exec: {shown:?}: {text}"),
    }
}

/// What to say about a file that wants capabilities which the container has not: the kernel then does not execute it.
fn wanted(file: &CString, kept: &[u32]) -> String {
    let mut value = [0u8; 24];
    let Ok(length) = rustix::fs::getxattr(file.as_c_str(), c"security.capability", &mut value[..])
    else {
        return String::new();
    };
    // A header, then permitted and inheritable of 32 capabilities, then those of the next 32.
    let word = |at: usize| {
        let bytes = value.get(..length)?.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let words = [word(4).unwrap_or(0), word(12).unwrap_or(0)];
    let bits = (0u32..).zip(words).flat_map(|(at, word)| {
        let numbers = (0..32).filter(move |bit| word & (1 << bit) != 0);
        numbers.map(move |bit| at * 32 + bit)
    });
    let names = bits.filter(|number| !kept.contains(number));
    let names: Vec<String> = names.filter_map(security::capability_name).collect();
    match names.as_slice() {
        [] => String::new(),
        names => {
            let options = names.iter().map(|name| {
                let short = name.strip_prefix("CAP_").unwrap_or(name);
                format!("--cap-add {short}")
            });
            let options: Vec<String> = options.collect();
            format!(
                "; the file wants a capability that the container has not: {}",
                options.join(" ")
            )
        }
    }
}

/// The small init: process 1 stays behind in here, collects orphans, passes signals on, and ends as the program does. Only
/// its child returns.
fn init(program: &Program) -> Result<(), Failure> {
    let signals = SignalFd::block_forwarded(true).fails("blocking signals")?;
    let child = match fork().fails("starting the program")? {
        Fork::Child => {
            reset_signals();
            return Ok(());
        }
        Fork::Parent(child) => child,
    };
    // The supervisor waits for the last copy of its channel to go. Nothing here returns to who owns the descriptors.
    std::mem::forget(signals);
    if close_inherited(&[rustix::stdio::stderr()]).is_err() {
        exit_now(125)
    }
    let Ok(signals) = SignalFd::block_forwarded(true) else {
        exit_now(125)
    };
    // Signals of the terminal come through the supervisor only. Fails only for who leads a group already.
    let _ = setsid();
    let child = i32::try_from(child).ok().and_then(Pid::from_raw);
    let Some(child) = child else { exit_now(125) };
    let Ok(process) = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())
    else {
        exit_now(125)
    };
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        exit_now(125)
    }
    if restrict(program).is_err() {
        exit_now(125)
    }
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        // Interrupted or not: what there is to do is looked for.
        let _ = poll(&mut fds, None);
        while let Ok(Some(number)) = signals.take_number() {
            if number != libc::SIGCHLD {
                // It may have ended.
                let _ = signal(&process, number);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                exit_now(super::super::code_of(status).into())
            }
        }
    }
}

fn strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    let texts = texts.iter().map(|text| CString::new(text.as_str()));
    texts
        .collect::<Result<_, _>>()
        .fails("an argument or variable contains a NUL byte")
}
