//! podman's `storage.conf`: the line that makes a mount of ours one of its additional image stores.
//!
//! The file is TOML (containers-storage.conf(5)) and has no directory of drop-ins in the versions that distributions ship, so it
//! is edited by lines: what we add stands between two marks, and only that is ever taken away. What the file says is a parser's word,
//! before and after: however it is written, it is left alone if the line would not mean what it is to mean there.

use std::path::{Path, PathBuf};

use toml_edit::{Document, Item};

pub(super) const BEGIN: &str = "# mica begin";
pub(super) const END: &str = "# mica end";

/// Why the file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Not TOML, or not what the option is.
    #[error("cannot be read: {0}")]
    Text(String),
    /// One of our marks without the other.
    #[error("has half of the marks {BEGIN:?} and {END:?}; mend that by hand")]
    Marks,
    /// Somebody has set the option.
    #[error(
        "additionalimagestores is set already; add {0:?} to that list by hand, then run this again without --write"
    )]
    Taken(PathBuf),
    /// No place where the line would mean what it is to mean.
    #[error(
        "storage.options is written in a way that no line can be added to; add additionalimagestores = [{0:?}] by hand, then run this again without --write"
    )]
    Place(PathBuf),
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
    /// `storage.graphroot`
    pub graphroot: Option<PathBuf>,
    /// `storage.driver`
    pub driver: Option<String>,
    /// `storage.options.additionalimagestores`
    stores: Option<Vec<String>>,
    /// Whether there is anything of `storage`.
    any: bool,
}

/// A file that can be parsed.
pub(super) fn document(text: &str) -> Result<Document<&str>, ConfError> {
    Document::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.as_bytes().iter().take(start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        ConfError::Text(format!("line {line}: {}", error.message()))
    })
}

/// Reads what we need to know.
pub fn parse(text: &str) -> Result<Conf, ConfError> {
    let document = document(text)?;
    let storage = document.get("storage");
    let get = |name: &str| storage.and_then(|storage| storage.get(name));
    let text = |name: &str| match get(name) {
        None => Ok(None),
        // An empty one is podman's default.
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => Err(ConfError::Text(format!("storage.{name} is no text"))),
        },
    };
    let stores = get("options").and_then(|options| options.get("additionalimagestores"));
    let texts = |item: &Item| {
        let list = item.as_array()?.iter();
        list.map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
    };
    Ok(Conf {
        graphroot: text("graphroot")?.map(PathBuf::from),
        driver: text("driver")?,
        // A list of something else is a list all the same.
        stores: stores.map(|item| texts(item).unwrap_or_default()),
        any: storage.is_some(),
    })
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

/// The text of the file with the store added; of one that has it already, the same. A text without `storage` gets what podman needs.
pub fn connect(
    text: &str,
    stores: &Path,
    graphroot: &Path,
    runroot: &Path,
) -> Result<String, ConfError> {
    let line = lines(stores)?;
    let text = disconnect(text)?;
    let before = parse(&text)?;
    if let Some(driver) = &before.driver
        && driver != "overlay"
    {
        return Err(ConfError::Driver(driver.clone()));
    }
    if before.stores.is_some() {
        return Err(ConfError::Taken(stores.to_owned()));
    }
    let end = match text.is_empty() || text.ends_with('\n') {
        true => "",
        false => "\n",
    };
    if !before.any {
        return Ok(format!(
            "{text}{end}{BEGIN}\n[storage]\ndriver = \"overlay\"\ngraphroot = {graphroot:?}\nrunroot = {runroot:?}\n\
             [storage.options]\n{line}\n{END}\n"
        ));
    }
    // Behind the head of the table that is there, else in one of our own at the end.
    let heads = text.split_inclusive('\n').scan(0, |at, line| {
        *at += line.len();
        Some((*at, line))
    });
    let mut places = heads
        .filter(|(_, line)| line.trim_start().starts_with('[') && line.contains("options"))
        .filter_map(|(at, _)| text.split_at_checked(at))
        .map(|(head, rest)| format!("{head}{BEGIN}\n{line}\n{END}\n{rest}"))
        .chain([format!(
            "{text}{end}{BEGIN}\n[storage.options]\n{line}\n{END}\n"
        )]);
    let meant = Conf {
        stores: Some(vec![stores.display().to_string()]),
        ..before
    };
    let found = places.find(|text| parse(text).is_ok_and(|after| after == meant));
    found.ok_or_else(|| ConfError::Place(stores.to_owned()))
}

/// The text of the file without what [`connect`] has added.
///
/// # Errors
/// One mark without the other: where our lines end is unknown.
pub fn disconnect(text: &str) -> Result<String, ConfError> {
    let mut out = String::new();
    let mut ours = false;
    for line in text.split_inclusive('\n') {
        match (line.trim(), ours) {
            (BEGIN, true) => return Err(ConfError::Marks),
            (BEGIN, false) => ours = true,
            (END, true) => ours = false,
            (_, true) => {}
            (_, false) => out.push_str(line),
        }
    }
    match ours {
        true => Err(ConfError::Marks),
        false => Ok(out),
    }
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
            assert_eq!(disconnect(&with).unwrap(), text);
        }
        let alone = parse(&add("").unwrap()).unwrap();
        assert_eq!(alone.graphroot, Some("/g".into()));
        assert_eq!(alone, parse(&add("# only a comment\n").unwrap()).unwrap());
        let end = "# mica end\nx\n";
        assert_eq!(disconnect(end).unwrap(), end);
        // The first table of that name is in a text.
        let text = "[storage]\ndriver = \"overlay\"\n[x]\ny = \"\"\"\n[storage.options]\n\"\"\"\n[storage.options]\n";
        assert!(add(text).unwrap().ends_with("[storage.options]\n# mica begin\nadditionalimagestores = [\"/m/stores/containers\"]\n# mica end\n"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let taken = "[storage.options]\nadditionalimagestores = []\n";
        assert!(matches!(add(taken), Err(ConfError::Taken(_))));
        let inline = "storage = {driver = \"overlay\", options = {size = \"\"}}\n";
        assert!(matches!(add(inline), Err(ConfError::Place(_))));
        assert_eq!(add("# mica begin\n"), Err(ConfError::Marks));
        assert!(matches!(add("[storage"), Err(ConfError::Text(_))));
        let driver = "[storage]\ndriver = \"vfs\"\n";
        assert_eq!(add(driver), Err(ConfError::Driver("vfs".to_owned())));
        for path in ["/a:b", "/a\"b", "/a,b"] {
            let made = connect("", Path::new(path), Path::new("/g"), Path::new("/r"));
            assert!(matches!(made, Err(ConfError::Path(_))), "{path}");
        }
    }
}
