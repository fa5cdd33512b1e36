//! The volume plugin of docker and podman: their volumes with driver `mica` are the store's.
//!
//! The protocol is docker's (`docs.docker.com/engine/extend/plugins_volume`): JSON in a POST, see [`http`]. `Mount` answers the
//! volume's own directory, so that containers work at the host's speed, and holds the volume until `Unmount`; what is held is
//! on disk, and held again by the next process that serves the plugin.

pub mod http;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ops::usage::volumes::{self as users, Look};
use crate::ops::volume::VolumeError;
use crate::ops::volume::{Create, CreateKind, Removal};
use crate::store::plugin::PluginHolds;
use crate::store::volumes::VolumeHold;
use crate::store::{Lease, Store, StoreError, Volume, VolumeKind, VolumeName};
use crate::sys::source::Source;

/// An id of a mount is 64 digits; whatever an engine makes of it.
const MAX_ID: usize = 256;

/// Why a call failed, for the engine's user.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The body is not what the call takes.
    #[error("the request cannot be understood: {0}")]
    Body(String),
    /// No such call.
    #[error("unknown call {0}")]
    Call(String),
    /// An option that there is not.
    #[error(
        "unknown option {0:?}; there are kind=persistent|ephemeral|bind, source=PATH, ro=true and labels=KEY=VALUE,.."
    )]
    Option(String),
    /// Options that do not fit.
    #[error("{0}")]
    Options(&'static str),
    /// The volume is mounted by an engine.
    #[error("volume {name} is mounted by {count} container(s)")]
    Mounted {
        /// Which.
        name: VolumeName,
        /// How often.
        count: usize,
    },
    /// A bind that an engine cannot be given.
    #[error("{0} cannot be given to an engine: {1}")]
    Bind(PathBuf, String),
    /// The verb failed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl From<StoreError> for PluginError {
    fn from(error: StoreError) -> PluginError {
        PluginError::Volume(error.into())
    }
}

/// What every call may say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    /// `null` from docker if there are none.
    opts: Option<BTreeMap<String, String>>,
}

/// The plugin of one store.
#[derive(Debug)]
pub struct Plugin {
    store: Store,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    holds: PluginHolds,
    leases: HashMap<String, (Lease, Vec<VolumeHold>)>,
}

impl Plugin {
    /// Holds again what an earlier process has mounted.
    ///
    /// # Errors
    /// A store that cannot be written to, a damaged `plugin.json`.
    pub fn new(store: Store) -> Result<Plugin, VolumeError> {
        let holds = store.plugin_holds()?;
        let mut leases = HashMap::new();
        for name in holds.volumes() {
            match hold(&store, &name) {
                Ok(held) => {
                    leases.insert(name.to_string(), held);
                }
                Err(error) => log::warn!("volume {name}, which an engine has mounted: {error}"),
            }
        }
        let held = Mutex::new(Held { holds, leases });
        Ok(Plugin { store, held })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers a call: its path and its body.
    ///
    /// # Errors
    /// See [`PluginError`]; nothing has changed then.
    pub fn call(&self, path: &str, body: &[u8]) -> Result<Value, PluginError> {
        // Some calls come with nothing, or with `null`.
        let request: Option<Request> = match body.trim_ascii() {
            b"" => None,
            body => serde_json::from_slice(body).map_err(|e| PluginError::Body(e.to_string()))?,
        };
        let request = request.unwrap_or_default();
        match path {
            "/Plugin.Activate" => Ok(json!({"Implements": ["VolumeDriver"]})),
            "/VolumeDriver.Capabilities" => Ok(json!({"Capabilities": {"Scope": "local"}})),
            "/VolumeDriver.Create" => self.create(&request),
            "/VolumeDriver.Remove" => self.remove(&request),
            "/VolumeDriver.Mount" => self.mount(&request),
            "/VolumeDriver.Unmount" => self.unmount(&request),
            "/VolumeDriver.Path" => {
                let (volume, held) = (self.volume(&request)?, self.held.lock());
                let mounted = held.holds.count(&volume.name) > 0;
                let path = mounted.then(|| self.path(&volume)).transpose()?;
                Ok(json!({"Mountpoint": path.unwrap_or_default(), "Err": ""}))
            }
            "/VolumeDriver.Get" => {
                let volume = self.volume(&request)?;
                let used = users::find(&self.store, &self.store.live_leases()?, Look::default())
                    .map_err(VolumeError::from)?;
                let mut shown = self.shown(&volume);
                let users = crate::ops::volume::list::processes(&used.of(&volume));
                if let Some(shown) = shown.as_object_mut() {
                    let status = json!({"kind": volume.kind.word(), "users": users});
                    shown.insert("Status".to_owned(), status);
                }
                Ok(json!({"Volume": shown, "Err": ""}))
            }
            "/VolumeDriver.List" => {
                let volumes = self.store.volumes()?;
                let shown: Vec<Value> = volumes.iter().map(|v| self.shown(v)).collect();
                Ok(json!({"Volumes": shown, "Err": ""}))
            }
            other => Err(PluginError::Call(other.chars().take(64).collect())),
        }
    }

    fn create(&self, request: &Request) -> Result<Value, PluginError> {
        let mut create = Create::new(Some(name(request)?), CreateKind::Persistent);
        let empty = BTreeMap::new();
        let options = request.opts.as_ref().unwrap_or(&empty);
        let mut source = None;
        let mut read_only = false;
        for (key, value) in options {
            match (key.as_str(), value.as_str()) {
                ("kind", "persistent" | "ephemeral" | "bind") => {}
                ("kind", _) => {
                    return Err(PluginError::Options(
                        "kind is persistent, ephemeral or bind",
                    ));
                }
                ("source", path) => source = Some(path.into()),
                ("ro", value) => read_only = value == "true",
                ("labels", list) => {
                    for label in list.split(',').filter(|label| !label.is_empty()) {
                        let (key, value) = label.split_once('=').unwrap_or((label, ""));
                        create.labels.insert(key.to_owned(), value.to_owned());
                    }
                }
                (key, _) => return Err(PluginError::Option(key.to_owned())),
            }
        }
        create.kind = match (options.get("kind").map(String::as_str), source) {
            (Some("bind") | None, Some(source)) => CreateKind::Bind { source, read_only },
            (Some("bind"), None) => {
                return Err(PluginError::Options("a bind needs source=PATH"));
            }
            (_, Some(_)) => return Err(PluginError::Options("source goes with kind=bind")),
            (Some("ephemeral"), None) => CreateKind::Ephemeral,
            _ => CreateKind::Persistent,
        };
        crate::ops::volume::create(&self.store, &create)?;
        crate::ops::volume::tell(&self.store);
        Ok(json!({"Err": ""}))
    }

    fn remove(&self, request: &Request) -> Result<Value, PluginError> {
        let name = self.volume(request)?.name;
        let held = self.held.lock();
        let count = held.holds.count(&name);
        if count > 0 {
            return Err(PluginError::Mounted { name, count });
        }
        let tell = || crate::ops::volume::tell(&self.store);
        crate::ops::volume::remove(&self.store, &name, &Removal::default(), &tell)?;
        Ok(json!({"Err": ""}))
    }

    fn mount(&self, request: &Request) -> Result<Value, PluginError> {
        let volume = self.volume(request)?;
        if request.id.len() > MAX_ID {
            return Err(PluginError::Options("the id of the mount is too long"));
        }
        let path = self.path(&volume)?;
        let mut held = self.held.lock();
        let key = volume.name.to_string();
        // Held before it is written down, and written down before the engine is told.
        let lease = match held.leases.contains_key(&key) {
            true => None,
            false => Some(hold(&self.store, &volume.name)?),
        };
        let mut holds = held.holds.clone();
        if holds.add(&volume.name, &request.id) {
            let lock = self.store.lock()?;
            self.store.write_plugin_holds(&holds, &lock)?;
        }
        held.holds = holds;
        if let Some(lease) = lease {
            held.leases.insert(key, lease);
        }
        Ok(json!({"Mountpoint": path, "Err": ""}))
    }

    fn unmount(&self, request: &Request) -> Result<Value, PluginError> {
        let name = name(request)?;
        let mut held = self.held.lock();
        let mut holds = held.holds.clone();
        // Of what is not mounted nothing is to be done: engines say it twice.
        if holds.remove(&name, &request.id) {
            let lock = self.store.lock()?;
            self.store.write_plugin_holds(&holds, &lock)?;
        }
        if holds.count(&name) == 0 {
            held.leases.remove(name.as_str());
        }
        held.holds = holds;
        Ok(json!({"Err": ""}))
    }

    fn volume(&self, request: &Request) -> Result<Volume, PluginError> {
        let name = name(request)?;
        let found = self.store.volume(&name)?;
        Ok(found.ok_or(StoreError::NoSuchVolume(name))?)
    }

    /// The directory or file that containers get.
    fn path(&self, volume: &Volume) -> Result<String, PluginError> {
        let path = match &volume.kind {
            VolumeKind::Bind { source, .. } => {
                self.check_bind(source)?;
                source.clone()
            }
            _ => self.store.volume_root(volume),
        };
        // Engines take text only.
        let text = path.into_os_string().into_string();
        text.map_err(|_| PluginError::Options("the path of the volume is not UTF-8"))
    }

    /// The engine mounts what it is told by path, after us: so no link may be on the way, and nobody but root and ourselves may
    /// be able to put something else there.
    fn check_bind(&self, path: &Path) -> Result<(), PluginError> {
        let cannot =
            |errno: rustix::io::Errno| PluginError::Bind(path.to_owned(), errno.to_string());
        let source = Source::straight(path).map_err(cannot)?;
        let store = Source::follow(self.store.path()).map_err(cannot)?;
        let inside = source.lies_in(store.identity()).map_err(cannot)?;
        if inside || store.lies_in(source.identity()).map_err(cannot)? {
            let why = "it lies in the store, or the store in it";
            return Err(PluginError::Bind(path.to_owned(), why.to_owned()));
        }
        let mut child = path;
        while let Some(dir) = child.parent() {
            let why = |e: std::io::Error| PluginError::Bind(path.to_owned(), e.to_string());
            let (above, below) = (
                dir.symlink_metadata().map_err(why)?,
                child.symlink_metadata().map_err(why)?,
            );
            let own = rustix::process::geteuid().as_raw();
            let trusted = |uid: u32| uid == 0 || uid == own;
            let shared = above.mode() & 0o022 != 0;
            let sticky = above.mode() & 0o1000 != 0 && trusted(below.uid());
            if !trusted(above.uid()) || shared && !sticky {
                let why = format!(
                    "another user can put something else there: {}",
                    dir.display()
                );
                return Err(PluginError::Bind(path.to_owned(), why));
            }
            child = dir;
        }
        Ok(())
    }

    fn shown(&self, volume: &Volume) -> Value {
        let held = self.held.lock().holds.count(&volume.name) > 0;
        let path = held.then(|| self.path(volume).ok()).flatten();
        json!({
            "Name": volume.name.as_str(),
            "Mountpoint": path.unwrap_or_default(),
            "CreatedAt": volume.created.to_string(),
        })
    }
}

/// Keeps a volume from ending, and every mount from keeping what the engine changes.
fn hold(store: &Store, name: &VolumeName) -> Result<(Lease, Vec<VolumeHold>), StoreError> {
    let names = std::slice::from_ref(name);
    Ok((store.lease_volumes(names)?, store.share_volumes(names)?))
}

fn name(request: &Request) -> Result<VolumeName, PluginError> {
    VolumeName::parse(&request.name).map_err(|error| {
        PluginError::Volume(VolumeError::Name {
            verb: "create",
            name: request.name.clone(),
            error,
        })
    })
}
