//! Where things are below a mount: the names of its top directories, and what a path from its root means.
//!
//! Pure text. The kernel's tables and `/proc` show such paths, of mounts, working directories and files, and whoever is found
//! there uses an image or a volume. Which one is for those to say who know the names: `fs` by what it lists, `ops` by every
//! spelling there can be.

use std::path::{Component, Path};

/// Images by repository and tag.
pub const IMAGES: &str = "images";
/// Images without a tag, inside that.
pub const DANGLING: &str = ".dangling";
/// Images by ID.
pub const BY_ID: &str = "by-id";
/// The volumes, a mount of its own.
pub const VOLUMES: &str = "volumes";
/// What container engines read, a mount of its own.
pub const STORES: &str = "stores";

/// What a path from the root of a mount leads into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside<'a> {
    /// The image with that ID, in hexadecimal digits.
    ById(&'a str),
    /// The image without a tag whose ID begins so.
    Dangling(&'a str),
    /// A repository, a tag, or below: see [`splits`].
    Named(&'a str),
    /// Nothing of an image.
    Nothing,
}

/// What a path leads into, with or without the `/` of the root. What does not is written in other bytes than names are.
pub fn inside(path: &Path) -> Inside<'_> {
    let Some(path) = path.to_str() else {
        return Inside::Nothing;
    };
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    let path = path.trim_start_matches('/');
    let (top, rest) = path.split_once('/').unwrap_or((path, ""));
    let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
    match top {
        BY_ID if !first.is_empty() => Inside::ById(first),
        IMAGES if first == DANGLING => {
            let rest = rest.get(DANGLING.len() + 1..).unwrap_or_default();
            match rest.split('/').next() {
                Some(short) if !short.is_empty() => Inside::Dangling(short),
                _ => Inside::Nothing,
            }
        }
        IMAGES if !first.is_empty() => Inside::Named(rest),
        _ => Inside::Nothing,
    }
}

/// What the kernel puts behind the root of a mount whose directory is gone.
const DELETED: &str = "//deleted";

/// Whether no name leads to the root of a mount any more.
pub fn is_deleted(root: &Path) -> bool {
    root.as_os_str()
        .as_encoded_bytes()
        .ends_with(DELETED.as_bytes())
}

/// The ways to read [`Inside::Named`], outermost first: a directory (`""`, then repositories or what they begin with), a name in it.
pub fn splits(rest: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    let ends: Vec<usize> = rest
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([rest.len()])
        .collect();
    let mut begin = 0;
    let splits: Vec<(&str, &str)> = ends
        .into_iter()
        .filter_map(|end| {
            let name = rest.get(begin..end)?;
            let dir = rest.get(..begin)?.trim_end_matches('/');
            begin = end + 1;
            (!name.is_empty()).then_some((dir, name))
        })
        .collect();
    splits.into_iter()
}

/// The volume that a path from the root of the volumes' mount lies in; one that was removed meanwhile is shown with a word behind.
pub fn volume(path: &Path) -> Option<&str> {
    let first = path
        .components()
        .find(|part| !matches!(part, Component::RootDir));
    let Component::Normal(name) = first? else {
        return None;
    };
    let name = name.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_meaning() {
        let table = [
            ("/by-id/abc/etc/passwd", Inside::ById("abc")),
            ("by-id/abc", Inside::ById("abc")),
            ("/by-id", Inside::Nothing),
            ("/images/.dangling/abc/x", Inside::Dangling("abc")),
            ("/images/.dangling", Inside::Nothing),
            ("/images/a/1/etc", Inside::Named("a/1/etc")),
            ("/images/a/1//deleted", Inside::Named("a/1")),
            ("/images", Inside::Nothing),
            ("/imagesx/a", Inside::Nothing),
            ("/layers/a/1", Inside::Nothing),
            ("/", Inside::Nothing),
            ("", Inside::Nothing),
        ];
        for (path, expected) in table {
            assert_eq!(inside(Path::new(path)), expected, "{path}");
        }
        assert!(is_deleted(Path::new("/images/a/1//deleted")));
        assert!(!is_deleted(Path::new("/images/a/1/deleted")));
    }

    #[test]
    fn a_name_can_be_read_in_several_ways() {
        let read: Vec<_> = splits("org/app/:x/etc").collect();
        let expected = [
            ("", "org"),
            ("org", "app"),
            ("org/app", ":x"),
            ("org/app/:x", "etc"),
        ];
        assert_eq!(read, expected);
        assert_eq!(splits("a").collect::<Vec<_>>(), [("", "a")]);
        assert_eq!(splits("a//b").collect::<Vec<_>>(), [("", "a"), ("a", "b")]);
        assert_eq!(splits("").count(), 0);
    }

    #[test]
    fn a_volume_is_the_first_name() {
        let of = |path| volume(Path::new(path));
        assert_eq!(of("/v/a/b"), Some("v"));
        assert_eq!(of("v"), Some("v"));
        assert_eq!(of("/v (deleted)"), Some("v"));
        assert_eq!(of("/"), None);
        assert_eq!(of("../v"), None);
    }
}
