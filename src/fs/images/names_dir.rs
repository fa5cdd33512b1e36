//! The directories of names: `images/` and its repositories, `.dangling`, `by-id`, `layers`, `info/`.
//!
//! They change, and the kernel is told exactly what (`refresh`), so it may keep the names that exist and the attributes of
//! the directories on the way to an image. Names that do not exist, and symlinks that stand for others, it asks for each time.
//! Under `info/`, whose files it asks about anyway, and for the flat listings, it also asks for the directory's attributes
//! each time: a listing there is never older than the reader's call.

use std::os::unix::ffi::OsStrExt as _;

use super::attr;
use super::image_dir::dots;
use super::namespace::{DANGLING, Entry, Found, View, split, unique};
use super::nodes::Node;
use super::places::{InfoFile, LayerFileName, Place, StorePlace, Subject, TagFile};
use super::{FsOptions, Shape, Superblock};
use crate::fs::api::{
    AttrReply, DirEntry, EntryReply, FileAttr, FileKind, FsError, Full, InodeNo, Lookup, Timestamp,
    Ttl,
};
use crate::tree::NAME_MAX;

/// What a name in a directory of ours leads to.
pub(super) enum Step {
    /// A node of ours.
    Own(Place),
    /// The root directory of a tree.
    Root(Subject),
}

/// What the directory of the stores lists.
const STORES: [&str; 2] = ["chains", "containers"];

/// How many names one READDIR takes from the listing at once; more than fit a reply.
const CHUNK: usize = 1024;

impl Superblock {
    pub(super) fn own_lookup(&self, node: &Node, name: &[u8]) -> Result<Lookup, FsError> {
        self.cache.asked(node.ino, name);
        let found = match std::str::from_utf8(name) {
            Ok(name) => self.step(&self.view(), &node.place(), name)?,
            Err(_) => None,
        };
        match found {
            Some(step) => {
                if let Step::Root(subject) = &step
                    && subject.image().is_some()
                {
                    self.note_use(&*self.tree(subject)?);
                }
                Ok(Lookup::Found(self.enter_step(step)?))
            }
            None if name.len() > NAME_MAX => Err(FsError::NameTooLong),
            None => Ok(Lookup::Absent(Ttl::Zero)),
        }
    }

    /// What `name` at `place` is. An error if `place` is no directory.
    fn step(&self, view: &View, place: &Place, name: &str) -> Result<Option<Step>, FsError> {
        let own = |place| Some(Step::Own(place));
        let link = |target: String| own(Place::Link(target.into_bytes().into()));
        Ok(match place {
            Place::Root if self.options.shape == Shape::Stores => self.stores_step(name),
            Place::Stores if self.has_stores() => self.stores_step(name),
            Place::Root => match name {
                "stores" if self.options.stores || self.has_stores() => own(Place::Stores),
                "images" => own(Place::Repo("".into())),
                "by-id" => own(Place::ById),
                "layers" => own(Place::Layers),
                "info" => own(Place::Info),
                "volumes" => match self.volumes_link() {
                    Some(path) => own(Place::Link(path.as_os_str().as_bytes().into())),
                    None => own(Place::Volumes),
                },
                _ => None,
            },
            Place::Repo(path) => match view.resolve(path, name) {
                Some(Found::Dir(path)) => own(Place::Repo(path.into())),
                Some(Found::Dangling) => own(Place::Dangling),
                Some(Found::Tag(tag)) => Some(Step::Root(Subject::Tag(tag.tag.clone(), tag.id))),
                Some(Found::Link(target, _) | Found::Image(target, _)) => link(target),
                None => None,
            },
            Place::Dangling => {
                let id = view.dangling.entries.get(name);
                id.map(|id| Step::Root(Subject::Dangling(*id)))
            }
            Place::ById => match view.by_id.entries.get(name) {
                Some(id) => Some(Step::Root(Subject::ById(*id))),
                None => view.by_prefix(name).and_then(|id| link(id.hex())),
            },
            Place::Layers => match view.layers.entries.get(name) {
                Some(layer) => own(Place::Layer(*layer)),
                None => {
                    let digits = name.strip_prefix("sha256:").unwrap_or(name);
                    unique(&view.layers.entries, digits).and_then(|layer| link(layer.hex()))
                }
            },
            Place::Layer(layer) => match name {
                "diff" => Some(Step::Root(Subject::Layer(*layer))),
                name => {
                    let mut files = LayerFileName::ALL.into_iter();
                    let file = files.find(|(known, _)| *known == name);
                    file.and_then(|(_, file)| own(Place::File(InfoFile::Layer(*layer, file))))
                }
            },
            Place::Info => match name {
                "images" => own(Place::InfoRepo("".into())),
                "volumes" => own(Place::InfoVolumes),
                "df" => own(Place::File(InfoFile::Df)),
                "events" => own(Place::File(InfoFile::Events)),
                "version" => own(Place::File(InfoFile::Version)),
                _ => None,
            },
            Place::InfoRepo(path) => match view.resolve(path, name) {
                Some(Found::Dir(path)) => own(Place::InfoRepo(path.into())),
                Some(Found::Tag(tag)) => own(Place::InfoTag(tag.tag.clone(), tag.id)),
                Some(Found::Link(target, _)) => link(target),
                // `info/` has nothing about images without a tag.
                Some(Found::Image(..) | Found::Dangling) | None => None,
            },
            Place::InfoTag(tag, id) => {
                let file = TagFile::ALL.into_iter().find(|(known, _)| *known == name);
                file.and_then(|(_, file)| own(Place::File(InfoFile::Tag(tag.clone(), *id, file))))
            }
            Place::InfoVolumes | Place::Volumes | Place::Stores => None,
            Place::Store(place) => self.store_step(place, name)?,
            Place::File(_) | Place::Link(_) | Place::Whiteout => {
                return Err(FsError::NotDirectory);
            }
        })
    }

    /// What `name` in the directory of the stores is.
    fn stores_step(&self, name: &str) -> Option<Step> {
        let place = match name {
            "containers" => StorePlace::Containers,
            "chains" => StorePlace::Chains,
            // For the page of options that a mount has room for.
            "c" => StorePlace::Symlink(None),
            _ => return None,
        };
        Some(Step::Own(Place::Store(place)))
    }

    fn enter_step(&self, step: Step) -> Result<EntryReply, FsError> {
        match step {
            Step::Root(subject) => self.enter_root(&subject),
            Step::Own(place) => self.enter_own(place),
        }
    }

    /// The reply for a node of ours, with a reference.
    pub(super) fn enter_own(&self, place: Place) -> Result<EntryReply, FsError> {
        let (node, is_new) = self.nodes.refer(place.clone());
        if let (true, Place::File(InfoFile::Layer(layer, LayerFileName::Tar))) = (is_new, &place) {
            // A reader of the tar keeps the layer open as a reader of its files does.
            self.slots.of(layer).refer();
        }
        let reply = match self.own_attr(&node) {
            Ok(reply) => reply,
            Err(error) => {
                self.forget_entry(node.ino);
                return Err(error);
            }
        };
        Ok(EntryReply {
            attr: reply.attr,
            entry_ttl: match place {
                Place::Link(_) => Ttl::Zero,
                _ => Ttl::Forever,
            },
            attr_ttl: reply.ttl,
        })
    }

    pub(super) fn own_attr(&self, node: &Node) -> Result<AttrReply, FsError> {
        let place = node.place();
        self.unless_gone(&place, self.attr_of_place(node, &place))
    }

    /// What is missing because a removal has overtaken the request is not damaged, but gone.
    pub(super) fn unless_gone<T>(
        &self,
        place: &Place,
        result: Result<T, FsError>,
    ) -> Result<T, FsError> {
        let subject = match place {
            Place::Layer(layer) | Place::File(InfoFile::Layer(layer, _)) => Subject::Layer(*layer),
            Place::InfoTag(tag, id) | Place::File(InfoFile::Tag(tag, id, _)) => {
                Subject::Tag(tag.clone(), *id)
            }
            Place::Store(StorePlace::Data(id, ..)) => Subject::ById(*id),
            _ => return result,
        };
        match result {
            Err(FsError::Corrupt { .. }) if self.is_gone(&subject) => Err(FsError::NotFound),
            result => result,
        }
    }

    fn attr_of_place(&self, node: &Node, place: &Place) -> Result<AttrReply, FsError> {
        let owner = (self.options.uid, self.options.gid);
        let directory =
            |mode, mtime| attr::own(node.ino, FileKind::Directory, mode, owner, 0, mtime);
        let view = self.view();
        let forever = |attr| {
            Ok(AttrReply {
                attr,
                ttl: Ttl::Forever,
            })
        };
        let each_time = |attr| {
            Ok(AttrReply {
                attr,
                ttl: Ttl::Zero,
            })
        };
        match place {
            Place::Root => forever(directory(0o555, self.started())),
            Place::Repo(path) => forever(directory(self.repo_mode(), repo_time(&view, path))),
            Place::InfoRepo(path) => each_time(directory(0o555, repo_time(&view, path))),
            Place::Dangling => each_time(directory(self.repo_mode(), view.dangling.mtime)),
            Place::ById => each_time(directory(self.repo_mode(), view.by_id.mtime)),
            // What an upper layer deletes is for nobody else's eyes.
            Place::Layers => each_time(directory(0o500, view.layers.mtime)),
            Place::Layer(_) => forever(directory(0o555, view.layers.mtime)),
            // fusermount3 mounts for an ordinary user only where he could write.
            Place::Volumes => forever(directory(0o755, self.started())),
            Place::Info | Place::InfoVolumes | Place::Stores => {
                forever(directory(0o555, self.started()))
            }
            Place::InfoTag(tag, _) => {
                let tagged = view.tag(tag).map(|entry| entry.tagged.into());
                forever(directory(0o555, tagged.unwrap_or_default()))
            }
            Place::Store(place) => self.store_attr(node, place),
            Place::File(file) => self.file_attr(node, file),
            Place::Link(target) => {
                let size = u64::try_from(target.len()).unwrap_or(u64::MAX);
                let mtime = self.started();
                forever(attr::own(
                    node.ino,
                    FileKind::Symlink,
                    0o777,
                    owner,
                    size,
                    mtime,
                ))
            }
            Place::Whiteout => forever(self.whiteout_attr()),
        }
    }

    /// Directories of names can be written by those who may change names, so that the kernel's own check, where it makes one,
    /// says the same as ours.
    fn repo_mode(&self) -> u32 {
        use crate::fs::api::RmPolicy;
        match self.options.rm {
            _ if self.options.read_only => 0o555,
            RmPolicy::Off => 0o555,
            RmPolicy::Own => 0o755,
            RmPolicy::All => 0o777,
        }
    }

    /// Lists a directory of ours. Offset 0 is before `.`, 1 before `..`; then come the positions of [`super::nodes::Listing`].
    pub(super) fn own_list(
        &self,
        node: &Node,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirEntry<'_>) -> Full,
    ) -> Result<(), FsError> {
        let place = node.place();
        let view = self.view();
        let own = self.own_attr(node)?.attr;
        if own.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        let parent = self.known_ino(&parent_of(&place));
        if dots(own, parent, offset, add) == Full::Yes {
            return Ok(());
        }
        let mut last = offset.saturating_sub(2);
        loop {
            let names = {
                let mut listing = node.listing.lock();
                if last == 0 || listing.is_empty() {
                    match &place {
                        Place::Store(store) => {
                            let names = self.store_names(store)?;
                            listing.update(names.iter().map(String::as_str));
                        }
                        place => listing.update(listed(&view, place, &self.options)),
                    }
                }
                listing.after(last, CHUNK)
            };
            if names.is_empty() {
                return Ok(());
            }
            for (at, name) in names {
                last = at;
                // Gone since the listing began.
                let Some(step) = self.step(&view, &place, &name)? else {
                    continue;
                };
                if matches!(
                    step,
                    Step::Own(Place::Link(_) | Place::Store(StorePlace::Symlink(_)))
                ) {
                    continue;
                }
                if plus {
                    self.cache.asked(node.ino, name.as_bytes());
                }
                let entry = match plus {
                    true => match self.enter_step(step) {
                        Ok(entry) => entry,
                        Err(FsError::NotFound) => continue,
                        Err(error) => return Err(error),
                    },
                    false => self.sketch(&step),
                };
                let full = add(&DirEntry {
                    // The entry at position n ends at offset n + 2.
                    next_offset: at.saturating_add(2),
                    name: name.as_bytes(),
                    entry,
                });
                if full == Full::Yes {
                    if plus {
                        self.forget_entry(entry.attr.ino);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// As much of an entry as a listing without attributes needs.
    fn sketch(&self, step: &Step) -> EntryReply {
        let (ino, kind) = match step {
            Step::Own(place) => {
                let kind = match place {
                    Place::File(_) => FileKind::Regular,
                    Place::Store(place) if !place.is_directory() => FileKind::Regular,
                    _ => FileKind::Directory,
                };
                (self.known_ino(place), kind)
            }
            Step::Root(subject) => {
                let tree = self.trees.find(subject);
                let unknown = || self.known_ino(&Place::Link(Box::default()));
                (
                    tree.map_or_else(unknown, |tree| tree.root_ino()),
                    FileKind::Directory,
                )
            }
        };
        let owner = (self.options.uid, self.options.gid);
        EntryReply {
            attr: attr::own(ino, kind, 0, owner, 0, Timestamp::default()),
            entry_ttl: Ttl::Zero,
            attr_ttl: Ttl::Zero,
        }
    }

    /// Gives one reference back that was taken for an entry the kernel did not get.
    pub(super) fn forget_entry(&self, ino: InodeNo) {
        self.forget_node(ino, 1);
    }

    /// The attributes of `ino` as a file of ours.
    pub(super) fn regular(&self, ino: InodeNo, size: u64, mtime: Timestamp) -> FileAttr {
        let owner = (self.options.uid, self.options.gid);
        attr::own(ino, FileKind::Regular, 0o444, owner, size, mtime)
    }
}

fn repo_time(view: &View, path: &str) -> Timestamp {
    view.dirs.get(path).map(|dir| dir.mtime).unwrap_or_default()
}

/// The names in a directory of ours.
fn listed<'a>(view: &'a View, place: &Place, options: &FsOptions) -> std::vec::IntoIter<&'a str> {
    let mut names: Vec<&str> = match place {
        Place::Root if options.shape == Shape::Stores => STORES.to_vec(),
        Place::Stores if options.shift.is_some() => STORES.to_vec(),
        Place::Root => {
            let has = options.stores || options.shift.is_some();
            let stores = has.then_some("stores");
            let always = ["by-id", "images", "info", "layers", "volumes"];
            always.into_iter().chain(stores).collect()
        }
        Place::Info => vec!["df", "events", "images", "version", "volumes"],
        Place::Repo(path) | Place::InfoRepo(path) => {
            let dir = view.dirs.get(&**path);
            let entries = dir.into_iter().flat_map(|dir| &dir.entries);
            entries
                .map(|(name, Entry::Dir | Entry::Tag(_))| &**name)
                .collect()
        }
        Place::Dangling => view.dangling.entries.keys().map(|name| &**name).collect(),
        Place::ById => view.by_id.entries.keys().map(|name| &**name).collect(),
        Place::Layers => view.layers.entries.keys().map(|name| &**name).collect(),
        Place::Layer(_) => {
            let files = LayerFileName::ALL.iter().map(|(name, _)| *name);
            std::iter::once("diff").chain(files).collect()
        }
        Place::InfoTag(..) => TagFile::ALL.iter().map(|(name, _)| *name).collect(),
        Place::InfoVolumes
        | Place::Volumes
        | Place::Stores
        | Place::Store(_)
        | Place::File(_)
        | Place::Link(_)
        | Place::Whiteout => Vec::new(),
    };
    if *place == Place::Repo("".into()) && !view.dangling.entries.is_empty() {
        names.push(DANGLING);
    }
    names.into_iter()
}

fn parent_of(place: &Place) -> Place {
    match place {
        Place::Repo(path) if !path.is_empty() => Place::Repo(split(path).0.into()),
        Place::InfoRepo(path) if !path.is_empty() => Place::InfoRepo(split(path).0.into()),
        Place::Dangling => Place::Repo("".into()),
        // As a connection of its own or not: what it stands for in `..`, which nobody follows, is one of them.
        Place::Store(place) => place.parent().map_or(Place::Root, Place::Store),
        Place::Layer(_) => Place::Layers,
        Place::InfoRepo(_) | Place::InfoVolumes => Place::Info,
        Place::InfoTag(tag, _) => Place::InfoRepo(tag.repository.familiar().into()),
        _ => Place::Root,
    }
}
