//! Where verbs that write an archive write it: to a file that appears when it is whole, or to stdout, never to a terminal.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::sys::new_file::NewFile;

/// The option that says where.
#[derive(clap::Args)]
pub(super) struct OutputArgs {
    /// Write to this file instead of stdout; it appears when it is complete, readable by its owner only
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl OutputArgs {
    /// Refuses a terminal. Call it before anything else is done.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        // docker's words.
        anyhow::ensure!(
            self.output.is_some() || !io::stdout().is_terminal(),
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        );
        Ok(())
    }

    /// Runs `write` on the output. On failure a file is as it was. A device or a pipe is written to as it is.
    pub(super) fn write<E>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> anyhow::Result<()>
    where
        E: Into<anyhow::Error>,
    {
        let Some(path) = &self.output else {
            return through(io::stdout().lock(), write);
        };
        let shown = || path.display().to_string();
        if let Ok(there) = path.metadata()
            && !there.is_file()
        {
            let file = File::options().write(true).open(path).with_context(shown)?;
            return through(file, write);
        }
        let file = NewFile::create(&whole(path)).with_context(shown)?;
        through(file.file(), write)?;
        file.persist().with_context(shown)
    }
}

/// A path whose last component is a name.
fn whole(path: &Path) -> PathBuf {
    match path.canonicalize() {
        Ok(there) => there,
        Err(_) => path.to_owned(),
    }
}

fn through<E: Into<anyhow::Error>>(
    out: impl Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    write(&mut out).map_err(Into::into)?;
    Ok(out.flush()?)
}
