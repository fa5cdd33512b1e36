//! Archives that readers read differently: mica sees the entries that GNU tar and Python's tarfile see, or it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::image::digest;
use crate::common::sandbox::Sandbox;
use crate::common::tarball::{TarEntry, TarWriter, checksum, header, pax_record};
use crate::common::tier;
use crate::common::user::as_user;

/// Who unpacks: not root, whatever is in there.
const USER: u32 = 54_410;

/// Files by name with size and digest, links with their target, directories.
type Tree = BTreeMap<String, String>;

fn file(name: &str, content: &[u8]) -> TarEntry {
    let mut entry = TarEntry::new(b'0', name);
    entry.content = content.to_vec();
    entry
}

fn link(kind: u8, name: &str, target: &str) -> TarEntry {
    let mut entry = TarEntry::new(kind, name);
    entry.link = target.into();
    entry
}

fn tar(entries: &[TarEntry]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.finish().unwrap()
}

/// An extension header of this kind with these bytes.
fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut entry = TarEntry::new(kind, "././@LongLink");
    entry.content = content.to_vec();
    let mut writer = TarWriter::new(Vec::new());
    writer.entry(&entry).unwrap();
    writer.into_inner()
}

fn records(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        pax_record(&mut out, key.as_bytes(), value.as_bytes());
    }
    out
}

/// The archives. Each ends with a file of its own, which shows who has lost the thread.
fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let inner = tar(&[file("evil", b"of the inner archive")]);
    let last = tar(&[file("last", b"the end")]);
    let joined = |parts: &[&[u8]]| [parts.concat(), last.clone()].concat();
    let with_pax = |entry: &TarEntry, pairs: &[(&str, &str)], said: u64| {
        let mut entry = entry.clone();
        entry.size = Some(said);
        for (key, value) in pairs {
            entry
                .pax
                .push((key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&entry).unwrap();
        writer.into_inner()
    };
    let length = inner.len().to_string();
    let carrier = file("carrier", &inner);
    let plain = |entry: &TarEntry| {
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.into_inner()
    };
    let headed = |change: &dyn Fn(&mut [u8; 512]), content: &[u8]| {
        let mut entry = file("changed", content);
        entry.size = Some(content.len() as u64);
        let mut block = header(&entry);
        change(&mut block);
        checksum(&mut block);
        let mut bytes = [&block[..], content].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let ordinary = file("f", b"ordinary");
    let directory = TarEntry::new(b'5', "d/");
    let full_directory = {
        let mut entry = directory.clone();
        entry.content = inner.clone();
        entry
    };
    let full = |kind: u8, target: &str| {
        let mut entry = link(kind, "linked", target);
        entry.content = inner.clone();
        entry
    };
    let long = "n".repeat(150);
    vec![
        (
            "pax size, none in the header",
            joined(&[&with_pax(&carrier, &[("size", &length)], 0)]),
        ),
        (
            "pax size 0, one in the header",
            joined(&[&with_pax(&carrier, &[("size", "0")], inner.len() as u64)]),
        ),
        (
            "pax size less than in the header",
            joined(&[&with_pax(&carrier, &[("size", "512")], inner.len() as u64)]),
        ),
        (
            "pax size more than in the header",
            joined(&[&with_pax(&carrier, &[("size", &length)], 512)]),
        ),
        (
            "two pax sizes",
            joined(&[&with_pax(&carrier, &[("size", "0"), ("size", &length)], 0)]),
        ),
        (
            "pax size that is none",
            joined(&[&with_pax(&carrier, &[("size", "-1")], 0)]),
        ),
        (
            "pax size with blanks",
            joined(&[&with_pax(&carrier, &[("size", " 512")], 0)]),
        ),
        (
            "pax path",
            joined(&[&with_pax(&ordinary, &[("path", "other")], 8)]),
        ),
        (
            "two pax paths",
            joined(&[&with_pax(&ordinary, &[("path", "one"), ("path", "two")], 8)]),
        ),
        (
            "empty pax path",
            joined(&[&with_pax(&ordinary, &[("path", "")], 8)]),
        ),
        (
            "pax path with NUL",
            joined(&[&with_pax(&ordinary, &[("path", "a\0b")], 8)]),
        ),
        (
            "pax without line end",
            joined(&[&extension(b'x', b"10 path=xy"), &plain(&ordinary)]),
        ),
        (
            "pax with a length too large",
            joined(&[&extension(b'x', b"99 path=x\n"), &plain(&ordinary)]),
        ),
        (
            "pax with a length too small",
            joined(&[&extension(b'x', b"5 path=x\n"), &plain(&ordinary)]),
        ),
        (
            "pax with a length that is none",
            joined(&[&extension(b'x', b"x path=x\n"), &plain(&ordinary)]),
        ),
        (
            "pax without a key",
            joined(&[&extension(b'x', b"5 =x\n"), &plain(&ordinary)]),
        ),
        (
            "two pax headers",
            joined(&[
                &extension(b'x', &records(&[("path", "one")])),
                &extension(b'x', &records(&[("path", "two")])),
                &plain(&ordinary),
            ]),
        ),
        (
            "a long name and a pax header",
            joined(&[
                &extension(b'L', b"long\0"),
                &extension(b'x', &records(&[("path", "pax")])),
                &plain(&ordinary),
            ]),
        ),
        (
            "a pax header and a long name",
            joined(&[
                &extension(b'x', &records(&[("path", "pax")])),
                &extension(b'L', b"long\0"),
                &plain(&ordinary),
            ]),
        ),
        (
            "two long names",
            joined(&[
                &extension(b'L', b"one\0"),
                &extension(b'L', b"two\0"),
                &plain(&ordinary),
            ]),
        ),
        (
            "a long name of two texts",
            joined(&[&extension(b'L', b"one\0two\0"), &plain(&ordinary)]),
        ),
        (
            "a long name without end",
            joined(&[&extension(b'L', long.as_bytes()), &plain(&ordinary)]),
        ),
        (
            "a long name and a long link",
            joined(&[
                &plain(&file("target", b"t")),
                &extension(b'K', b"target\0"),
                &extension(b'L', b"named\0"),
                &plain(&link(b'2', "x", "y")),
            ]),
        ),
        (
            "a long name before the end",
            [extension(b'L', b"one\0"), last.clone()].concat(),
        ),
        (
            "a global comment",
            joined(&[
                &extension(b'g', &records(&[("comment", "x")])),
                &plain(&ordinary),
            ]),
        ),
        (
            "a directory with content",
            joined(&[&plain(&full_directory)]),
        ),
        (
            "a symlink with content",
            joined(&[&plain(&full(b'2', "f"))]),
        ),
        (
            "a hard link with content",
            joined(&[&plain(&file("f", b"linked to")), &plain(&full(b'1', "f"))]),
        ),
        (
            "a file whose name ends with a slash",
            joined(&[&plain(&file("slash/", b"content"))]),
        ),
        (
            "an old file whose name ends with a slash",
            joined(&[&plain(&{
                let mut e = file("slash/", b"");
                e.kind = 0;
                e
            })]),
        ),
        (
            "an old file",
            joined(&[&plain(&{
                let mut e = ordinary.clone();
                e.kind = 0;
                e
            })]),
        ),
        (
            "a contiguous file",
            joined(&[&plain(&{
                let mut e = ordinary.clone();
                e.kind = b'7';
                e
            })]),
        ),
        (
            "a type nobody knows",
            joined(&[&plain(&{
                let mut e = ordinary.clone();
                e.kind = b'Z';
                e
            })]),
        ),
        (
            "a size with blanks",
            joined(&[&headed(
                &|block| block[124..136].copy_from_slice(b"         10 "),
                b"8 bytes.",
            )]),
        ),
        (
            "a size without end",
            joined(&[&headed(
                &|block| block[124..136].copy_from_slice(b"000000000010"),
                b"8 bytes.",
            )]),
        ),
        (
            "a size in base 256",
            joined(&[&headed(
                &|block| block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x08"),
                b"8 bytes.",
            )]),
        ),
        (
            "a size below zero",
            joined(&[&headed(
                &|block| {
                    block[124..136]
                        .copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
                },
                b"",
            )]),
        ),
        (
            "a size that is no number",
            joined(&[&headed(
                &|block| block[124..136].copy_from_slice(b"0000000001z\0"),
                b"8 bytes.",
            )]),
        ),
        (
            "a prefix",
            joined(&[&headed(
                &|block| block[345..351].copy_from_slice(b"prefix"),
                b"x",
            )]),
        ),
        (
            "a prefix of another format",
            joined(&[&headed(
                &|block| {
                    block[257..265].copy_from_slice(b"ustar  \0");
                    block[345..351].copy_from_slice(b"prefix");
                },
                b"x",
            )]),
        ),
        (
            "a name of a hundred bytes",
            joined(&[&plain(&file(&"n".repeat(100), b"x"))]),
        ),
        (
            "one block of zeros",
            [plain(&ordinary), vec![0; 512], last.clone()].concat(),
        ),
        (
            "two blocks of zeros",
            [plain(&ordinary), vec![0; 1024], last.clone()].concat(),
        ),
        (
            "a path that goes up",
            joined(&[&plain(&file("a/../../up", b"x"))]),
        ),
        (
            "a path from the root",
            joined(&[&plain(&file("/rooted", b"x"))]),
        ),
        ("a path of dots", joined(&[&plain(&file("./a/./b", b"x"))])),
        (
            "a hard link from the root",
            joined(&[&plain(&ordinary), &plain(&link(b'1', "hard", "/f"))]),
        ),
        (
            "a hard link with a dot",
            joined(&[&plain(&ordinary), &plain(&link(b'1', "hard", "./f"))]),
        ),
        (
            "a hard link that goes up",
            joined(&[&plain(&ordinary), &plain(&link(b'1', "hard", "a/../../f"))]),
        ),
        (
            "a hard link out",
            joined(&[
                &plain(&ordinary),
                &plain(&link(b'1', "hard", "../../../../etc/passwd")),
            ]),
        ),
        (
            "a hard link to nothing",
            joined(&[&plain(&link(b'1', "hard", "nothing"))]),
        ),
        (
            "a hard link to itself",
            joined(&[&plain(&link(b'1', "hard", "hard"))]),
        ),
        (
            "a hard link to what comes later",
            joined(&[&plain(&link(b'1', "hard", "last"))]),
        ),
        (
            "a hard link to a directory",
            joined(&[&plain(&directory), &plain(&link(b'1', "hard", "d"))]),
        ),
        (
            "a hard link through a symlink",
            joined(&[
                &plain(&directory),
                &plain(&file("d/f", b"x")),
                &plain(&link(b'2', "s", "d")),
                &plain(&link(b'1', "hard", "s/f")),
            ]),
        ),
        (
            "a file through a symlink",
            joined(&[
                &plain(&directory),
                &plain(&link(b'2', "s", "d")),
                &plain(&file("s/f", b"x")),
            ]),
        ),
        (
            "a file through a symlink that leads out",
            joined(&[
                &plain(&link(b'2', "s", "/tmp")),
                &plain(&file("s/mica-differential", b"x")),
            ]),
        ),
        (
            "a file twice",
            joined(&[&plain(&file("f", b"one")), &plain(&file("f", b"two"))]),
        ),
        (
            "a symlink in place of a file",
            joined(&[&plain(&file("f", b"one")), &plain(&link(b'2', "f", "last"))]),
        ),
    ]
}

fn walk(dir: &Path, at: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        let kind = path.symlink_metadata().unwrap().file_type();
        let what = if kind.is_dir() {
            walk(dir, &path, tree);
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else {
            let bytes = fs::read(&path).unwrap();
            format!("{} bytes {}", bytes.len(), digest(&bytes))
        };
        tree.insert(name, what);
    }
}

/// What GNU tar unpacks; `None`: it refuses something.
fn unpacked(s: &Sandbox, archive: &Path, name: &str) -> Option<Tree> {
    let dir = s.mkdir(name);
    std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).unwrap();
    let mut command = as_user(USER, "tar");
    command.arg("-xf").arg(archive).arg("-C").arg(&dir);
    let done = s.run(command).status.success();
    let mut tree = Tree::new();
    walk(&dir, &dir, &mut tree);
    done.then_some(tree)
}

/// The regular files that Python's tarfile sees, the last of a name, by names as they are below a root; `None`: it refuses.
const LIST: &str = r#"
import hashlib, os, sys, tarfile
try:
    found = {}
    with tarfile.open(sys.argv[1], 'r:') as archive:
        for member in archive.getmembers():
            name = os.path.normpath('/' + member.name).strip('/')
            found.pop(name, None)
            if member.isreg():
                data = archive.extractfile(member).read()
                found[name] = '%d bytes sha256:%s' % (len(data), hashlib.sha256(data).hexdigest())
    for name, what in found.items():
        print(name + '\t' + what)
except (tarfile.TarError, ValueError, KeyError, OverflowError, OSError):
    sys.exit(1)
"#;

fn listed(s: &Sandbox, archive: &Path) -> Option<Tree> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", LIST]).arg(archive);
    let run = s.run(command);
    let text = run.stdout();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let pairs = lines.map(|(name, what)| (name.to_owned(), what.to_owned()));
    run.status.success().then(|| pairs.collect())
}

/// Where Python stands alone: it knows no empty value that takes another back, reads a prefix in a header of a format without one,
/// and lists names without the links that they lead through.
const PYTHON_ALONE: [&str; 4] = [
    "empty pax path",
    "a prefix of another format",
    "a file through a symlink",
    "a file through a symlink that leads out",
];

/// Row by row: what mica takes has the same files for all three.
#[test]
fn root_cve_2025_62518_three_readers_read_the_same_or_mica_refuses() {
    tier::root();
    let s = Sandbox::new();
    let (mut taken, mut wrong) = (0, Vec::new());
    for (number, (name, bytes)) in archives().into_iter().enumerate() {
        let archive = s.path(format!("{number}.tar"));
        fs::write(&archive, bytes).unwrap();
        let tag = format!("app:{number}");
        let run = s.mica(["import", archive.to_str().unwrap(), &tag]);
        if run.status.code() == Some(1) {
            assert!(!run.stderr.is_empty(), "{name}");
            continue;
        }
        run.ok();
        taken += 1;
        let out = s.path(format!("{number}.out.tar"));
        s.mica(["export", "-o", out.to_str().unwrap(), &tag]).ok();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
        let mica = unpacked(&s, &out, &format!("{number}.mica")).expect("what mica writes");
        if let Some(gnu) = unpacked(&s, &archive, &format!("{number}.gnu"))
            && gnu != mica
        {
            wrong.push(format!("{name}: GNU tar {gnu:#?}, mica {mica:#?}"));
        }
        if let Some(python) = listed(&s, &archive) {
            let mut files = mica.clone();
            files.retain(|_, what| what.contains(" bytes "));
            // Python's list has a hard link as a link.
            files.retain(|name, _| {
                python.contains_key(name) || !name.contains("hard") && name != "linked"
            });
            if python != files && !PYTHON_ALONE.contains(&name) {
                wrong.push(format!("{name}: Python {python:#?}, mica {files:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Not because everything is refused.
    assert!(taken >= 20, "{taken}");
    assert!(!Path::new("/tmp/mica-differential").exists());
}
