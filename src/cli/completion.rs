//! `mica completion`, and what the shells ask for as somebody types.
//!
//! A shell's script calls mica itself with the words so far, so that names of images are those of the store as it is now.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCompleter;
use clap_complete::env::{CompleteEnv, Shells};

use crate::store::LiveLease;
use crate::store::{OpenMode, Store};

use super::{Cli, output};

/// What asks mica for candidates, by naming the shell.
const VARIABLE: &str = "MICA_COMPLETE";

/// Print a shell's completion script
///
/// For bash: source <(mica completion bash). Names of images, containers and volumes are completed from the store. With
/// alias docker=mica: complete -o nospace -o bashdefault -F _mica docker in bash, compdef docker=mica in zsh, complete -c docker
/// -w mica in fish.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    if let Shell::Bash = args.shell {
        output::print(BASH)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shells = Shells::builtins();
    let shell = shells.completer(name);
    let shell = shell.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "mica", "mica", "mica", &mut script)?;
    if let Shell::Zsh = args.shell {
        // Found in the function path the file is run for the first answer itself, not only for what it defines.
        script.extend_from_slice(b"[[ $funcstack[1] == _mica ]] && _clap_dynamic_completer_mica\n");
    }
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// The script for bash. Its words are cut at blanks only: bash itself cuts at colons too, so that `name:ta` would be three words; what
/// stands before the last of its own cuts is taken off the answers again.
const BASH: &str = r#"_mica() {
    local IFS=$' \t\n' words cur
    read -r -a words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ "${COMP_LINE:0:COMP_POINT}" == *[[:blank:]] ]] && words+=("")
    cur="${words[${#words[@]}-1]}"
    words[0]=mica
    IFS=$'\n'
    COMPREPLY=( $( \
        _CLAP_IFS="$IFS" \
        _CLAP_COMPLETE_INDEX="$((${#words[@]} - 1))" \
        _CLAP_COMPLETE_COMP_TYPE="${COMP_TYPE}" \
        _CLAP_COMPLETE_SPACE=false \
        MICA_COMPLETE="bash" \
        mica -- "${words[@]}" 2>/dev/null \
    ) )
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
        return
    fi
    if [[ ${#COMPREPLY[@]} -gt 1 || "${COMPREPLY[0]}" != *[=/:] ]]; then
        compopt +o nospace 2>/dev/null
    fi
    if [[ "$cur" == *[:=]* && "$COMP_WORDBREAKS" == *:* ]]; then
        local done="${cur%"${cur##*[:=]}"}"
        COMPREPLY=( "${COMPREPLY[@]#"$done"}" )
    fi
}
complete -o nospace -o bashdefault -o default -F _mica mica
"#;

/// Answers a shell and ends the process, if one asks.
pub(super) fn answer() {
    if std::env::var_os(VARIABLE).is_some() && is_the_containers() {
        // After its image, or its name, a word is one of the program's that runs there: nothing of ours fits.
        std::process::exit(0);
    }
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

/// Whether the word that is being typed belongs to a command in a container.
fn is_the_containers() -> bool {
    let words: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect();
    let index = std::env::var("_CLAP_COMPLETE_INDEX")
        .ok()
        .and_then(|at| at.parse::<usize>().ok());
    let at = index.unwrap_or(words.len().saturating_sub(1));
    let Some(before) = words.get(..at) else {
        return false;
    };
    // The last word may be an option that waits for its value, which is then what is being typed.
    let parsed = super::switches::tolerant(before)
        .ignore_errors(true)
        .try_get_matches_from(before);
    let Ok(matches) = parsed else { return false };
    let waits = before
        .last()
        .is_some_and(|word| word.to_string_lossy().starts_with('-'));
    let given = |matches: &clap::ArgMatches, id: &str| {
        matches
            .try_get_raw(id)
            .ok()
            .flatten()
            .is_some_and(|mut words| words.next().is_some())
    };
    let inside = |verb: &str, matches: &clap::ArgMatches| match verb {
        "run" | "create" => given(matches, "words"),
        "exec" => given(matches, "container"),
        _ => false,
    };
    let found = match matches.subcommand() {
        Some(("container", noun)) => noun.subcommand(),
        other => other,
    };
    !waits && found.is_some_and(|(verb, matches)| inside(verb, matches))
}

/// Completes the names of containers.
pub(super) fn containers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = |store: Store| {
            Some(
                store
                    .containers()
                    .ok()?
                    .into_iter()
                    .map(|c| c.record.name)
                    .collect(),
            )
        };
        fitting(typed, all).unwrap_or_default()
    })
}

/// Completes the names of images and containers.
pub(super) fn images_and_containers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = candidates(typed).unwrap_or_default();
        let names = |store: Store| {
            Some(
                store
                    .containers()
                    .ok()?
                    .into_iter()
                    .map(|c| c.record.name)
                    .collect(),
            )
        };
        all.extend(fitting(typed, names).unwrap_or_default());
        all
    })
}

/// Completes names in the trash.
pub(super) fn trashed() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = |store: Store| {
            let names = store.names().ok()?;
            let entries = names.trash.entries.iter();
            Some(
                entries
                    .filter_map(|entry| Some(entry.name.as_ref()?.familiar()))
                    .collect(),
            )
        };
        fitting(typed, all).unwrap_or_default()
    })
}

/// Completes where the store is mounted.
pub(super) fn mounts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = |store: Store| {
            let leases = store.live_leases().ok()?;
            let points = leases.iter().filter_map(LiveLease::mountpoint);
            Some(points.map(|at| at.to_string_lossy().into_owned()).collect())
        };
        fitting(typed, all).unwrap_or_default()
    })
}

/// What `--filter` takes of images.
const OF_IMAGES: &[&str] = &[
    "before=",
    "dangling=true",
    "label=",
    "label!=",
    "reference=",
    "since=",
    "until=",
    "used=",
];
/// Of containers, the states of docker's that there are here among it.
pub(super) const OF_CONTAINERS: &[&str] = &[
    "ancestor=",
    "before=",
    "exited=",
    "id=",
    "label=",
    "name=",
    "since=",
    "status=created",
    "status=exited",
    "status=paused",
    "status=running",
    "volume=",
];
/// Of volumes.
pub(super) const OF_VOLUMES: &[&str] = &[
    "dangling=true",
    "driver=",
    "kind=bind",
    "kind=ephemeral",
    "kind=persistent",
    "label=",
    "name=",
];
/// Of events.
pub(super) const OF_EVENTS: &[&str] = &[
    "container=",
    "event=",
    "image=",
    "label=",
    "scope=local",
    "type=container",
    "type=image",
    "type=volume",
    "volume=",
];
/// Of containers that are to be pruned.
pub(super) const OF_PRUNED_CONTAINERS: &[&str] = &["label=", "label!=", "until="];
/// Of volumes that are to be pruned.
pub(super) const OF_PRUNED_VOLUMES: &[&str] = &["all=true", "label=", "label!="];

/// Completes what `--filter` of images takes.
pub(super) fn image_filters() -> ArgValueCompleter {
    filters(OF_IMAGES)
}

/// Completes what a `--filter` takes.
pub(super) fn filters(all: &'static [&'static str]) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let typed = typed.to_str().unwrap_or("\0");
        let fitting = all.iter().filter(|filter| filter.starts_with(typed));
        fitting.map(CompletionCandidate::new).collect::<Vec<_>>()
    })
}

/// What the store has that begins as typed. Nothing that fails says so: nobody has asked mica to do anything.
fn fitting(
    typed: &OsStr,
    all: impl FnOnce(Store) -> Option<Vec<String>>,
) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let store = Store::open(&Store::default_path(), OpenMode::ReadOnly).ok()?;
    let fitting = all(store)?
        .into_iter()
        .filter(|name| name.starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}

/// Completes the names of images.
pub(super) fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| candidates(typed).unwrap_or_default())
}

/// Completes the names of volumes.
pub(super) fn volumes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| volume_candidates(typed).unwrap_or_default())
}

/// Completes both.
pub(super) fn volumes_and_images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = volume_candidates(typed).unwrap_or_default();
        all.extend(candidates(typed).unwrap_or_default());
        all
    })
}

fn volume_candidates(typed: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let store = Store::open(&Store::default_path(), OpenMode::ReadOnly).ok()?;
    let names = store
        .volumes()
        .ok()?
        .into_iter()
        .map(|volume| volume.name.to_string());
    let fitting = names.filter(|name| name.starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}

/// The tags that begin as typed. Nothing that fails says so: nobody has asked mica to do anything.
fn candidates(typed: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let store = Store::open(&Store::default_path(), OpenMode::ReadOnly).ok()?;
    let names = store.names().ok()?;
    let tags = names.tags.keys().map(|tag| tag.familiar());
    // IDs for who has begun to type one.
    let is_id = typed.len() >= 2 && typed.bytes().all(|b| b.is_ascii_hexdigit());
    let ids = names.images.keys().filter(|_| is_id).map(|id| id.short());
    let fitting = tags.chain(ids).filter(|name| name.starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}
