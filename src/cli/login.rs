//! `mica login` and `mica logout`.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{Context, transport};
use crate::oci::reference::is_domain;
use crate::registry::Client;
use crate::registry::credentials::{self, Credential};

/// Docker Hub, when no registry is named.
const DEFAULT: &str = "docker.io";

/// Log in to a registry
///
/// The credential is tried, and then kept where docker keeps it: with the credential helper that ~/.docker/config.json names,
/// else in that file.
#[derive(clap::Args)]
pub(super) struct LoginArgs {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// The user name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password or access token; better is --password-stdin, which other users cannot see in ps
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    #[command(flatten)]
    transport: transport::TransportArgs,
}

/// Log out from a registry
#[derive(clap::Args)]
pub(super) struct LogoutArgs {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// `https://registry.example.com/` is `registry.example.com`. It goes to credential helpers, whose language has lines.
fn domain(server: Option<&str>) -> anyhow::Result<String> {
    let server = server.unwrap_or(DEFAULT);
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let host = bare.split('/').next().unwrap_or(bare);
    anyhow::ensure!(
        is_domain(host),
        "{server:?} is no registry: expected HOST[:PORT]"
    );
    Ok(match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT.to_owned(),
        host => host.to_owned(),
    })
}

/// Runs `mica login`.
pub(super) fn login(args: LoginArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    let domain = domain(args.server.as_deref())?;
    let terminal = io::stdin().is_terminal();
    // docker's words, this and the next.
    anyhow::ensure!(
        !(args.password_stdin && args.username.is_none()),
        "the --password-stdin option requires --username"
    );
    let user = match args.username {
        Some(user) => user,
        None => {
            anyhow::ensure!(
                terminal,
                "cannot ask for a user name: stdin is no terminal; use --username"
            );
            eprint!("Username: ");
            read_line()?
        }
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => {
            eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        (None, true) => {
            let mut text = String::new();
            io::stdin()
                .take(1 << 20)
                .read_to_string(&mut text)
                .context("stdin")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => {
            anyhow::ensure!(
                terminal,
                "cannot ask for a password: stdin is no terminal; use --password-stdin"
            );
            eprint!("Password: ");
            without_echo(read_line)?
        }
    };
    anyhow::ensure!(!password.is_empty(), "password is empty");
    let credential = Credential::Password { user, password };
    let options = args.transport.options();
    Client::connect_as(&domain, &options, Some(credential.clone()))?.check_login()?;
    let mut out = io::stdout();
    if let Some(path) = credentials::keep(&domain, &credential)? {
        eprintln!(
            "The password is kept unencrypted in {}; a credential helper keeps it better.",
            path.display()
        );
    }
    writeln!(out, "Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `mica logout`.
pub(super) fn logout(args: LogoutArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    let domain = domain(args.server.as_deref())?;
    let key = credentials::key(&domain).to_owned();
    let mut out = io::stdout();
    match credentials::forget(&domain)? {
        true => writeln!(out, "Removing login credentials for {key}")?,
        false => writeln!(out, "Not logged in to {key}")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("stdin")?;
    Ok(line.trim().to_owned())
}

/// Runs `read` while the terminal shows nothing of what is typed.
fn without_echo<T>(read: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).context("terminal")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).context("terminal")?;
    let result = read();
    tcsetattr(&stdin, OptionalActions::Flush, &before).context("terminal")?;
    eprintln!();
    result
}
