//! Tars as they stream by, and indexes as they lie on the disk.

use std::io::Write as _;
use std::sync::OnceLock;

use mica::layer::{LayerIndex, LayerScanner, Limits, NodeNo};
use mica::oci::{DiffId, Digest};

use crate::Target;

pub const TARGETS: &[Target] = &[
    Target {
        name: "tar",
        specimens: tars,
        words: &[
            "path=",
            "linkpath=",
            "size=",
            "GNU.sparse.map=",
            ".wh.",
            "../",
            "SCHILY.xattr.",
        ],
        read: scan,
    },
    Target {
        name: "index",
        specimens: indexes,
        words: &[],
        read: open,
    },
];

fn limits() -> Limits {
    Limits {
        max_tar_bytes: 1 << 20,
        max_entries: 10_000,
        max_metadata_bytes: 1 << 20,
        ..Limits::default()
    }
}

fn tars() -> Vec<Vec<u8>> {
    let mut small = tar::Builder::new(Vec::new());
    let mut large = tar::Builder::new(Vec::new());
    let add = |to: &mut tar::Builder<Vec<u8>>, kind, path: &str, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(u64::try_from(data.len()).unwrap());
        if !link.is_empty() {
            to.append_link(&mut header, path, link).unwrap();
            return;
        }
        to.append_data(&mut header, path, data).unwrap();
    };
    use tar::EntryType;
    add(&mut small, EntryType::Directory, "d", "", b"");
    add(&mut small, EntryType::Regular, "d/f", "", b"content");
    add(&mut small, EntryType::Symlink, "d/s", "f", b"");
    add(&mut small, EntryType::Link, "d/l", "d/f", b"");
    add(&mut small, EntryType::Regular, "d/.wh.gone", "", b"");
    add(&mut small, EntryType::Regular, "d/.wh..wh..opq", "", b"");
    let long = format!("{}/{}", "n".repeat(200), "m".repeat(150));
    add(&mut large, EntryType::Regular, &long, "", &[7; 40_000]);
    large
        .append_pax_extensions([("SCHILY.xattr.user.x", &b"y"[..]), ("mtime", b"1.5")])
        .unwrap();
    add(&mut large, EntryType::Regular, "x", "", b"1");
    vec![small.into_inner().unwrap(), large.into_inner().unwrap()]
}

fn scan(bytes: &[u8]) {
    let mut scanner = LayerScanner::new(&limits());
    // Pieces whose borders move with the content.
    let step = 1 + usize::from(bytes.first().copied().unwrap_or(0)) * 17;
    for piece in bytes.chunks(step) {
        if scanner.push(piece).is_err() {
            return;
        }
    }
    let size = u64::try_from(bytes.len()).unwrap();
    if let Ok(index) = scanner.finish(DiffId(Digest::of(bytes)), size) {
        index.write_to(&mut tempfile::tempfile().unwrap()).unwrap();
    }
}

/// Indexes, each with the layer it is of at the end of the file's own header.
fn indexes() -> Vec<Vec<u8>> {
    let write = |(bytes, id): &(Vec<u8>, DiffId)| {
        let mut scanner = LayerScanner::new(&limits());
        scanner.push(bytes).unwrap();
        let size = u64::try_from(bytes.len()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let index = scanner.finish(*id, size).unwrap();
        index.write_to(file.as_file_mut()).unwrap();
        std::fs::read(file.path()).unwrap()
    };
    layers().iter().map(write).collect()
}

fn layers() -> &'static [(Vec<u8>, DiffId)] {
    static LAYERS: OnceLock<Vec<(Vec<u8>, DiffId)>> = OnceLock::new();
    LAYERS.get_or_init(|| {
        let with_id = |bytes: Vec<u8>| {
            let id = DiffId(Digest::of(&bytes));
            (bytes, id)
        };
        tars().into_iter().map(with_id).collect()
    })
}

fn open(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.write_all(bytes).unwrap();
    for (_, id) in layers() {
        let Ok(index) = LayerIndex::open(file.path(), id) else {
            continue;
        };
        let _ = index.verify_all();
        for node in 0..index.node_count().min(1000) {
            let node = NodeNo(node);
            let _ = index.attributes(node);
            let _ = index.symlink_target(node);
            let _ = index.xattrs(node);
            let _ = index.extents(node);
            if let Ok(entries) = index.entries(node) {
                entries.iter().take(1000).for_each(drop);
            }
            let _ = index.find(node, b"f");
        }
    }
}
