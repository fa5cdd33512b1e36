//! docker's `config.json` of this user: where it is, and one reading of it that ends.
//!
//! It is the user's own file, yet under `sudo -E` another's: no FIFO is waited for, and no more is read than a configuration has.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// More of a file is no configuration: a thousand logins with tokens fit.
const MAX: u64 = 4 << 20;

/// Where it is.
pub fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = match set("DOCKER_CONFIG") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(set("HOME")?).join(".docker"),
    };
    Some(dir.join("config.json"))
}

/// All of a small regular file.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= MAX => Ok(bytes),
        _ => Err(io::Error::other(format!("it has more than {MAX} bytes"))),
    }
}

/// A text in it. One that is missing, or no text, is `None`; a file that cannot be read counts for nothing, and is said.
pub fn text(key: &str) -> Option<String> {
    let path = path()?;
    let read = || -> io::Result<Option<String>> {
        let bytes = match bytes(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        // serde_json's errors tell a position, never the text.
        let document: Value = serde_json::from_slice(&bytes)?;
        Ok(document.get(key).and_then(Value::as_str).map(str::to_owned))
    };
    read().unwrap_or_else(|error| {
        log::warn!("{}: {error}; it counts for nothing", path.display());
        None
    })
}
