//! Listing a directory of a tree.

use super::{Child, child_of_image, forever};
use crate::fs::api::{DirEntry, EntryReply, FileAttr, FsError, Full, InodeNo, Ttl};
use crate::fs::images::Superblock;
use crate::fs::images::trees::{At, Content, DirNode, Open};
use crate::layer::merged::PROBES;

/// One entry of a listing: the position after it, its name, what it is.
type Listed<'c> = (usize, &'c [u8], Child);

impl Superblock {
    /// Lists a directory of a tree. Offset 0 is before `.`, 1 before `..`, 2 + n before the entry at position n.
    pub(in crate::fs::images) fn tree_list(
        &self,
        dir: &DirNode,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
    ) -> Result<(), FsError> {
        let (content, at) = self.opened(dir)?;
        let mut added = offset < 2;
        if added && dots(self.tree_attr(dir)?.attr, dir.parent, offset, add) == Full::Yes {
            return Ok(());
        }
        let mut position = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        loop {
            let next = self.next_child(&content, &at, position);
            let (next, name, child) = match next {
                Ok(Some(found)) => found,
                Ok(None) => break,
                // What was listed so far is right; the next call gets the error.
                Err(_) if added => return Ok(()),
                Err(error) => return Err(error),
            };
            let full = match self.attr_of_child(dir, &content, &child) {
                Ok(attr) => {
                    let entry = forever(attr);
                    if plus {
                        self.refer_child(dir, &content, child)?;
                    }
                    let full = add(&DirEntry {
                        next_offset: offset_of(next),
                        name,
                        entry,
                    });
                    if plus && full == Full::Yes {
                        self.forget_entry(entry.attr.ino);
                    }
                    full
                }
                Err(_) if added => return Ok(()),
                Err(error) => return Err(error),
            };
            if full == Full::Yes {
                return Ok(());
            }
            added = true;
            position = next;
        }
        if let At::Merged(merged) = &at
            && merged.parts().len() <= PROBES
        {
            merged.shed();
        }
        if dir.is_root() && !added && dir.tree.subject().image().is_some() {
            // The end of a listing of a root directory. The next process that lists it has to come to us: that it did is
            // what permits it to remove the tag. The kernel's copy of the listing goes.
            self.cache.invalidate_inode(dir.ino, false);
        }
        Ok(())
    }

    /// The entry at `position` or behind it, and the position after it.
    fn next_child<'c>(
        &self,
        content: &'c Content,
        at: &At,
        position: usize,
    ) -> Result<Option<Listed<'c>>, FsError> {
        match (content.open()?, at) {
            (Open::Image(image), At::Merged(merged)) => {
                let list = image.list(merged)?;
                let next = list.next_from(position)?;
                Ok(next.map(|(next, entry)| (next, entry.name, child_of_image(entry.entry))))
            }
            (Open::Layer(file, _), At::Layer(node, path)) => {
                let entries = file.index.entries(*node)?;
                let mut position = position;
                while let Some(entry) = entries.get(position)? {
                    position += 1;
                    if let Some(child) = self.child_of_layer(content, path, &entry)? {
                        return Ok(Some((position, entry.name, child)));
                    }
                }
                Ok(None)
            }
            _ => Err(FsError::NotFound),
        }
    }
}

/// Lists `.` and `..` as far as `offset` asks for them.
pub(in crate::fs::images) fn dots(
    own: FileAttr,
    parent: InodeNo,
    offset: u64,
    add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
) -> Full {
    let above = FileAttr { ino: parent, ..own };
    for (at, name, attr) in [(0, &b"."[..], own), (1, b"..", above)] {
        let entry = DirEntry {
            next_offset: at + 1,
            name,
            entry: EntryReply {
                attr,
                entry_ttl: Ttl::Zero,
                attr_ttl: Ttl::Zero,
            },
        };
        if offset <= at && add(&entry) == Full::Yes {
            return Full::Yes;
        }
    }
    Full::No
}

fn offset_of(position: usize) -> u64 {
    u64::try_from(position)
        .unwrap_or(u64::MAX)
        .saturating_add(2)
}
