//! Images from short tree descriptions.
//!
//! ```ignore
//! let image = ImageBuilder::new("app:1")
//!     .layer(|l| l.dir("etc", 0o755).file("etc/a", "one").file("etc/b", "two").owner(33, 33))
//!     .layer(|l| l.whiteout("etc/b").symlink("etc/c", "a").hardlink("etc/d", "etc/a"));
//! image.docker_archive(&path);
//! ```
//! A modifier (`mode`, `owner`, `mtime`, `xattr`, `pax`) changes the entry before it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tarball::{TarEntry, TarWriter};

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Entries of one layer, in the order of the calls.
#[derive(Clone, Debug, Default)]
pub struct LayerBuilder {
    pub entries: Vec<TarEntry>,
}

impl LayerBuilder {
    pub fn dir(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        let mut name = path.as_ref().to_vec();
        name.push(b'/');
        self.entry(TarEntry::new(b'5', name)).mode(mode)
    }

    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let mut entry = TarEntry::new(b'0', path);
        entry.content = content.as_ref().to_vec();
        self.entry(entry)
    }

    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut entry = TarEntry::new(b'2', path);
        entry.link = target.as_ref().to_vec();
        self.entry(entry).mode(0o777)
    }

    pub fn hardlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut entry = TarEntry::new(b'1', path);
        entry.link = target.as_ref().to_vec();
        self.entry(entry)
    }

    pub fn char_device(self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        let mut entry = TarEntry::new(b'3', path);
        entry.device = (major, minor);
        self.entry(entry)
    }

    pub fn block_device(self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        let mut entry = TarEntry::new(b'4', path);
        entry.device = (major, minor);
        self.entry(entry)
    }

    pub fn fifo(self, path: impl AsRef<[u8]>) -> Self {
        self.entry(TarEntry::new(b'6', path))
    }

    /// `dir/.wh.name` for `dir/name`.
    pub fn whiteout(self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let at = path
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |slash| slash + 1);
        let marker = [&path[..at], b".wh.", &path[at..]].concat();
        self.entry(TarEntry::new(b'0', marker)).mode(0)
    }

    /// `dir/.wh..wh..opq`; the directory itself is not described. The root is "".
    pub fn opaque(self, dir: impl AsRef<[u8]>) -> Self {
        let mut marker = dir.as_ref().to_vec();
        if !marker.is_empty() {
            marker.push(b'/');
        }
        marker.extend_from_slice(b".wh..wh..opq");
        self.entry(TarEntry::new(b'0', marker)).mode(0)
    }

    pub fn entry(mut self, entry: TarEntry) -> Self {
        self.entries.push(entry);
        self
    }

    pub fn mode(self, mode: u32) -> Self {
        self.change(|e| e.mode = mode)
    }

    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.change(|e| (e.uid, e.gid) = (uid, gid))
    }

    pub fn mtime(self, seconds: i64, nanoseconds: u32) -> Self {
        self.change(|e| e.mtime = (seconds, nanoseconds))
    }

    pub fn xattr(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let pair = (name.as_ref().to_vec(), value.as_ref().to_vec());
        self.change(|e| e.xattrs.push(pair))
    }

    pub fn pax(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let pair = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.change(|e| e.pax.push(pair))
    }

    /// Any change to the entry before.
    pub fn change(mut self, change: impl FnOnce(&mut TarEntry)) -> Self {
        change(
            self.entries
                .last_mut()
                .expect("a modifier needs an entry before it"),
        );
        self
    }

    /// The layer as a complete, uncompressed tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for entry in &self.entries {
            writer.entry(entry).expect("writing into memory");
        }
        writer.finish().expect("writing into memory")
    }
}

/// How layers are stored in OCI layouts. A docker-archive holds them uncompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pack {
    None,
    Gzip,
    Zstd,
}

impl Pack {
    pub fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Pack::None => bytes.to_vec(),
            Pack::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes).expect("writing into memory");
                out.finish().expect("writing into memory")
            }
            Pack::Zstd => zstd::encode_all(bytes, 1).expect("writing into memory"),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Pack::None => "application/vnd.oci.image.layer.v1.tar",
            Pack::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Pack::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An image: references, layers, configuration.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    pub tags: Vec<String>,
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
    pub pack: Pack,
}

impl ImageBuilder {
    /// `tag` is `name:tag` as it is to be loaded; "" for an image without a name.
    pub fn new(tag: &str) -> ImageBuilder {
        let tags = if tag.is_empty() {
            vec![]
        } else {
            vec![tag.to_owned()]
        };
        ImageBuilder {
            tags,
            layers: Vec::new(),
            config: json!({
                "architecture": host_architecture(),
                "os": "linux",
                "created": "2024-05-06T07:08:09.123456789Z",
                "config": {
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "Cmd": ["/bin/sh"],
                },
                "rootfs": {"type": "layers", "diff_ids": []},
                "history": [],
            }),
            pack: Pack::Gzip,
        }
    }

    /// One more name for the same image.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tags.push(tag.to_owned());
        self
    }

    pub fn layer(self, describe: impl FnOnce(LayerBuilder) -> LayerBuilder) -> Self {
        let tar = describe(LayerBuilder::default()).tar();
        self.layer_tar(tar)
    }

    /// A layer from bytes, which need not be a good tar.
    pub fn layer_tar(mut self, tar: Vec<u8>) -> Self {
        let number = self.layers.len() + 1;
        push(&mut self.config["rootfs"]["diff_ids"], json!(digest(&tar)));
        push(
            &mut self.config["history"],
            json!({"created": "2024-05-06T07:08:09Z", "created_by": format!("layer {number}")}),
        );
        self.layers.push(tar);
        self
    }

    /// A history entry without a layer.
    pub fn empty_layer(mut self, created_by: &str) -> Self {
        push(
            &mut self.config["history"],
            json!({"created": "2024-05-06T07:08:09Z", "created_by": created_by, "empty_layer": true}),
        );
        self
    }

    /// Any change of the configuration, lies included.
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn pack(mut self, pack: Pack) -> Self {
        self.pack = pack;
        self
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).expect("JSON into memory")
    }

    /// `sha256:<hex>` of the configuration.
    pub fn id(&self) -> String {
        digest(&self.config_bytes())
    }

    /// What the configuration says, which is what the layers are unless `config` changed it.
    pub fn diff_ids(&self) -> Vec<String> {
        let ids = self.config["rootfs"]["diff_ids"].as_array();
        ids.into_iter()
            .flatten()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    }

    /// As `docker save` wrote it for ten years, and `podman save` does.
    pub fn docker_archive(&self, path: &Path) {
        docker_archive(&[self], path);
    }

    pub fn oci_archive(&self, path: &Path) {
        oci_archive(&[self], path);
    }

    pub fn oci_dir(&self, path: &Path) {
        oci_dir(&[self], path);
    }

    /// The blobs of this image and its descriptors: one per tag, or one without a name.
    pub fn oci_blobs(&self) -> (Vec<(String, Vec<u8>)>, Vec<Value>) {
        let config = self.config_bytes();
        let mut blobs = vec![(digest(&config), config.clone())];
        let mut layers = Vec::new();
        for tar in &self.layers {
            let blob = self.pack.apply(tar);
            layers.push(descriptor(self.pack.media_type(), &blob));
            blobs.push((digest(&blob), blob));
        }
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        }))
        .expect("JSON into memory");
        let plain = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        blobs.push((digest(&manifest), manifest));
        let mut descriptors = Vec::new();
        for tag in &self.tags {
            let mut named = plain.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": tag,
                "org.opencontainers.image.ref.name": tag,
            });
            descriptors.push(named);
        }
        if descriptors.is_empty() {
            descriptors.push(plain);
        }
        (blobs, descriptors)
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// Several images in one docker-archive; shared layers once.
pub fn docker_archive(images: &[&ImageBuilder], path: &Path) {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let hex = |digest: &str| digest.replace("sha256:", "");
        let config = format!("{}.json", hex(&image.id()));
        files.push((config.clone(), image.config_bytes()));
        let mut layers = Vec::new();
        for tar in &image.layers {
            let name = format!("{}/layer.tar", hex(&digest(tar)));
            files.push((name.clone(), tar.clone()));
            layers.push(name);
        }
        let tags = (!image.tags.is_empty()).then_some(&image.tags);
        manifest.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
    }
    files.push((
        "manifest.json".into(),
        serde_json::to_vec(&manifest).expect("JSON"),
    ));
    write_archive(path, &dedup(files));
}

/// Several images in one OCI layout inside a tar.
pub fn oci_archive(images: &[&ImageBuilder], path: &Path) {
    write_archive(path, &oci_files(images));
}

/// Several images in one OCI layout directory.
pub fn oci_dir(images: &[&ImageBuilder], path: &Path) {
    for (name, bytes) in oci_files(images) {
        let file = path.join(name);
        fs::create_dir_all(file.parent().expect("a file below the layout")).expect("mkdir");
        fs::write(file, bytes).expect("writing the layout");
    }
}

fn oci_files(images: &[&ImageBuilder]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut manifests = Vec::new();
    for image in images {
        let (blobs, descriptors) = image.oci_blobs();
        manifests.extend(descriptors);
        for (digest, bytes) in blobs {
            files.push((format!("blobs/{}", digest.replace(':', "/")), bytes));
        }
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    files.push((
        "index.json".into(),
        serde_json::to_vec(&index).expect("JSON"),
    ));
    dedup(files)
}

fn dedup(files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut seen = std::collections::HashSet::new();
    files
        .into_iter()
        .filter(|(name, _)| seen.insert(name.clone()))
        .collect()
}

/// Named files as a tar.
pub fn write_archive(path: &Path, files: &[(String, Vec<u8>)]) {
    let file = BufWriter::new(File::create(path).expect("creating the archive"));
    let mut writer = TarWriter::new(file);
    for (name, bytes) in files {
        let mut entry = TarEntry::new(b'0', name);
        entry.content.clone_from(bytes);
        writer.entry(&entry).expect("writing the archive");
    }
    writer
        .finish()
        .and_then(|mut file| file.flush())
        .expect("writing the archive");
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut()
        .expect("an array in the configuration")
        .push(item);
}

/// This machine's architecture in Go's words.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
