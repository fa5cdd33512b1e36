//! New names: `mkdir`, `ln -s`, `mv`.

use std::time::SystemTime;

use super::Superblock;
use super::namespace::{
    Entry, Found, View, is_below, join, may_be_directory, prefixes, repository_at, split,
};
use super::places::{Place, Subject};
use crate::fs::api::{Caller, EntryReply, FsError, RenameMode};
use crate::oci::{ImageId, Repository, Tag, TagRef};
use crate::store::{Names, StoreError};

impl Superblock {
    /// A new empty repository; it lasts as long as the mount, or until it is removed.
    pub(super) fn own_mkdir(
        &self,
        caller: &Caller,
        place: &Place,
        name: &[u8],
    ) -> Result<EntryReply, FsError> {
        let Place::Repo(parent) = place else {
            return Err(FsError::NotPermitted);
        };
        self.may_change(caller)?;
        let name = text(name)?;
        let path = join(parent, name);
        let changing = self.changing();
        let view = self.view();
        if !view.dirs.contains_key(&**parent) {
            return Err(FsError::NotFound);
        }
        if view.resolve(parent, name).is_some() {
            return Err(FsError::Exists);
        }
        if name.starts_with(':') || !may_be_directory(&path) {
            return Err(FsError::Invalid(format!("{path:?} is no repository name")));
        }
        // `cp -r` of a repository: what comes next could only fail, name by name, a thousand times.
        let copies = self.kept.lock().contains(parent) && self.is_a_tag(name)?;
        if copies {
            return Err(FsError::NotPermitted);
        }
        self.kept.lock().insert(path.as_str().into());
        self.take_in(&changing, &[])?;
        self.enter_own(Place::Repo(path.into()))
    }

    /// Whether some image has a tag of that name.
    fn is_a_tag(&self, name: &str) -> Result<bool, FsError> {
        let names = self.store.names()?;
        Ok(names.tags.keys().any(|tag| tag.tag.as_str() == name))
    }

    /// `ln -s OLD NEW`: tags the image that OLD leads to. The answer is a symlink that nobody will see again: the next lookup
    /// finds the tag directory.
    pub(super) fn own_symlink(
        &self,
        caller: &Caller,
        place: &Place,
        name: &[u8],
        target: &[u8],
    ) -> Result<EntryReply, FsError> {
        let Place::Repo(path) = place else {
            return Err(FsError::NotPermitted);
        };
        self.may_change(caller)?;
        if path.is_empty() {
            return Err(FsError::NotPermitted);
        }
        let repository = repository_at(path);
        let repository =
            repository.ok_or_else(|| FsError::Invalid(format!("{path:?} is no repository")))?;
        let tag = tag_ref(&repository, text(name)?)?;
        let changing = self.changing();
        let view = self.view();
        if view.resolve(path, text(name)?).is_some() {
            return Err(FsError::Exists);
        }
        let old = text(target)?;
        let mount_point = self.options.mount_point.to_str();
        let id = view.image_behind(path, old, mount_point);
        let id = id.ok_or_else(|| FsError::Invalid(format!("{old:?} leads to no image")))?;
        self.change_names(caller, |names| put_tag(names, &tag, id))?;
        self.events
            .note(Some(caller), &format!("Tagged: {tag} {id}"));
        self.after_change(&changing, &[]);
        drop(changing);
        self.notify_others();
        self.enter_own(Place::Link(target.into()))
    }

    /// Directories stay what they are, and so do their numbers.
    fn rename_tree(&self, from: &Subject, to: &Subject) {
        self.trees.rename(from, to);
        self.numbers.rename(&from.numbered(), &to.numbered());
    }

    /// Renames a tag or a repository; never onto something.
    pub(super) fn own_rename(
        &self,
        caller: &Caller,
        from: (&Place, &[u8]),
        to: (&Place, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (Place::Repo(from_dir), Place::Repo(to_dir)) = (from.0, to.0) else {
            return Err(FsError::NotPermitted);
        };
        self.may_change(caller)?;
        if mode == RenameMode::Other {
            return Err(FsError::Invalid(
                "only a plain rename is possible here".to_owned(),
            ));
        }
        let (from_name, to_name) = (text(from.1)?, text(to.1)?);
        let changing = self.changing();
        let view = self.view();
        let source = view.resolve(from_dir, from_name).ok_or(FsError::NotFound)?;
        if !view.dirs.contains_key(&**to_dir) {
            return Err(FsError::NotFound);
        }
        if view.resolve(to_dir, to_name).is_some() {
            return Err(FsError::Exists);
        }
        match source {
            Found::Tag(entry) => {
                let repository = repository_at(to_dir);
                let repository = repository
                    .ok_or_else(|| FsError::Invalid(format!("{to_dir:?} is no repository")))?;
                let new = tag_ref(&repository, to_name)?;
                let (old, id) = (entry.tag.clone(), entry.id);
                self.change_names(caller, |names| {
                    names.rename_tag(&old, &new, SystemTime::now())
                })?;
                self.events
                    .note(Some(caller), &format!("Renamed: {old} {new}"));
                self.rename_tree(&Subject::Tag(old, id), &Subject::Tag(new, id));
                let stay: Vec<Box<str>> = prefixes(from_dir).skip(1).map(Into::into).collect();
                self.after_change(&changing, &stay);
            }
            Found::Dir(path) => {
                let new = join(to_dir, to_name);
                self.move_directory(caller, &view, &path, &new)?;
                let above: Vec<Box<str>> =
                    prefixes(split(&path).0).skip(1).map(Into::into).collect();
                self.after_change(&changing, &above);
            }
            Found::Dangling | Found::Link(..) | Found::Image(..) => {
                return Err(FsError::NotPermitted);
            }
        }
        drop(changing);
        self.notify_others();
        Ok(())
    }

    /// Renames all repositories at `from` and below in one step.
    fn move_directory(
        &self,
        caller: &Caller,
        view: &View,
        from: &str,
        to: &str,
    ) -> Result<(), FsError> {
        if is_below(to, from) || !may_be_directory(to) {
            return Err(FsError::Invalid(format!("{to:?} is no repository name")));
        }
        let rebased = |path: &str| path.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        let mut moves: Vec<(Repository, Repository)> = Vec::new();
        for repository in view.repositories_below(from) {
            let new = rebased(&repository.familiar()).unwrap_or_default();
            let new = repository_at(&new)
                .ok_or_else(|| FsError::Invalid(format!("{new:?} is no repository name")))?;
            moves.push((repository, new));
        }
        if !moves.is_empty() {
            let now = SystemTime::now();
            self.change_names(caller, |names| {
                for (old, new) in &moves {
                    names.rename_repository(old, new, now)?;
                }
                Ok(())
            })?;
        }
        self.events
            .note(Some(caller), &format!("Renamed: {from} {to}"));
        {
            let mut kept = self.kept.lock();
            let moved: Vec<Box<str>> = kept
                .iter()
                .filter(|path| is_below(path, from))
                .cloned()
                .collect();
            for path in moved {
                kept.remove(&path);
                kept.extend(rebased(&path).map(Into::into));
            }
        }
        // What the kernel knows keeps its numbers: it has moved the directory itself.
        self.nodes.move_directory(from, to);
        for (path, dir) in &view.dirs {
            if !is_below(path, from) {
                continue;
            }
            for entry in dir.entries.values() {
                let Entry::Tag(entry) = entry else { continue };
                let moved = moves.iter().find(|(old, _)| *old == entry.tag.repository);
                if let Some((_, repository)) = moved {
                    let tag = TagRef {
                        repository: repository.clone(),
                        tag: entry.tag.tag.clone(),
                    };
                    let old = Subject::Tag(entry.tag.clone(), entry.id);
                    self.rename_tree(&old, &Subject::Tag(tag, entry.id));
                }
            }
        }
        Ok(())
    }

    fn change_names(
        &self,
        caller: &Caller,
        edit: impl FnOnce(&mut Names) -> Result<(), StoreError>,
    ) -> Result<(), FsError> {
        let store = self.store.on_behalf_of(caller.cause());
        let lock = store.lock()?;
        Ok(store.change(&lock, edit)?)
    }

    /// As `take_in`; the change is durable, so a failure to show it is not the caller's.
    fn after_change(&self, changing: &super::refresh::Changing<'_>, stay: &[Box<str>]) {
        if let Err(error) = self.take_in(changing, stay) {
            log::error!("the names have changed, but cannot be read: {error}");
        }
    }
}

fn put_tag(names: &mut Names, tag: &TagRef, id: ImageId) -> Result<(), StoreError> {
    if names.tags.contains_key(tag) {
        return Err(StoreError::TagExists(tag.clone()));
    }
    names.tag(tag, id, SystemTime::now())?;
    Ok(())
}

fn text(name: &[u8]) -> Result<&str, FsError> {
    std::str::from_utf8(name)
        .map_err(|_| FsError::Invalid(format!("\"{}\" is no name", name.escape_ascii())))
}

fn tag_ref(repository: &Repository, name: &str) -> Result<TagRef, FsError> {
    let tag =
        Tag::parse(name).map_err(|error| FsError::Invalid(format!("tag {name:?}: {error}")))?;
    Ok(TagRef {
        repository: repository.clone(),
        tag,
    })
}
