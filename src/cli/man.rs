//! `mica man`: the manual pages, from the definition of the command line and from doc/SEMANTICS.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Cli;

/// The promises, as shipped.
const SEMANTICS: &str = include_str!("../../doc/SEMANTICS.md");

/// Write the manual pages into a directory
///
/// mica(1), one page for each verb, and mica-fs(7) on the tree of files.
#[derive(clap::Args)]
pub struct Args {
    /// Where; man1 and man7 are made in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (one, seven) = (args.dir.join("man1"), args.dir.join("man7"));
    for dir in [&one, &seven] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let shown = || args.dir.display().to_string();
    clap_mangen::generate_to(Cli::command(), &one).with_context(shown)?;
    fs::write(seven.join("mica-fs.7"), tree_page(SEMANTICS)).with_context(shown)?;
    Ok(ExitCode::SUCCESS)
}

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
