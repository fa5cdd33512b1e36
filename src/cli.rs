//! The command line: parse, call one `ops` function, format. Sole user of clap.
//!
//! A verb is one file: `Args` (clap), `run(args, &Context) -> anyhow::Result<ExitCode>`, a variant of [`Verb`] and an
//! arm in [`run`]. Names, flags and texts are docker's.
//!
//! Exit codes, docker's: 0 success (a reader that closed our output early included), 1 the verb failed wholly or in part, or has
//! the wrong number of arguments, 125 a flag is wrong, 64 a template does not parse. Errors go to stderr; what docker's daemon would say carries docker's prefix
//! `Error response from daemon: `, everything else starts with `mica: `.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use crate::daemon;
use crate::store::{OpenMode, Store, StoreError};
use crate::sys::signal::survive_file_size_limit;
use crate::text::template::TemplateError;

mod absent;
mod archive_output;
mod attach;
mod build;
mod bundle;
mod check;
mod commit;
mod completion;
mod connect;
mod container;
mod cp;
mod create;
mod df;
mod diff;
mod events;
mod exec;
mod export;
mod filters;
mod form;
mod gc;
mod help;
mod history;
mod hold;
mod images;
mod import;
mod inspect;
mod kill;
mod limits;
mod load;
mod login;
mod logs;
mod man;
mod mount;
mod not_started;
mod output;
mod pin;
mod progress;
mod prompt;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod switches;
mod system_prune;
mod tag;
mod transfer;
mod transport;
mod trash;
mod tree;
mod umount;
mod usage;
mod users;
mod version;
mod volume;

use output::print_error;

/// A filesystem for container images and volumes.
#[derive(Parser)]
#[command(
    name = "mica",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = "Exit status: 0 success, 1 the command failed wholly or in part, 125 a flag is wrong,\n\
                  64 a template does not parse.\n\
                  MICA_LOG=debug prints more to stderr (error, warn, info, debug, trace)."
)]
struct Cli {
    /// The store's directory [env: MICA_STORE] [default: /var/lib/mica for root, else ~/.local/share/mica]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    store: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

// Each start of the program builds the options of the verb that is meant, not those of all.
#[derive(Subcommand)]
#[command(defer = true)]
enum Verb {
    Pull(pull::Args),
    Push(push::Args),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Load(load::Args),
    Save(save::Args),
    Import(import::Args),
    Export(export::Args),
    Build(Box<build::Args>),
    #[command(disable_help_flag = true)]
    Run(Box<run::Args>),
    #[command(disable_help_flag = true)]
    Create(Box<create::CreateArgs>),
    Exec(exec::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Start(start::Args),
    Stop(kill::StopArgs),
    Kill(kill::KillArgs),
    Pause(kill::PauseArgs),
    Unpause(kill::UnpauseArgs),
    Wait(start::WaitArgs),
    Restart(rename::RestartArgs),
    Rename(rename::RenameArgs),
    Top(rename::TopArgs),
    Port(rename::PortArgs),
    Rm(rm::Args),
    Images(images::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Inspect(inspect::Args),
    History(history::Args),
    Diff(diff::Args),
    Commit(commit::Args),
    Tree(tree::Args),
    Pin(pin::PinArgs),
    Unpin(pin::UnpinArgs),
    Trash(trash::TrashArgs),
    Restore(trash::RestoreArgs),
    Events(events::Args),
    Bundle(bundle::Args),
    Gc(gc::Args),
    Check(check::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    /// The verbs on containers by their long names
    #[command(subcommand)]
    Container(container::ContainerVerb),
    Users(users::Args),
    Info(version::InfoArgs),
    Version(version::VersionArgs),
    Hold(hold::Args),
    /// The verbs on images by their long names
    #[command(subcommand)]
    Image(ImageVerb),
    /// Volumes: directories that processes share
    #[command(subcommand)]
    Volume(volume::VolumeVerb),
    /// The store as a whole
    #[command(subcommand)]
    System(SystemVerb),
    /// What builds keep for later builds
    #[command(subcommand)]
    Builder(BuilderVerb),
    Completion(completion::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// The noun forms: `mica image ls`.
#[derive(Subcommand)]
#[command(defer = true)]
enum ImageVerb {
    #[command(visible_alias = "list")]
    Ls(images::Args),
    Build(Box<build::Args>),
    Pull(pull::Args),
    Push(push::Args),
    Load(load::Args),
    Save(save::Args),
    Import(import::Args),
    Tag(tag::Args),
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    Inspect(inspect::ImageArgs),
    History(history::Args),
    Tree(tree::Args),
    Pin(pin::PinArgs),
    Unpin(pin::UnpinArgs),
    Restore(trash::RestoreArgs),
    Prune(prune::Args),
}

/// `mica builder prune`.
#[derive(Subcommand)]
#[command(defer = true)]
enum BuilderVerb {
    Build(Box<build::Args>),
    Prune(build::prune::Args),
}

/// `mica system df`.
#[derive(Subcommand)]
#[command(defer = true)]
enum SystemVerb {
    Df(df::Args),
    Events(events::Args),
    Info(version::InfoArgs),
    Prune(system_prune::Args),
    Connect(connect::ConnectArgs),
    Disconnect(connect::DisconnectArgs),
}

impl ImageVerb {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let verb = match self {
            ImageVerb::Ls(args) => Verb::Images(args),
            ImageVerb::Build(args) => Verb::Build(args),
            ImageVerb::Pull(args) => Verb::Pull(args),
            ImageVerb::Push(args) => Verb::Push(args),
            ImageVerb::Load(args) => Verb::Load(args),
            ImageVerb::Save(args) => Verb::Save(args),
            ImageVerb::Import(args) => Verb::Import(args),
            ImageVerb::Tag(args) => Verb::Tag(args),
            ImageVerb::Rm(args) => Verb::Rmi(args),
            ImageVerb::Inspect(args) => return inspect::images(args, context),
            ImageVerb::History(args) => Verb::History(args),
            ImageVerb::Tree(args) => Verb::Tree(args),
            ImageVerb::Pin(args) => Verb::Pin(args),
            ImageVerb::Unpin(args) => Verb::Unpin(args),
            ImageVerb::Restore(args) => Verb::Restore(args),
            ImageVerb::Prune(args) => return prune::run(args, context),
        };
        run(verb, context)
    }
}

/// What every verb gets from the global options.
pub struct Context {
    /// `--store`, when given.
    store: Option<PathBuf>,
    /// What the verb has opened.
    opened: RefCell<Vec<Store>>,
}

impl Context {
    /// The directory of the store that is meant.
    pub fn store_path(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(Store::default_path)
    }

    /// The store, which must exist.
    pub fn store(&self) -> Result<Store, StoreError> {
        self.open(OpenMode::Existing)
    }

    /// The store, which is made if it is not there.
    pub fn new_store(&self) -> Result<Store, StoreError> {
        self.open(OpenMode::Create)
    }

    fn open(&self, mode: OpenMode) -> Result<Store, StoreError> {
        let store = Store::open(&self.store_path(), mode)?;
        self.opened.borrow_mut().push(store.clone());
        Ok(store)
    }

    /// Tells the mounts what the verb has changed, whatever became of it. What they do not take in is a warning: the change has
    /// happened.
    fn publish(&self) {
        for store in self.opened.take() {
            store.publish();
        }
    }

    /// The store, if there is one: before the first `load` there is nothing, and that is no error for who only looks.
    pub fn existing_store(&self) -> Result<Option<Store>, StoreError> {
        match self.store() {
            Err(StoreError::NotAStore { path }) if !path.exists() => {
                // An empty answer would pass for that of a store with nothing in it.
                if io::stderr().is_terminal() {
                    let path = path.display().to_string();
                    eprintln!(
                        "mica: there is no store at {} yet; MICA_STORE or --store choose another",
                        output::Printable(&path)
                    );
                }
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }
}

/// The program: parses the process's arguments and runs the verb.
pub fn main() -> ExitCode {
    survive_file_size_limit();
    if let Some(part) = std::env::args_os()
        .nth(1)
        .and_then(|verb| daemon::part(&verb))
    {
        return serve(part);
    }
    completion::answer();
    if will_start_a_program(std::env::args_os().skip(1)) {
        // Here it costs least: what follows is done once. The verb asks again, and says why it cannot.
        let _ = crate::runtime::OutOfReach::ensure();
    }
    let parsed = switches::parse(std::env::args_os()).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches);
        cli.map_err(|error| error.format(&mut help::command()))
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage::tell(&error),
    };
    init_logging(matches!(cli.verb, Verb::Mount(_)));
    let context = Context {
        store: cli.store,
        opened: RefCell::default(),
    };
    let done = run(cli.verb, &context);
    context.publish();
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            match error.downcast_ref() {
                // docker's status for it.
                Some(TemplateError::Parse { .. }) => ExitCode::from(64),
                Some(TemplateError::Exec { .. }) | None => ExitCode::FAILURE,
            }
        }
    }
}

/// Whether a command line is of a verb that starts a program in a container; for one that cannot be told it is no.
fn will_start_a_program(mut words: impl Iterator<Item = OsString>) -> bool {
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("run" | "exec" | "start") => return true,
            Some("container") => {}
            Some("--store") => drop(words.next()),
            Some(option) if option.starts_with("--store=") => {}
            _ => return false,
        }
    }
    false
}

fn run(verb: Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Pull(args) => pull::run(args, context),
        Verb::Push(args) => push::run(args, context),
        Verb::Login(args) => login::login(args, context),
        Verb::Logout(args) => login::logout(args, context),
        Verb::Load(args) => load::run(args, context),
        Verb::Save(args) => save::run(args, context),
        Verb::Import(args) => import::run(args, context),
        Verb::Export(args) => export::run(args, context),
        Verb::Images(args) => images::run(args, context),
        Verb::Tag(args) => tag::run(args, context),
        Verb::Rmi(args) => rmi::run(args, context),
        Verb::Inspect(args) => inspect::run(args, context),
        Verb::History(args) => history::run(args, context),
        Verb::Diff(args) => diff::run(args, context),
        Verb::Commit(args) => commit::run(args, context),
        Verb::Tree(args) => tree::run(args, context),
        Verb::Pin(args) => pin::pin(args, context),
        Verb::Unpin(args) => pin::unpin(args, context),
        Verb::Trash(args) => trash::trash(args, context),
        Verb::Restore(args) => trash::restore(args, context),
        Verb::Events(args) => events::run(args, context),
        Verb::Bundle(args) => bundle::run(args, context),
        Verb::Gc(args) => gc::run(args, context),
        Verb::Check(args) => check::run(args, context),
        Verb::Mount(args) => mount::run(args, context),
        Verb::Umount(args) => umount::run(args, context),
        Verb::Build(args) | Verb::Builder(BuilderVerb::Build(args)) => build::run(*args, context),
        Verb::Builder(BuilderVerb::Prune(args)) => build::prune::run(args, context),
        Verb::Run(args) => run::run(*args, context),
        Verb::Create(args) => create::run(*args, context),
        Verb::Exec(args) => exec::run(args, context),
        Verb::Attach(args) => attach::run(args, context),
        Verb::Cp(args) => cp::run(args, context),
        Verb::Ps(args) => ps::run(args, context),
        Verb::Logs(args) => logs::run(args, context),
        Verb::Start(args) => start::run(args, context),
        Verb::Stop(args) => kill::stop(args, context),
        Verb::Kill(args) => kill::kill(args, context),
        Verb::Pause(args) => kill::pause(args, context),
        Verb::Unpause(args) => kill::unpause(args, context),
        Verb::Wait(args) => start::wait(args, context),
        Verb::Restart(args) => rename::restart(args, context),
        Verb::Rename(args) => rename::rename(args, context),
        Verb::Top(args) => rename::top(args, context),
        Verb::Port(args) => rename::port(args, context),
        Verb::Info(args) => version::info(args, context),
        Verb::Version(args) => version::version(args),
        Verb::Rm(args) => rm::run(args, context),
        Verb::Container(verb) => verb.run(context),
        Verb::Users(args) => users::run(args, context),
        Verb::Hold(args) => hold::run(args, context),
        Verb::Volume(verb) => verb.run(context),
        Verb::Image(verb) => verb.run(context),
        Verb::System(SystemVerb::Df(args)) => df::run(args, context),
        Verb::System(SystemVerb::Events(args)) => events::run(args, context),
        Verb::System(SystemVerb::Info(args)) => version::info(args, context),
        Verb::System(SystemVerb::Prune(args)) => system_prune::run(args, context),
        Verb::System(SystemVerb::Connect(args)) => connect::connect(args, context),
        Verb::System(SystemVerb::Disconnect(args)) => connect::disconnect(args, context),
        Verb::Completion(args) => completion::run(args),
        Verb::Man(args) => man::run(args),
    }
}

/// Log lines go to stderr: warnings, errors and what is changed through a mount, or what `MICA_LOG` asks for (env_logger's
/// syntax). Only of the daemon they are a log, with times; what a verb says is for who has typed it.
/// A process of a mount that mica starts itself: it needs none of what parses a command line, and stays small.
fn serve(part: fn() -> anyhow::Result<()>) -> ExitCode {
    init_logging(true);
    match part() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init_logging(of_daemon: bool) {
    let environment = env_logger::Env::new()
        .filter_or(
            "MICA_LOG",
            "warn,mica::fs=info,mica::ops::volume=info,fuser=off",
        )
        .write_style("MICA_LOG_STYLE");
    // A second initialisation (tests) keeps the first.
    let mut builder = env_logger::Builder::from_env(environment);
    if !of_daemon && std::env::var_os("MICA_LOG").is_none() {
        builder.format(|to, record| {
            let text = record.args().to_string();
            writeln!(to, "mica: {}", output::Printable(&text))
        });
    }
    // They would log the headers of requests: passwords and tokens.
    for module in ["ureq", "ureq_proto", "rustls"] {
        builder.filter_module(module, log::LevelFilter::Off);
    }
    // A second initialisation (tests) keeps the first.
    let _ = builder.try_init();
}

/// Whether the verb stopped because nobody reads its output any more (`mica images | head -1`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
