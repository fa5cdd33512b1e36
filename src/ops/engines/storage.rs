//! An engine's own storage (containers/storage): which of its images and containers stand on layers of ours.
//!
//! The files are the engine's, and of a rootless one an ordinary user's: they are read with a limit, never waited for, and what
//! is not as expected is nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Use;
use crate::oci::Digest;

/// Largest of its documents that is read: some 100,000 layers.
const MAX_BYTES: u64 = 64 << 20;
/// More layers on top of each other are a circle.
const MAX_LAYERS: usize = 4096;

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// Of a layer.
    #[serde(default)]
    parent: Option<String>,
    /// Of an image or container: the topmost.
    #[serde(default)]
    layer: Option<String>,
}

/// What in the storage at `root` stands on one of `ours`.
pub(super) fn uses(root: &Path, ours: &BTreeSet<Digest>) -> io::Result<Vec<Use>> {
    let layers: Vec<Entry> = document(&root.join("overlay-layers/layers.json"))?;
    let parents: BTreeMap<&str, Option<&str>> = layers
        .iter()
        .map(|layer| (layer.id.as_str(), layer.parent.as_deref()))
        .collect();
    let under = |top: &str| -> Option<Digest> {
        let chain = std::iter::successors(Some(top), |id| parents.get(id).copied().flatten());
        let mut ids = chain
            .take(MAX_LAYERS)
            .filter_map(|id| Digest::from_hex(id).ok());
        ids.find(|id| ours.contains(id))
    };
    let mut found = Vec::new();
    for (directory, what) in [("containers", "container"), ("images", "image")] {
        let path = root.join(format!("overlay-{directory}/{directory}.json"));
        let entries: Vec<Entry> = document(&path)?;
        for entry in &entries {
            // What is ours by its own id is not the engine's.
            if let Some(layer) = entry.layer.as_deref().and_then(under) {
                let who = format!("podman {what} {}", name(entry));
                found.push(Use { layer, who });
            }
        }
    }
    Ok(found)
}

/// Whose overlay is mounted at `<graphroot>/overlay/<layer>/merged`, if its storage can be seen from here, or at
/// `io.containerd.runtime.v2.task/<namespace>/<container>/rootfs`.
pub(super) fn owner_of(mount_point: &Path) -> Option<String> {
    if let Some(task) = mount_point.strip_suffix("rootfs") {
        let tasks = task.parent()?.parent()?;
        tasks.strip_suffix("io.containerd.runtime.v2.task")?;
        return Some(format!(
            "containerd container {}",
            task.file_name()?.to_str()?
        ));
    }
    let layer = mount_point.strip_suffix("merged")?;
    let id = layer.file_name()?.to_str()?;
    let root = layer.parent()?.strip_suffix("overlay")?;
    for (directory, what) in [("containers", "container"), ("images", "image")] {
        let path = root.join(format!("overlay-{directory}/{directory}.json"));
        let entries: Vec<Entry> = document(&path).unwrap_or_default();
        let owner = entries
            .iter()
            .find(|entry| entry.layer.as_deref() == Some(id));
        if let Some(owner) = owner {
            return Some(format!("podman {what} {}", name(owner)));
        }
    }
    None
}

trait StripSuffix {
    /// The directory above, if the last component is this one.
    fn strip_suffix(&self, last: &str) -> Option<&Path>;
}

impl StripSuffix for Path {
    fn strip_suffix(&self, last: &str) -> Option<&Path> {
        (self.file_name()?.to_str() == Some(last)).then_some(self.parent()?)
    }
}

fn name(entry: &Entry) -> String {
    let name = entry.names.first().cloned();
    name.unwrap_or_else(|| entry.id.chars().take(12).collect())
}

/// A document; of one that is not there, nothing.
fn document<T: DeserializeOwned + Default>(path: &Path) -> io::Result<T> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(T::default()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn storage(layers: &str, images: &str, containers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("layers", layers),
            ("images", images),
            ("containers", containers),
        ] {
            let at = dir.path().join(format!("overlay-{name}"));
            fs::create_dir(&at).unwrap();
            fs::write(at.join(format!("{name}.json")), text).unwrap();
        }
        dir
    }

    #[test]
    fn what_stands_on_our_layers_is_found() {
        let ours = Digest::of(b"ours");
        let (own, top) = (Digest::of(b"own").hex(), Digest::of(b"top").hex());
        let dir = storage(
            &format!(
                r#"[{{"id":"{own}","parent":"{}"}},{{"id":"{top}","parent":"{own}"}}]"#,
                ours.hex()
            ),
            &format!(
                r#"[{{"id":"i1","names":["localhost/built:1"],"layer":"{own}"}},{{"id":"i2","layer":"x"}}]"#
            ),
            &format!(r#"[{{"id":"c1","names":["web"],"layer":"{top}"}}]"#),
        );
        let who = |found: Vec<Use>| found.into_iter().map(|u| u.who).collect::<Vec<_>>();
        let found = uses(dir.path(), &BTreeSet::from([ours])).unwrap();
        assert!(found.iter().all(|used| used.layer == ours));
        assert_eq!(
            who(found),
            ["podman container web", "podman image localhost/built:1"]
        );
        assert!(uses(dir.path(), &BTreeSet::new()).unwrap().is_empty());
        let merged = dir.path().join("overlay").join(&top).join("merged");
        assert_eq!(owner_of(&merged).as_deref(), Some("podman container web"));
        assert_eq!(owner_of(Path::new("/merged")), None);
        let task = Path::new("/run/c/io.containerd.runtime.v2.task/default/web/rootfs");
        let who = owner_of(task);
        assert_eq!(who.as_deref(), Some("containerd container web"));
        assert_eq!(owner_of(Path::new("/a/b/c/rootfs")), None);
    }

    #[test]
    fn circles_and_rubbish_are_nothing() {
        let a = Digest::of(b"a").hex();
        let dir = storage(
            &format!(r#"[{{"id":"{a}","parent":"{a}"}}]"#),
            &format!(r#"[{{"id":"i","layer":"{a}"}}]"#),
            "[]",
        );
        let ours = BTreeSet::from([Digest::of(b"ours")]);
        assert!(uses(dir.path(), &ours).unwrap().is_empty());
        fs::write(dir.path().join("overlay-layers/layers.json"), "rubbish").unwrap();
        assert!(uses(dir.path(), &ours).is_err());
        assert!(uses(Path::new("/nowhere"), &ours).unwrap().is_empty());
    }
}
