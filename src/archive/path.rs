//! Names of members: relative, normalised, inside the archive.

/// Normalises a member name: `./a//b/` is `a/b`, a leading `/` is dropped. `None` when `..` would leave the archive; the
/// archive itself is the empty string.
pub(super) fn normalise(name: &str) -> Option<String> {
    join("", name)
}

/// Resolves a link target against the directory of the link. An absolute target counts from the archive's root.
pub(super) fn link_target(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return normalise(target);
    }
    join(link.rsplit_once('/').map_or("", |(dir, _)| dir), target)
}

fn join(base: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The sha256 a member's name promises its *bytes* have: `blobs/sha256/<hex>`.
pub(super) fn promised_blob(path: &str) -> Option<&str> {
    path.strip_prefix("blobs/sha256/").filter(|hex| is_hex(hex))
}

/// Whether a text is 64 lower-case hex digits.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_kept_inside() {
        assert_eq!(normalise("./a//b/./c/"), Some("a/b/c".into()));
        assert_eq!(normalise("/a"), Some("a".into()));
        assert_eq!(normalise("a/../b"), Some("b".into()));
        assert_eq!(normalise("a/../../b"), None);
        assert_eq!(normalise(".."), None);
        assert_eq!(
            link_target("x/layer.tar", "../y/layer.tar"),
            Some("y/layer.tar".into())
        );
        assert_eq!(link_target("x/layer.tar", "/y"), Some("y".into()));
        assert_eq!(link_target("layer.tar", "../y"), None);
    }
}
