//! What the files on top of a store are called, and how its files and directories are made, opened and listed.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::error::StoreError;

/// Name of the file that holds all names.
pub(super) const INDEX_JSON: &str = "index.json";
/// Where its replacement is written.
pub(super) const INDEX_JSON_NEW: &str = "index.json.new";
/// Name of the file that holds the volumes.
pub(super) const VOLUMES_JSON: &str = "volumes.json";
/// Where its replacement is written.
pub(super) const VOLUMES_JSON_NEW: &str = "volumes.json.new";
pub(super) const ENGINES_JSON: &str = "engines.json";
pub(super) const ENGINES_JSON_NEW: &str = "engines.json.new";
pub(super) const PLUGIN_JSON: &str = "plugin.json";
pub(super) const PLUGIN_JSON_NEW: &str = "plugin.json.new";
/// The file's name.
pub(super) const SETTINGS: &str = "settings.json";
/// Where its replacement is written.
pub(super) const SETTINGS_NEW: &str = "settings.json.new";
/// Name of the file.
pub(super) const NUMBERS: &str = "numbers";
/// Where its replacement is written.
pub(super) const NUMBERS_NEW: &str = "numbers.new";
/// The file's name.
pub(super) const BUILDS_JSON: &str = "builds.json";
/// Where its replacement is written.
pub(super) const BUILDS_JSON_NEW: &str = "builds.json.new";

/// Of a directory of the store.
pub(super) const DIRECTORY: u32 = 0o700;
/// Of a file of the store.
pub(super) const FILE: u32 = 0o600;

/// Whether `path` is there. Not being able to tell is an error, never "no".
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("stat", path))
}

/// Opens a file of the store for reading; `None` if it is not there.
pub(super) fn open_if_there(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("open", path)(error)),
    }
}

/// The names in a directory that are UTF-8: all of ours are.
pub(super) fn file_names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Makes a directory of the store; one that is there is the answer.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(DIRECTORY).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a directory of the store that must not be there.
pub(super) fn make_new_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(DIRECTORY).create(path)
}

/// Paths as JSON: a string, or the bytes where they are not UTF-8.
pub(super) mod path_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(crate) fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Form::Text(text.to_owned()).serialize(s),
            None => Form::Bytes(path.as_os_str().as_bytes().to_vec()).serialize(s),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(d)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}
