//! What the OLD of `ln -s OLD NEW` means: a place in the tree that leads to an image, or a reference.

use super::{Found, View};
use crate::oci::{ImageId, Reference, TagRef};
use crate::store::Table;

/// Shortest prefix of an ID that is taken for one.
pub(in crate::fs::images) const MIN_PREFIX: usize = 4;

impl View {
    /// The image that the symlink target `target`, made in the directory `dir` of `images/`, leads to.
    ///
    /// `mount_point` is where the tree is mounted, for absolute targets. A place in the tree comes first, then a reference
    /// (`app:1.0`), then an image ID or a prefix of one.
    pub(crate) fn image_behind(
        &self,
        dir: &str,
        target: &str,
        mount_point: Option<&str>,
    ) -> Option<ImageId> {
        let place = match target.strip_prefix('/') {
            Some(_) => {
                let inside = target.strip_prefix(mount_point?.trim_end_matches('/'))?;
                if !inside.starts_with('/') {
                    return None;
                }
                return self.walk("", inside);
            }
            None => self.walk(&format!("images/{dir}"), target),
        };
        place.or_else(|| self.reference_to_image(target))
    }

    fn reference_to_image(&self, text: &str) -> Option<ImageId> {
        let by_name = || {
            let reference = Reference::parse(text).ok()?;
            if let Some(digest) = &reference.digest {
                return self.by_digest(&reference.repository, digest);
            }
            let tag = reference.tag_or_latest()?;
            let repository = reference.repository;
            self.tag(&TagRef { repository, tag }).map(|entry| entry.id)
        };
        by_name().or_else(|| self.by_prefix(text))
    }

    /// The image whose ID starts with the digits `text`, with or without `sha256:` in front, if it is the only one.
    pub(crate) fn by_prefix(&self, text: &str) -> Option<ImageId> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        unique(&self.by_id.entries, digits).copied()
    }

    /// Follows `path` from the directory `from` of the tree, without asking anybody but this view.
    fn walk(&self, from: &str, path: &str) -> Option<ImageId> {
        let mut at: Vec<String> = from
            .split('/')
            .filter(|c| !c.is_empty())
            .map(str::to_owned)
            .collect();
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        // Each link of ours leads to a listed name in one step: more steps than this are a mistake.
        let mut links = 0;
        let mut image = None;
        while let Some(component) = todo.pop() {
            match component.as_str() {
                "" | "." => continue,
                _ if image.is_some() => return None,
                ".." => {
                    at.pop();
                    continue;
                }
                name => {
                    let parent = at.join("/");
                    let found = match parent.as_str() {
                        "" => None,
                        "by-id" => {
                            image = Some(self.by_prefix(name)?);
                            continue;
                        }
                        "images/.dangling" => {
                            image = Some(*self.dangling.entries.get(name)?);
                            continue;
                        }
                        "images" => self.resolve("", name),
                        parent => self.resolve(parent.strip_prefix("images/")?, name),
                    };
                    match found {
                        Some(Found::Tag(entry)) => {
                            image = Some(entry.id);
                            continue;
                        }
                        Some(Found::Image(_, id)) => {
                            image = Some(id);
                            continue;
                        }
                        Some(Found::Link(target, _)) => {
                            links += 1;
                            if links > 8 {
                                return None;
                            }
                            todo.extend(target.split('/').rev().map(str::to_owned));
                            continue;
                        }
                        Some(Found::Dir(_) | Found::Dangling) => {}
                        None if parent.is_empty() && matches!(name, "images" | "by-id") => {}
                        None => return None,
                    }
                }
            }
            at.push(component);
        }
        image
    }
}

/// The only value whose key starts with `digits`: at least [`MIN_PREFIX`] lower-case hexadecimal ones.
pub(in crate::fs::images) fn unique<'a, V>(
    entries: &'a Table<Box<str>, V>,
    digits: &str,
) -> Option<&'a V> {
    let hex = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !hex || !(MIN_PREFIX..=64).contains(&digits.len()) {
        return None;
    }
    let mut from = entries.range_from::<str>(digits);
    let (first, value) = from.next()?;
    let another = from.next().is_some_and(|(key, _)| key.starts_with(digits));
    (first.starts_with(digits) && !another).then_some(value)
}
