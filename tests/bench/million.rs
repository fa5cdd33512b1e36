//! A docker-archive with a layer of a million entries, written as a stream.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::common::image::{ImageBuilder, digest};
use crate::common::real;
use crate::common::tarball::{TarEntry, TarWriter, header};

const DIRECTORIES: u64 = 1_000;
const FILES_EACH: u64 = 999;
/// The image's name.
pub const TAG: &str = "bench/million:1";

/// The archive; made once.
pub fn archive() -> PathBuf {
    let path = real::directory().join("million.tar");
    if !path.exists() {
        eprintln!("bench: making {}", path.display());
        let new = path.with_extension("new");
        write(&new).expect("writing the archive of a million entries");
        fs::rename(&new, &path).expect("rename");
    }
    path
}

/// Counts nothing and forgets nothing: passes on what it hashes.
struct Hashing<W: Write> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut layer = TarEntry::new(b'0', "layer.tar");
    layer.size = Some(512 * (DIRECTORIES * (1 + FILES_EACH) + 2));
    out.write_all(&header(&layer))?;
    let mut tar = TarWriter::new(Hashing {
        out,
        hash: Sha256::new(),
    });
    for directory in 0..DIRECTORIES {
        tar.entry(&TarEntry::new(b'5', format!("d{directory:03}/")))?;
        for file in 0..FILES_EACH {
            tar.entry(&TarEntry::new(
                b'0',
                format!("d{directory:03}/file-{file:03}"),
            ))?;
        }
    }
    let Hashing { out, hash } = tar.finish()?;
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let image = ImageBuilder::new(TAG).config(|config| {
        config["rootfs"]["diff_ids"] = json!([format!("sha256:{hex}")]);
        config["history"] = json!([{"created_by": "a million entries"}]);
    });
    let config = image.config_bytes();
    let name = format!("{}.json", digest(&config).replace("sha256:", ""));
    let manifest = json!([{"Config": name, "RepoTags": [TAG], "Layers": ["layer.tar"]}]);
    let mut tar = TarWriter::new(out);
    for (name, content) in [
        (name, config),
        ("manifest.json".into(), serde_json::to_vec(&manifest)?),
    ] {
        let mut entry = TarEntry::new(b'0', name);
        entry.content = content;
        tar.entry(&entry)?;
    }
    tar.finish()?.flush()
}
