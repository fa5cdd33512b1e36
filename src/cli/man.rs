//! `mica man`: the manual pages, from the definition of the command line and from doc/SEMANTICS.md.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, help};

mod examples;

/// The promises, as shipped.
const SEMANTICS: &str = include_str!("../../doc/SEMANTICS.md");

/// Write the manual pages into a directory
///
/// mica(1), one page for each verb, and mica-fs(7) on the tree of files.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where; man1 and man7 are made in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (one, seven) = (args.dir.join("man1"), args.dir.join("man7"));
    for dir in [&one, &seven] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let shown = || args.dir.display().to_string();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, "mica", &one).with_context(shown)?;
    fs::write(seven.join("mica-fs.7"), tree_page(SEMANTICS)).with_context(shown)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of a verb and those of the verbs below it.
fn pages(command: &clap::Command, name: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(below, &format!("{name} {}", below.get_name()), dir)?;
    }
    let file = format!("{}.1", name.replace(' ', "-"));
    fs::write(dir.join(file), page(command, name)?)
}

fn page(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let title = name.replace(' ', "-");
    let man = clap_mangen::Man::new(command.clone()).title(&title);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    let usage = command.clone().render_usage().to_string();
    writeln!(out, ".SH SYNOPSIS\n{}", synopsis(&usage, name))?;
    man.render_description_section(&mut out)?;
    let words = name.strip_prefix("mica ").unwrap_or_default();
    if words.is_empty() {
        writeln!(out, "{}", roff(ABOUT))?;
    }
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    if words.is_empty() {
        for (heading, text) in SECTIONS {
            writeln!(out, ".SH {heading}\n{}", roff(text))?;
        }
    }
    let lines = match words {
        "" => FIRST,
        words => examples::of(words),
    };
    writeln!(out, ".SH EXAMPLES")?;
    for (line, what) in lines {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(line), roff(what))?;
    }
    let group = help::GROUPS.iter().find(|(_, verbs)| {
        let verb = words.split(' ').next().unwrap_or_default();
        verbs.contains(&verb)
    });
    let beside = group.map(|(_, verbs)| *verbs).unwrap_or_default();
    let beside = beside
        .iter()
        .filter(|verb| **verb != words && **verb != "help");
    let mut also = vec!["mica(1)".to_owned()];
    also.extend(beside.map(|verb| format!("mica-{verb}(1)")));
    also.push("mica-fs(7)".to_owned());
    also.retain(|page| *page != format!("{title}(1)"));
    writeln!(out, ".SH \"SEE ALSO\"\n{}", roff(&also.join(", ")))?;
    Ok(out)
}

/// `Usage: mica run [OPTIONS] <IMAGE>` with its name in bold and what stands for something in italics.
fn synopsis(usage: &str, name: &str) -> String {
    let lines = usage.trim().trim_start_matches("Usage:").trim().lines();
    let lines = lines.map(|line| {
        let line = line.trim();
        let rest = line.strip_prefix(name).unwrap_or(line);
        let rest = roff(rest).replace('<', "\\fI").replace('>', "\\fR");
        format!("\\fB{}\\fR{rest}", roff(name))
    });
    lines.collect::<Vec<_>>().join("\n.br\n")
}

/// What mica(1) says beside its one line.
const ABOUT: &str = "Every local image is a directory below the mount point: the merged, read-only tree of its layers. What `ls`, `rm -r`, `mv` and `ln -s` do there, the verbs do without a mount, in docker's words: `alias docker=mica` serves a tutorial. Volumes are directories beside the images, and `mica run` starts processes in both. The store is one user's; no daemon is needed but for a mount.";

/// Sections of mica(1) alone.
const SECTIONS: &[(&str, &str)] = &[
    (
        "\"EXIT STATUS\"",
        "0 success, 1 the command failed wholly or in part or has the wrong number of arguments, 125 a flag is wrong, 64 a template does not parse. `mica run` and `mica exec` end as their command does; 126: it cannot be run, 127: there is none.",
    ),
    (
        "ENVIRONMENT",
        "`MICA_STORE` is the store's directory, as `--store`; `MICA_LOG`=debug prints more to stderr (error, warn, info, debug, trace).",
    ),
    (
        "FILES",
        "/var/lib/mica is the store of root, ~/.local/share/mica that of others. ~/.docker/config.json and the files of podman hold credentials; /etc/docker/daemon.json and ~/.config/docker/daemon.json name registries that need no certificate and mirrors of Docker Hub.",
    ),
];

/// The examples of mica(1).
const FIRST: &[(&str, &str)] = &[
    ("mica pull debian:12", "an image"),
    ("mica mount mnt", "its files are in mnt/images/debian/12"),
    ("mica run --rm -it debian:12 bash", "a process in it"),
    ("mica rmi debian:12", "and gone"),
];

/// Headings, paragraphs and bullets as roff.
fn tree_page(markdown: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH mica-fs 7 \"\" \"mica {version}\"\n.SH NAME\nmica-fs \\- the directory tree of container images that mica mounts\n"
    );
    for line in markdown.lines() {
        let text = |text: &str| roff(text);
        if line.starts_with("# ") {
            page.push_str(".SH DESCRIPTION\n");
        } else if let Some(heading) = line.strip_prefix("## ") {
            page.push_str(&format!(".SH {}\n", text(&heading.to_uppercase())));
        } else if let Some(bullet) = line.strip_prefix("- ") {
            page.push_str(&format!(".IP \\(bu 2\n{}\n", text(bullet)));
        } else if !line.is_empty() {
            page.push_str(&format!("{}\n", text(line)));
        }
    }
    page.push_str(".SH SEE ALSO\nmica(1), mica-mount(1)\n");
    page
}

/// Code between backticks in bold; nothing else is markup.
fn roff(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = part.replace('\\', "\\e").replace('-', "\\-");
        match i % 2 {
            0 => out.push_str(&part),
            _ => out.push_str(&format!("\\fB{part}\\fR")),
        }
    }
    match out.starts_with(['.', '\'']) {
        true => format!("\\&{out}"),
        false => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a line up to the first pipe.
    fn words(line: &str) -> Vec<String> {
        let words = line.split(' ').take_while(|word| *word != "|");
        words.map(str::to_owned).collect()
    }

    #[test]
    fn every_page_has_examples_that_can_be_typed() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut todo = vec![(command.clone(), "mica".to_owned())];
        let mut pages = 0;
        while let Some((command, name)) = todo.pop() {
            let page = String::from_utf8(page(&command, &name).unwrap()).unwrap();
            let examples = page.split(".SH EXAMPLES\n").nth(1).unwrap();
            assert!(examples.starts_with(".TP\n\\fBmica "), "{name}: {examples}");
            assert!(
                examples.contains(".SH \"SEE ALSO\"\nmica"),
                "{name}: {examples}"
            );
            let start = format!(".SH SYNOPSIS\n\\fB{}\\fR", roff(&name));
            assert!(page.contains(&start), "{name}: {page}");
            pages += 1;
            let below = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            todo.extend(below.map(|verb| (verb.clone(), format!("{name} {}", verb.get_name()))));
        }
        assert!(pages > 80, "{pages}");
        for (verb, lines) in examples::EXAMPLES {
            for (line, what) in *lines {
                assert!(
                    line.starts_with(&format!("mica {verb}")) && !what.is_empty(),
                    "{line}"
                );
            }
        }
        let all = examples::EXAMPLES.iter().flat_map(|(_, lines)| *lines);
        for (line, _) in all.chain(FIRST) {
            let parsed = Cli::command().try_get_matches_from(words(line));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        let run = command.find_subcommand("run").unwrap().clone();
        let usage = run.clone().render_usage().to_string();
        assert_eq!(
            synopsis(&usage, "mica run"),
            "\\fBmica run\\fR [OPTIONS] \\fIIMAGE\\fR [COMMAND]..."
        );
    }

    #[test]
    fn pages_are_roff() {
        assert_eq!(roff("`rm -r` is a\\b"), "\\fBrm \\-r\\fR is a\\eb");
        assert_eq!(roff(".x"), "\\&.x");
        let page = tree_page("# Title\n\nText.\n\n## Names\n- One `M/x`.\n");
        assert!(
            page.ends_with(
                ".SH DESCRIPTION\nText.\n.SH NAMES\n.IP \\(bu 2\nOne \\fBM/x\\fR.\n.SH SEE ALSO\nmica(1), mica-mount(1)\n"
            ),
            "{page}"
        );
    }
}
