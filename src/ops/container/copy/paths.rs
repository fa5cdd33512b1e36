//! What the two arguments of `cp` mean: docker's rules, which are those of `cp -a` made exact.
//!
//! | source | destination | what happens |
//! |---|---|---|
//! | a file | does not exist | a file of that name; `no such directory` if the name ends with `/` |
//! | a file | a file | it is replaced |
//! | a file | a directory | a file in it, with the source's name |
//! | a directory | does not exist | a directory of that name, with the source's content |
//! | a directory | a file | refused |
//! | a directory | a directory | a directory in it, with the source's name; of `SOURCE/.` the content only |

use super::CopyError;

/// A path as given, cleaned by its letters, with what its end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Without `.` and `..`, and no slash at the end.
    pub clean: Vec<u8>,
    /// It ends with a slash, `.` or `..`: a directory is meant.
    pub is_directory: bool,
    /// It ends with `.`: what is in it is meant.
    pub is_content: bool,
}

impl Path {
    /// Cleans an absolute path, or one that is taken for one.
    pub fn new(text: &[u8]) -> Path {
        let mut kept: Vec<&[u8]> = Vec::new();
        for name in text.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(kept.pop()),
                name => kept.push(name),
            }
        }
        let mut clean = b"/".to_vec();
        clean.extend(kept.join(&b'/'));
        let last = text.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        Path {
            is_directory: matches!(last, b"" | b"." | b"..") || clean == b"/",
            is_content: last == b"." || clean == b"/",
            clean,
        }
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let name = self.clean.rsplit(|byte| *byte == b'/').next();
        name.unwrap_or_default()
    }

    /// What comes before it.
    pub fn parent(&self) -> &[u8] {
        let end = self.clean.len() - self.name().len();
        let parent = self.clean.get(..end).unwrap_or_default();
        match parent {
            b"/" => parent,
            parent => parent.strip_suffix(b"/").unwrap_or(parent),
        }
    }
}

/// What something is, as far as the rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where.
    pub path: Path,
    /// What is there; `None`: nothing.
    pub kind: Option<Kind>,
}

/// Where the archive is unpacked, and how its first entry is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// A directory.
    pub directory: Vec<u8>,
    /// A name; empty: the content of the source goes into the directory itself.
    pub name: Vec<u8>,
}

/// Decides what a copy does. `name` is the source's, `content`: its content is meant, not itself.
pub fn place(
    source: Kind,
    name: &[u8],
    content: bool,
    to: &Destination,
) -> Result<Plan, CopyError> {
    let is_directory = source == Kind::Directory;
    let named = || Plan {
        directory: to.path.parent().to_vec(),
        name: to.path.name().to_vec(),
    };
    match to.kind {
        Some(Kind::Directory) => Ok(Plan {
            directory: to.path.clean.clone(),
            name: match content {
                true => Vec::new(),
                false => name.to_vec(),
            },
        }),
        Some(_) if is_directory => Err(CopyError::Usage("cannot copy directory".to_owned())),
        Some(_) if to.path.is_directory => Err(CopyError::Usage("not a directory".to_owned())),
        None if !is_directory && to.path.is_directory => {
            Err(CopyError::Usage("no such directory".to_owned()))
        }
        Some(_) | None => Ok(named()),
    }
}

/// `CONTAINER:PATH`, or a path of the host.
pub fn split_argument(text: &str) -> (Option<&str>, &str) {
    if text.starts_with('/') {
        return (None, text);
    }
    match text.split_once(':') {
        // An explicitly relative name with a colon in it.
        Some((container, _)) if container.is_empty() || container.starts_with('.') => (None, text),
        Some((container, path)) => (Some(container), path),
        None => (None, text),
    }
}
