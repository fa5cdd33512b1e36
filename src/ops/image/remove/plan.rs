//! What a removal does, before it does it.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::oci::{ChainId, DiffId, Digest, ImageId, Repository, TagRef};
use crate::ops::image::ImageError;
use crate::ops::image::remove::references::References;
use crate::ops::image::remove::{Pick, Target};
use crate::ops::usage::{Usage, User, images as users};
use crate::store::{LiveLease, Names, Store, StoreError, gc};

/// What a removal does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The image concerned.
    pub id: ImageId,
    /// Tags that go, in order.
    pub tags: Vec<TagRef>,
    /// Digest names that go, in order.
    pub digests: Vec<(Repository, Digest)>,
    /// Whether the image itself goes, having no name left.
    pub deletes_image: bool,
    /// Layer stacks that no other image has, top first: docker's `Deleted:` lines after the image's.
    pub chains: Vec<ChainId>,
    /// Layers whose bytes nothing will reach, bottom first.
    pub layers: Vec<DiffId>,
    /// Configs and manifests that nothing will reach.
    pub documents: Vec<Digest>,
    /// How long it can be brought back: then nothing is freed before that.
    pub trash: Option<Duration>,
    /// Untagged images it was made from, which go with it.
    pub parents: Vec<Plan>,
}

impl Plan {
    /// Works out what removing `target` does. `force` is `rmi -f`: an ID takes all names with it.
    pub fn new(
        names: &Names,
        leases: &[LiveLease],
        target: &Target,
        force: bool,
    ) -> Result<Plan, ImageError> {
        Plan::with_trash(names, leases, target, force, None)
    }

    /// The same into the trash, if there is one.
    pub fn with_trash(
        names: &Names,
        leases: &[LiveLease],
        target: &Target,
        force: bool,
        trash: Option<Duration>,
    ) -> Result<Plan, ImageError> {
        let id = match target {
            Target::Tag(tag) | Target::TagOf(tag, _) => {
                let record = names.tags.get(tag);
                record
                    .ok_or_else(|| ImageError::NoSuch(tag.to_string()))?
                    .id
            }
            Target::Digest(id, ..)
            | Target::Image(id)
            | Target::Whole(id)
            | Target::Untagged(id) => *id,
        };
        let image = names
            .images
            .get(&id)
            .ok_or_else(|| ImageError::NoSuch(id.to_string()))?;
        let mut rest = References::of(image);
        match target {
            Target::TagOf(tag, seen) if *seen != id => {
                return Err(ImageError::TagMoved(tag.clone()));
            }
            Target::Tag(tag) | Target::TagOf(tag, _) => rest.untag(tag),
            Target::Digest(_, repository, digest) => rest.drop_digest(repository, digest),
            Target::Image(_) if !force && !rest.is_single() => {
                return Err(ImageError::ManyReferences(id));
            }
            Target::Untagged(_) if !image.tags.is_empty() => {
                return Err(ImageError::ManyReferences(id));
            }
            Target::Image(_) | Target::Whole(_) | Target::Untagged(_) => rest.drop_all(),
        }
        if force && rest.is_empty() {
            let by_name = matches!(
                target,
                Target::Tag(_) | Target::TagOf(..) | Target::Digest(..)
            );
            match users::container(leases, &id) {
                // A name goes all the same; the image stays for its containers.
                Some(_) if by_name => rest.kept = true,
                Some(user) if user.usage == (Usage::Container { running: true }) => {
                    return Err(ImageError::InUse { id, user });
                }
                _ => match users::engines(leases, names)?.remove(&id) {
                    // Nor are the bytes taken from under an engine's.
                    Some(_) if by_name => rest.kept = true,
                    Some(who) => {
                        let user = User::engine(who.join(", "));
                        return Err(ImageError::InUse { id, user });
                    }
                    None => {}
                },
            }
        }
        if let Some(pinned) = rest.gone_tags.iter().find(|tag| names.is_pinned(tag)) {
            return Err(StoreError::Pinned(pinned.clone()).into());
        }
        let mut plans = Plan::complete(names, leases, vec![(id, rest)], trash);
        plans
            .pop()
            .ok_or_else(|| ImageError::NoSuch(id.to_string()))
    }

    /// Works out what removing several images, or some tags of several, does; each image once. What is freed counts for the
    /// first that has it.
    pub fn several(names: &Names, leases: &[LiveLease], picks: &[(ImageId, Pick)]) -> Vec<Plan> {
        let rest = picks.iter().filter_map(|(id, pick)| {
            let mut rest = References::of(names.images.get(id)?);
            match pick {
                Pick::Whole => rest.drop_all(),
                Pick::Tags(tags) => tags.iter().for_each(|tag| rest.untag(tag)),
            }
            Some((*id, rest))
        });
        Plan::complete(names, leases, rest.collect(), None)
    }

    /// Plans for images that keep `rest` of their names.
    pub(super) fn complete(
        names: &Names,
        leases: &[LiveLease],
        removals: Vec<(ImageId, References)>,
        trash: Option<Duration>,
    ) -> Vec<Plan> {
        // Into the trash nothing goes for good.
        let gone = removals
            .iter()
            .filter(|(_, rest)| rest.is_empty() && trash.is_none());
        let going: BTreeSet<ImageId> = gone.map(|(id, _)| *id).collect();
        let mut only = gc::only_reached_by(names, leases, &going);
        let others = names.images.values().filter(|i| !going.contains(&i.id));
        let mut kept: BTreeSet<ChainId> = match going.is_empty() {
            true => BTreeSet::new(),
            false => others
                .flat_map(|other| ChainId::chain(&other.layers))
                .collect(),
        };
        let mut plans = Vec::new();
        for (id, rest) in removals {
            let mut plan = Plan {
                id,
                deletes_image: rest.is_empty(),
                tags: rest.gone_tags,
                digests: rest.gone_digests,
                chains: Vec::new(),
                layers: Vec::new(),
                documents: Vec::new(),
                trash,
                parents: Vec::new(),
            };
            let frees = plan.deletes_image && trash.is_none();
            if let Some(image) = names.images.get(&id).filter(|_| frees) {
                let layers = image
                    .layers
                    .iter()
                    .filter(|layer| only.layers.remove(layer));
                plan.layers = layers.copied().collect();
                let documents: BTreeSet<Digest> = image.documents().collect();
                let documents = documents.into_iter().filter(|d| only.documents.remove(d));
                plan.documents = documents.collect();
                let chains = ChainId::chain(&image.layers).into_iter().rev();
                plan.chains = chains.filter(|chain| kept.insert(*chain)).collect();
            }
            plans.push(plan);
        }
        plans
    }

    /// docker's output, a line each.
    pub fn lines(&self) -> Vec<String> {
        let tags = self.tags.iter().map(|tag| format!("Untagged: {tag}"));
        let digests = self
            .digests
            .iter()
            .map(|(repository, digest)| format!("Untagged: {repository}@{digest}"));
        let image = self.frees_image().then(|| format!("Deleted: {}", self.id));
        let chains = self.chains.iter().map(|chain| format!("Deleted: {chain}"));
        let parents = self.parents.iter().flat_map(Plan::lines);
        tags.chain(digests)
            .chain(image)
            .chain(chains)
            .chain(parents)
            .collect()
    }

    /// Whether the image goes for good.
    pub fn frees_image(&self) -> bool {
        self.deletes_image && self.trash.is_none()
    }

    /// Disk space that comes back.
    pub fn bytes(&self, store: &Store) -> Result<u64, ImageError> {
        let mut bytes = store.size_on_disk(&self.layers, &self.documents)?;
        for parent in &self.parents {
            bytes = bytes.saturating_add(parent.bytes(store)?);
        }
        Ok(bytes)
    }

    /// Adds the untagged local images that this one was made from, as far as nothing else was made from them and nobody uses
    /// them: docker's classic engine takes them along.
    pub(super) fn take_parents(
        &mut self,
        names: &Names,
        leases: &[LiveLease],
    ) -> Result<(), ImageError> {
        if !self.frees_image()
            || names
                .images
                .get(&self.id)
                .is_none_or(|i| i.parent.is_none())
        {
            return Ok(());
        }
        let mut child = self.id;
        let mut rest = names.clone();
        self.edit(&mut rest)?;
        // One look for all of them.
        let mut used = None;
        while let Some(parent) = names.images.get(&child).and_then(|image| image.parent) {
            let Some(image) = rest.images.get(&parent) else {
                return Ok(());
            };
            let named = !References::of(image).is_empty();
            let has_children = rest.images.values().any(|i| i.parent == Some(parent));
            if named || has_children {
                return Ok(());
            }
            let used = match &mut used {
                Some(used) => used,
                none => none.insert(users::by_image(leases, names)?),
            };
            if used.contains_key(&parent) {
                return Ok(());
            }
            let plan = Plan::new(&rest, leases, &Target::Untagged(parent), false)?;
            plan.edit(&mut rest)?;
            self.parents.push(plan);
            child = parent;
        }
        Ok(())
    }

    /// Changes the names as planned. They must be those the plan was made from.
    pub fn edit(&self, names: &mut Names) -> Result<(), ImageError> {
        let before = names.images.get(&self.id).cloned();
        for tag in &self.tags {
            names.untag(tag)?;
        }
        if let Some(image) = names.images.get_mut(&self.id) {
            let gone =
                |r: &Repository, d: &Digest| self.digests.iter().any(|(gr, gd)| gr == r && gd == d);
            image
                .origins
                .retain(|o| !o.repository.as_ref().is_some_and(|r| gone(r, &o.digest)));
        }
        if self.deletes_image {
            names.delete_image(&self.id)?;
        }
        if let (Some(time), Some(before)) = (self.trash, before)
            && (self.deletes_image || !self.tags.is_empty())
        {
            let now = SystemTime::now();
            let until = now.checked_add(time).unwrap_or(now);
            names.put_in_trash(before, &self.tags, now, until);
        }
        self.parents
            .iter()
            .try_for_each(|parent| parent.edit(names))
    }

    /// The refusal for an image in use: docker's, which depends on how the image was asked for.
    pub fn in_use(&self, target: &Target, user: User) -> ImageError {
        let id = self.id;
        let reference = match target {
            Target::Tag(tag) | Target::TagOf(tag, _) => tag.to_string(),
            Target::Digest(_, repository, digest) => format!("{repository}@{digest}"),
            Target::Image(_) | Target::Whole(_) | Target::Untagged(_) => {
                return ImageError::InUse { id, user };
            }
        };
        ImageError::ReferenceInUse {
            reference,
            id,
            user,
        }
    }
}
