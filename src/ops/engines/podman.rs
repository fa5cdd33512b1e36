//! podman's `storage.conf`: the line that makes a mount of ours one of its additional image stores.
//!
//! The file is TOML (containers-storage.conf(5)) and has no directory of drop-ins in the versions that distributions ship, so it
//! is edited by lines: what we add stands between two marks, and only that is ever taken away.

use std::path::{Path, PathBuf};

pub(super) const BEGIN: &str = "# mica begin";
pub(super) const END: &str = "# mica end";

/// Why the file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Somebody has set the option.
    #[error(
        "additionalimagestores is set already; add {0:?} to that list by hand, then run this again without --write"
    )]
    Taken(PathBuf),
    /// A path that TOML or podman's own option cannot carry.
    #[error(
        "{0}: a mount point with quotes, backslashes, commas or colons cannot be given to podman; mount elsewhere"
    )]
    Path(PathBuf),
    /// Another driver than overlay.
    #[error(
        "podman's storage driver is {0:?}; images of a mount can be used with \"overlay\" only"
    )]
    Driver(String),
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conf {
    /// `graphroot`
    pub graphroot: Option<PathBuf>,
    /// `driver`
    pub driver: Option<String>,
}

/// Reads what we need to know.
pub fn parse(text: &str) -> Conf {
    let mut conf = Conf::default();
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line;
        }
        if table != "[storage]" {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"').to_owned();
        match key.trim() {
            "graphroot" => conf.graphroot = Some(value.into()),
            "driver" => conf.driver = Some(value),
            _ => {}
        }
    }
    conf
}

/// The lines for a file with nothing else in it.
pub fn lines(stores: &Path) -> Result<String, ConfError> {
    let text = stores.to_str();
    let fits = |text: &&str| !text.contains(['"', '\\', ',', ':', '\n']);
    let text = text
        .filter(fits)
        .ok_or_else(|| ConfError::Path(stores.to_owned()))?;
    Ok(format!("additionalimagestores = [\"{text}\"]"))
}

/// The text of the file with the store added; of one that has it already, the same. An empty text gets what podman needs.
pub fn connect(
    text: &str,
    stores: &Path,
    graphroot: &Path,
    runroot: &Path,
) -> Result<String, ConfError> {
    let line = lines(stores)?;
    if let Some(driver) = parse(text).driver
        && driver != "overlay"
    {
        return Err(ConfError::Driver(driver));
    }
    let text = disconnect(text);
    let is_option = |line: &&str| {
        let key = line.trim_start().split('=').next();
        key.is_some_and(|key| key.trim() == "additionalimagestores")
    };
    if text.lines().any(|line| is_option(&line)) {
        return Err(ConfError::Taken(stores.to_owned()));
    }
    let block = format!("{BEGIN}\n{line}\n{END}\n");
    if text.trim().is_empty() {
        return Ok(format!(
            "{BEGIN}\n[storage]\ndriver = \"overlay\"\ngraphroot = {graphroot:?}\nrunroot = {runroot:?}\n\
             [storage.options]\n{line}\n{END}\n"
        ));
    }
    let mut out = String::new();
    let mut added = false;
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        if !added && line.trim() == "[storage.options]" {
            out.push_str(&block);
            added = true;
        }
    }
    if !added {
        out.push_str(&format!("{BEGIN}\n[storage.options]\n{line}\n{END}\n"));
    }
    Ok(out)
}

/// The text of the file without what [`connect`] has added.
pub fn disconnect(text: &str) -> String {
    let mut out = String::new();
    let mut ours = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN => ours = true,
            END if ours => ours = false,
            _ if ours => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// The store that [`connect`] has put there.
pub fn connected(text: &str) -> Option<PathBuf> {
    let ours = text.lines().skip_while(|line| line.trim() != BEGIN);
    let ours = ours.take_while(|line| line.trim() != END);
    let line = |line: &str| {
        let path = line.trim().strip_prefix("additionalimagestores = [\"")?;
        path.strip_suffix("\"]").map(PathBuf::from)
    };
    ours.filter_map(line).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(text: &str) -> Result<String, ConfError> {
        let [m, root, run] = ["/m/stores/containers", "/g", "/r"].map(Path::new);
        connect(text, m, root, run)
    }

    #[test]
    fn what_is_added_can_be_taken_away() {
        for text in [
            "",
            "[storage]\ndriver = \"overlay\"\n",
            "[storage]\ngraphroot = \"/x\"\n[storage.options]\nsize = \"\"\n# end\n",
        ] {
            let with = add(text).unwrap();
            assert_eq!(with.matches("additionalimagestores").count(), 1, "{with}");
            assert_eq!(add(&with).unwrap(), with);
            assert_eq!(disconnect(&with), text);
        }
        assert_eq!(parse(&add("").unwrap()).graphroot, Some("/g".into()));
        assert_eq!(disconnect("# mica end\nx\n"), "# mica end\nx\n");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let taken = "[storage.options]\nadditionalimagestores = []\n";
        assert!(matches!(add(taken), Err(ConfError::Taken(_))));
        let driver = "[storage]\ndriver = \"vfs\"\n";
        assert_eq!(add(driver), Err(ConfError::Driver("vfs".to_owned())));
        for path in ["/a:b", "/a\"b", "/a,b"] {
            let made = connect("", Path::new(path), Path::new("/g"), Path::new("/r"));
            assert!(matches!(made, Err(ConfError::Path(_))), "{path}");
        }
    }
}
