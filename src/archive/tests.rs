//! Archives built in code, read by offset and as a stream; both ways must agree.

mod bad;
mod oci;

use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use crate::archive::*;
use crate::oci::{Digest, Platform};

/// A tar being put together.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, name: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.raw(name, b'0', "", content.as_ref())
    }

    fn json(self, name: &str, value: &Value) -> Self {
        self.file(name, value.to_string())
    }

    /// A blob under its digest; gives the digest back through the descriptor functions.
    fn blob(self, content: &[u8]) -> Self {
        let name = format!("blobs/sha256/{}", Digest::of(content).hex());
        self.file(&name, content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    config_for("amd64", layers)
}

fn config_for(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    let value = json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    value.to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer: a tar with one file of that many bytes.
fn layer(size: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..size)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect();
    Tar::default().file("file", content).end()
}

/// What an image came out as, layers read.
#[derive(Debug, PartialEq)]
struct Seen {
    id: String,
    tags: Vec<String>,
    layers: Vec<(String, Option<String>, usize)>,
    origins: usize,
    notes: usize,
}

fn see(
    catalog: &Catalog,
    streamed: &[Vec<u8>],
    platform: Option<&str>,
) -> Result<Vec<Seen>, ArchiveError> {
    let platform = platform.map(|p| Platform::parse(p).unwrap());
    let images = catalog.images(platform.as_ref())?;
    let read = |content: &Content| match content {
        Content::Streamed { call, .. } => streamed[*call].clone(),
        other => {
            let mut bytes = Vec::new();
            other.reader().unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        }
    };
    let seen = images.into_iter().map(|image| Seen {
        id: image.config.id.short(),
        tags: image.tags.iter().map(|t| t.familiar()).collect(),
        layers: image
            .layers
            .iter()
            .map(|l| {
                let bytes = read(&l.content);
                assert_eq!(bytes.len() as u64, l.content.length());
                (
                    Digest::of(&bytes).short(),
                    l.blob.map(|b| b.short()),
                    bytes.len(),
                )
            })
            .collect(),
        origins: image.origins.len(),
        notes: image.notes.len(),
    });
    Ok(seen.collect())
}

fn as_file(bytes: &[u8], platform: Option<&str>) -> Result<Vec<Seen>, ArchiveError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    match open(Input::Stream(OwnedFd::from(file)))? {
        Opened::Catalog(catalog) => see(&catalog, &[], platform),
        Opened::Stream(stream) => drain(stream, platform),
    }
}

fn drain(stream: Stream, platform: Option<&str>) -> Result<Vec<Seen>, ArchiveError> {
    let mut streamed = Vec::new();
    let catalog = stream.catalog::<ArchiveError>(&mut |_, content| {
        let mut bytes = Vec::new();
        // What is broken, the stream itself must report.
        let _ = content.read_to_end(&mut bytes);
        streamed.push(bytes);
        Ok(())
    })?;
    see(&catalog, &streamed, platform)
}

fn as_pipe(bytes: &[u8], platform: Option<&str>) -> Result<Vec<Seen>, ArchiveError> {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut writer = File::from(writer);
    let bytes = bytes.to_vec();
    let feeder = std::thread::spawn(move || writer.write_all(&bytes).is_ok());
    let result = match open(Input::Stream(reader))? {
        Opened::Catalog(_) => panic!("a pipe has no offsets"),
        Opened::Stream(stream) => drain(stream, platform),
    };
    let took_all = feeder.join().unwrap();
    assert!(
        took_all || result.is_err(),
        "a reader that succeeds reads to the end"
    );
    result
}

/// Reads it in every way; all must agree.
fn read_archive(bytes: &[u8], platform: Option<&str>) -> Result<Vec<Seen>, String> {
    let text = |result: Result<Vec<Seen>, ArchiveError>| result.map_err(|e| e.to_string());
    let file = text(as_file(bytes, platform));
    let pipe = text(as_pipe(bytes, platform));
    let packed = text(as_pipe(&gzip(bytes), platform));
    assert_eq!(file, pipe);
    assert_eq!(file, packed);
    file
}

fn docker(order: &str) -> Vec<u8> {
    // One small layer, one larger than what a stream keeps in memory.
    let (small, large) = (layer(100), layer(300_000));
    let config = config(&[&small, &large]);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{"Config": config_name, "RepoTags": ["app:1", "app:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    order
        .chars()
        .fold(Tar::default(), |tar, member| match member {
            'm' => tar.json("manifest.json", &manifest),
            'c' => tar.file(&config_name, &config),
            's' => tar
                .raw("a/", b'5', "", b"")
                .file("a/layer.tar", &small)
                .file("a/VERSION", "1.0"),
            'l' => tar.file("./b/layer.tar", &large),
            _ => tar.file("repositories", "not even JSON"),
        })
        .end()
}

#[test]
fn a_docker_archive_reads_alike_in_any_order_and_way() {
    let expected = read_archive(&docker("mcslr"), None).unwrap();
    assert_eq!(expected[0].tags, ["app:1", "app:2"]);
    assert_eq!(expected[0].layers.len(), 2);
    assert_eq!(expected[0].layers[1].2, 301_568);
    for order in ["slcm", "lscmr", "rlmsc", "cmls"] {
        assert_eq!(
            read_archive(&docker(order), None).as_ref(),
            Ok(&expected),
            "{order}"
        );
    }
}

#[test]
fn every_outer_compression_is_read() {
    let plain = docker("slcmr");
    let expected = as_file(&plain, None).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(&plain).unwrap();
    let packed = [
        gzip(&plain),
        zstd::encode_all(&*plain, 1).unwrap(),
        xz.finish().unwrap(),
        bz.finish().unwrap(),
    ];
    for bytes in packed {
        assert_eq!(as_file(&bytes, None).unwrap(), expected);
        assert_eq!(as_pipe(&bytes, None).unwrap(), expected);
    }
}

#[test]
fn linked_layers_are_followed_within_the_archive() {
    let large = layer(300_000);
    let config = config(&[&large, &large, &large]);
    let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]);
    let bytes = Tar::default()
        .raw("b/layer.tar", b'2', "../a/layer.tar", b"")
        .file("a/layer.tar", &large)
        .raw("c/layer.tar", b'1', "a/layer.tar", b"")
        .file("c.json", &config)
        .json("manifest.json", &manifest)
        .end();
    let seen = read_archive(&bytes, None).unwrap();
    assert_eq!(seen[0].tags, Vec::<String>::new());
    assert!(seen[0].layers.iter().all(|l| *l == seen[0].layers[0]));
}

#[test]
fn a_directory_reads_like_the_archive_it_was() {
    let expected = as_file(&docker("mcslr"), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    tar::Archive::new(&*docker("mcslr"))
        .unpack(dir.path())
        .unwrap();
    std::fs::rename(dir.path().join("b"), dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("b")).unwrap();
    let Opened::Catalog(catalog) = open(Input::Path(dir.path().to_owned())).unwrap() else {
        panic!()
    };
    assert_eq!(see(&catalog, &[], None).unwrap(), expected);

    std::fs::remove_file(dir.path().join("b")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("b")).unwrap();
    let error = see(&catalog, &[], None).unwrap_err().to_string();
    assert!(
        error.contains("leads outside") && error.contains("cp -rL"),
        "{error}"
    );
}

/// The kernel cannot tell where a `..` of a link leads while anything is renamed anywhere, and wants to be asked again.
#[test]
fn regression_links_inside_are_followed_while_others_rename() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("blobs")).unwrap();
    std::fs::write(path("part"), "x").unwrap();
    std::os::unix::fs::symlink("../part", path("blobs/b")).unwrap();
    std::fs::write(path("one"), "").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let at = File::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(path("one"), path("two")).unwrap();
                std::fs::rename(path("two"), path("one")).unwrap();
            }
        });
        let failed = (0..20_000).find_map(|_| open_beneath(&at, "blobs/b").err());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

#[test]
fn an_open_file_is_read_from_where_it_stands() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"seven..").unwrap();
    file.write_all(&docker("mcsl")).unwrap();
    file.seek(std::io::SeekFrom::Start(7)).unwrap();
    let Opened::Catalog(catalog) = open(Input::Stream(OwnedFd::from(file))).unwrap() else {
        panic!()
    };
    assert_eq!(
        see(&catalog, &[], None).unwrap(),
        as_file(&docker("mcsl"), None).unwrap()
    );
}
