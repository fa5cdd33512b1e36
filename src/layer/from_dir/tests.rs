use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};

use super::*;
use crate::layer::merged::{Image, MergedEntry};
use crate::layer::testing::{self, Tar};
use crate::layer::{Entry as LayerEntry, LayerFile, NodeNo, Target};
use crate::sys::idmap::{IdMap, IdRange};
use crate::tree::NodeKind;

fn source<'a>(directory: &'a Path, base: Option<&'a Image>) -> Source<'a> {
    Source {
        directory,
        base,
        overlay: OverlayAttributes::User,
        owners: Owners::Same,
        made: &[],
        latest: None,
    }
}

fn tar(source: &Source<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write(source, &mut out).unwrap();
    out
}

fn layer_of(tar: &[u8]) -> Arc<LayerFile> {
    let index = testing::build(tar, 1 << 20).unwrap_or_else(|error| panic!("{error}"));
    testing::open(&index, tar)
}

fn layer(source: &Source<'_>) -> Arc<LayerFile> {
    layer_of(&tar(source))
}

fn refusal(source: &Source<'_>) -> String {
    write(source, &mut io::sink()).unwrap_err().to_string()
}

fn find<'l>(layer: &'l LayerFile, path: &str) -> Option<LayerEntry<'l>> {
    let mut at = NodeNo::ROOT;
    let mut found = None;
    for name in path.split('/') {
        let entry = layer.index.find(at, name.as_bytes()).unwrap()?;
        if let Some(Target::Node(node)) = entry.target {
            at = node;
        }
        found = Some(entry);
    }
    found
}

fn node(layer: &LayerFile, path: &str) -> NodeNo {
    match find(layer, path).and_then(|entry| entry.target) {
        Some(Target::Node(node)) => node,
        _ => panic!("{path} is not there"),
    }
}

fn whiteout(path: &Path) {
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, path, kind, Mode::empty(), 0).unwrap();
}

fn note(path: &Path, name: &str, value: &str) {
    rustix::fs::lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
}

fn times(path: &Path, seconds: i64, nanos: u32) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn bytes(layer: &LayerFile, node: NodeNo) -> Vec<u8> {
    let size = layer.index.attributes(node).unwrap().size;
    let mut content = vec![0; usize::try_from(size).unwrap()];
    layer.read_at(node, 0, &mut content).unwrap();
    content
}

#[test]
fn nothing_is_the_empty_tar() {
    let dir = tempfile::tempdir().unwrap();
    let base = testing::image(&[
        Tar::new().head(testing::Head::new(b"./", b'5', 0).set(100, b"0000700\0"))
    ]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).ok();
    assert_eq!(tar(&source(dir.path(), Some(&base))), [0; 1024]);
    // docker's digest of it.
    assert_eq!(
        testing::diff_id(&[0; 1024]).to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn everything_a_layer_can_hold_comes_through() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/file"), vec![7u8; 100_001]).unwrap();
    fs::set_permissions(at("d/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    times(&at("d/file"), -5, 250_000_000);
    note(&at("d/file"), "user.note", "a=b\nc");
    fs::hard_link(at("d/file"), at("d/again")).unwrap();
    fs::hard_link(at("d/file"), at("a-link")).unwrap();
    symlink("../some/where", at("link")).unwrap();
    let long = "n".repeat(200);
    fs::create_dir(at(&long)).unwrap();
    fs::write(at(&format!("{long}/{long}")), "x").unwrap();
    symlink("t".repeat(300), at("far")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, at("fifo"), fifo, Mode::from_bits_truncate(0o640), 0).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    times(&at("d"), 1_700_000_000, 0);

    let first = tar(&source(dir.path(), None));
    assert_eq!(first, tar(&source(dir.path(), None)));
    let layer = layer_of(&first);
    let file = node(&layer, "d/file");
    let attributes = layer.index.attributes(file).unwrap();
    assert_eq!(attributes.mode, 0o4751);
    assert_eq!(
        (attributes.mtime_sec, attributes.mtime_nsec),
        (-5, 250_000_000)
    );
    assert_eq!(attributes.nlink, 3);
    assert_eq!(node(&layer, "a-link"), file);
    assert_eq!(node(&layer, "d/again"), file);
    assert_eq!(bytes(&layer, file), vec![7u8; 100_001]);
    let xattrs: Vec<_> = layer
        .index
        .xattrs(file)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(xattrs, [(&b"user.note"[..], &b"a=b\nc"[..])]);
    let target = |path: &str| layer.index.symlink_target(node(&layer, path)).unwrap();
    assert_eq!(target("link"), b"../some/where");
    assert_eq!(target("far"), "t".repeat(300).as_bytes());
    assert_eq!(bytes(&layer, node(&layer, &format!("{long}/{long}"))), b"x");
    assert_eq!(
        layer.index.kind(node(&layer, "fifo")).unwrap(),
        NodeKind::Fifo
    );
    assert!(find(&layer, "socket").is_none());
    let d = layer.index.attributes(node(&layer, "d")).unwrap();
    assert_eq!((d.mtime_sec, d.mtime_nsec), (1_700_000_000, 0));
}

#[test]
fn whiteouts_and_opaque_directories() {
    let base = testing::image(&[Tar::new()
        .dir(b"d")
        .file(b"d/x", b"")
        .dir(b"o")
        .file(b"o/old", b"")
        .dir(b"o/sub")
        .file(b"gone", b"")
        .file(b"also", b"")]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    whiteout(&at("d/x"));
    whiteout(&at("gone"));
    whiteout(&at("never-was"));
    fs::write(at("also"), "").unwrap();
    note(&at("also"), "user.overlay.whiteout", "y");
    fs::create_dir_all(at("o/sub")).unwrap();
    fs::set_permissions(at("o/sub"), fs::Permissions::from_mode(0o755)).unwrap();
    note(&at("o"), "user.overlay.opaque", "y");
    note(&at("o"), "user.overlay.origin", "whatever");
    fs::create_dir(at("new")).unwrap();
    note(&at("new"), "user.overlay.opaque", "y");
    fs::create_dir(at("d/x-marks")).unwrap();
    note(&at("d/x-marks"), "user.overlay.opaque", "x");

    let layer = layer(&source(dir.path(), Some(&base)));
    for gone in ["d/x", "gone", "also"] {
        let entry = find(&layer, gone).unwrap();
        assert!(entry.whiteout && entry.target.is_none(), "{gone}");
    }
    // Nothing to hide there.
    assert!(find(&layer, "never-was").is_none());
    let opaque = |path: &str| layer.index.is_opaque(node(&layer, path)).unwrap();
    assert!(opaque("o"));
    // Nothing shows through there, so what looks like the image's counts too.
    node(&layer, "o/sub");
    assert!(!opaque("new") && !opaque("d/x-marks") && !opaque("d"));
    for path in ["o", "new"] {
        assert!(layer.index.xattrs(node(&layer, path)).unwrap().is_empty());
    }
    // Without an image below every mark counts.
    let alone = self::layer(&source(dir.path(), None));
    assert!(find(&alone, "never-was").unwrap().whiteout);
    assert!(alone.index.is_opaque(node(&alone, "new")).unwrap());
}

#[test]
fn what_is_no_change_is_left_out() {
    let base = testing::image(&[Tar::new().dir(b"etc").dir(b"etc/deep").file(b"etc/f", b"")]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("etc/deep")).unwrap();
    fs::write(at("etc/hosts"), "").unwrap();
    fs::create_dir_all(at("data/inner")).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).ok();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["etc", "etc/deep", "data", "data/inner"] {
        fs::set_permissions(at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let made: Vec<String> = ["/data", "/data/inner", "/etc/hosts"]
        .map(str::to_owned)
        .into();
    let source = Source {
        made: &made,
        latest: None,
        ..source(dir.path(), Some(&base))
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(tar(&source), [0; 1024]);
    }
    // Something in them makes them changes.
    fs::write(at("data/inner/f"), "").unwrap();
    fs::write(at("etc/hosts"), "x").unwrap();
    let layer = layer(&source);
    for path in ["data/inner/f", "etc/hosts", "etc"] {
        node(&layer, path);
    }
    if rustix::process::geteuid().is_root() {
        assert!(find(&layer, "etc/deep").is_none());
    }
}

#[test]
fn refusals_name_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/.wh.x"), "").unwrap();
    assert_eq!(
        refusal(&source(dir.path(), None)),
        "\"/d/.wh.x\": a layer cannot hold names that begin with \".wh.\""
    );
    fs::remove_file(at("d/.wh.x")).unwrap();
    for (name, shown) in [("redirect", "redirect"), ("metacopy", "metacopy")] {
        fs::write(at("d/f"), "").unwrap();
        note(&at("d/f"), &format!("user.overlay.{name}"), "/x");
        let text = refusal(&source(dir.path(), None));
        assert!(text.contains("/d/f") && text.contains(shown), "{text}");
        fs::remove_file(at("d/f")).unwrap();
    }
    let missing = dir.path().join("missing");
    assert!(refusal(&source(&missing, None)).contains("missing"));
    // A link in the place of the directory leads nowhere.
    symlink(dir.path(), at("l")).unwrap();
    let link = at("l");
    assert!(write(&source(&link, None), &mut io::sink()).is_err());
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 30).unwrap();
    drop(file);
    let bytes = tar(&source(dir.path(), None));
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    let layer = layer_of(&bytes);
    let node = node(&layer, "sparse");
    assert_eq!(layer.index.attributes(node).unwrap().size, 1 << 40);
    let mut read = [0; 8];
    layer.read_at(node, (1 << 30) - 1, &mut read).unwrap();
    assert_eq!(&read, b"\0middle\0");
}

/// Deeper than a path may be long, and than a process may have files open.
#[test]
fn deep_directories() {
    const DEPTH: usize = 1200;
    let top = tempfile::tempdir().unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut at = rustix::fs::openat(CWD, top.path(), flags, Mode::empty()).unwrap();
    for level in 0..DEPTH {
        rustix::fs::mkdirat(&at, "deep", Mode::from_bits_truncate(0o755)).unwrap();
        if level % 500 == 3 {
            // Behind the way down: what is closed is found again.
            rustix::fs::mkdirat(&at, "later", Mode::from_bits_truncate(0o700)).unwrap();
        }
        at = rustix::fs::openat(&at, "deep", flags, Mode::empty()).unwrap();
    }
    let mut out = Vec::new();
    let written = write(&source(top.path(), None), &mut out).unwrap();
    assert_eq!(written.entries, 1 + DEPTH as u64 + 3);
    let layer = layer_of(&out);
    let path = vec!["deep"; 1003].join("/");
    let later = node(&layer, &format!("{path}/later"));
    assert_eq!(layer.index.attributes(later).unwrap().mode, 0o700);
    // remove_dir_all of the standard library holds every level open.
    assert!(
        std::process::Command::new("rm")
            .arg("-r")
            .arg(top.path().join("deep"))
            .status()
            .unwrap()
            .success()
    );
}

/// Takes bytes, and at a certain one changes a file.
struct Meddler<'a> {
    left: usize,
    path: &'a Path,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.left;
        self.left = self.left.saturating_sub(bytes.len());
        if before > 0 && self.left == 0 {
            let file = fs::File::options().write(true).open(self.path)?;
            file.set_len(10)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for left in [3000, 300_000, 1_000_000] {
        fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
        let mut out = Meddler { left, path: &path };
        let error = write(&source(dir.path(), None), &mut out).unwrap_err();
        assert!(matches!(error, FromDirError::Changed(_)), "{error}");
        assert!(error.to_string().contains("/log"), "{error}");
    }
}

#[test]
fn owners_go_back_to_those_inside() {
    let ranges = vec![
        IdRange {
            inside: 0,
            outside: 0,
            count: 1,
        },
        IdRange {
            inside: 33,
            outside: 100_033,
            count: 1,
        },
    ];
    let map = IdMap {
        uids: ranges.clone(),
        gids: ranges,
    };
    assert_eq!(Owners::Mapped(&map).inside(0, 100_033), Ok((0, 33)));
    assert_eq!(Owners::Mapped(&map).inside(100_033, 5), Err(("group", 5)));
    let mut capability = [1, 0, 0, 3].to_vec();
    capability.extend([0; 16]);
    capability.extend(0u32.to_le_bytes());
    let value = capability.clone();
    let (pairs, _) = attributes::sort(
        b"security.capability\0",
        OverlayAttributes::User,
        Owners::Mapped(&map),
        |_| Ok(Some(value.clone())),
    )
    .unwrap();
    assert_eq!(pairs.len(), 1);
    assert_eq!((pairs[0].1.len(), pairs[0].1[3]), (20, 2));
}

#[derive(Debug, Clone)]
enum Made {
    Dir(u32),
    File(Vec<u8>, u32, i64, u32),
    Link(Vec<u8>),
    Hard(usize),
    Fifo,
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        (0o700..0o10_000u32).prop_map(|mode| Made::Dir(mode | 0o700)),
        (
            prop::collection::vec(any::<u8>(), 0..2000),
            0..0o10_000u32,
            -2_000_000_000i64..4_000_000_000,
            0..1_000_000_000u32,
        )
            .prop_map(|(data, mode, sec, nsec)| Made::File(data, mode | 0o400, sec, nsec)),
        prop::collection::vec(1..=255u8, 1..200).prop_map(Made::Link),
        (0..8usize).prop_map(Made::Hard),
        Just(Made::Fifo),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        any::<u8>().prop_filter("no separator", |byte| !matches!(*byte, 0 | b'/')),
        1..120,
    )
    .prop_filter("a name", |name| {
        !matches!(name.as_slice(), b"." | b"..") && !name.starts_with(b".wh.")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in a directory is what the layer's index shows, and the same bytes come out twice.
    #[test]
    fn a_directory_comes_back(
        entries in prop::collection::vec((name(), any::<prop::sample::Index>(), made()), 0..14)
    ) {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let top = tempfile::tempdir().unwrap();
        let mut dirs = vec![top.path().to_owned()];
        let mut files = Vec::new();
        for (name, parent, what) in &entries {
            let path = parent.get(&dirs).join(OsStr::from_bytes(name));
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match what {
                Made::Dir(mode) => {
                    fs::create_dir(&path).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    dirs.push(path);
                }
                Made::File(data, mode, sec, nsec) => {
                    fs::write(&path, data).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    times(&path, *sec, *nsec);
                    files.push(path);
                }
                Made::Link(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
                Made::Hard(which) => if let Some(file) = files.get(*which) {
                    fs::hard_link(file, &path).unwrap();
                },
                Made::Fifo => rustix::fs::mknodat(
                    CWD, &path, rustix::fs::FileType::Fifo, Mode::from_bits_truncate(0o600), 0,
                ).unwrap(),
            }
        }
        let bytes = tar(&source(top.path(), None));
        prop_assert_eq!(&bytes, &tar(&source(top.path(), None)));
        let image = Image::new(vec![layer_of(&bytes)]).unwrap();
        let mut seen = 0;
        image.walk(|path, entry| {
            use std::os::unix::fs::MetadataExt;
            seen += 1;
            let path = top.path().join(OsStr::from_bytes(path));
            let has = path.symlink_metadata().unwrap();
            let attributes = match entry {
                MergedEntry::Dir(dir) => image.attributes_of_dir(dir)?,
                MergedEntry::Leaf(node) => image.attributes(*node)?,
            };
            assert_eq!(attributes.mode, has.mode() & 0o7777);
            assert_eq!((attributes.uid, attributes.gid), (has.uid(), has.gid()));
            assert_eq!(attributes.mtime_sec, has.mtime());
            assert_eq!(i64::from(attributes.mtime_nsec), has.mtime_nsec());
            if let MergedEntry::Leaf(node) = entry {
                assert_eq!(u64::from(attributes.nlink), has.nlink());
                match attributes.kind {
                    NodeKind::Regular => assert_eq!(
                        bytes_of(&image, *node), fs::read(&path).unwrap()
                    ),
                    NodeKind::Symlink => assert_eq!(
                        image.symlink_target(*node)?, fs::read_link(&path).unwrap().as_os_str().as_bytes()
                    ),
                    _ => {}
                }
            }
            Ok::<(), crate::layer::IndexError>(())
        }).unwrap();
        let made = walkdir(top.path());
        prop_assert_eq!(seen, made);
    }
}

fn bytes_of(image: &Image, node: crate::layer::merged::NodeRef) -> Vec<u8> {
    bytes(image.layer(node.layer), node.node)
}

fn walkdir(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        count += 1;
        if entry.file_type().unwrap().is_dir() {
            count += walkdir(&entry.path());
        }
    }
    count
}
