use std::fs;

use super::pass::{inside, parse_mapping};
use super::*;
use std::process::{Child, Command};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn found(dir: &Path, pid: u32, maps: bool) -> Vec<(How, PathBuf)> {
    let (device, inside) = locate(dir).unwrap();
    let below = Below {
        device,
        inside: &inside,
        shown: dir,
    };
    let depth = match maps {
        true => Depth::Mapped,
        false => Depth::Open,
    };
    let question = Question {
        below: Some(below),
        depth,
        ..Question::default()
    };
    let held = holders(&question).unwrap().held;
    let ours = held.into_iter().filter(|held| held.pid == pid);
    let mut ours: Vec<_> = ours
        .filter_map(|held| match held.place {
            Place::At(path) => Some((held.how, path.strip_prefix(&inside).unwrap().to_owned())),
            Place::Unknown => None,
        })
        .collect();
    ours.sort();
    ours
}

#[test]
fn a_directory_on_the_host_has_holders() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    fs::create_dir(dir.join("in")).unwrap();
    fs::write(dir.join("in/f"), "x").unwrap();
    let child = Command::new("sleep")
        .arg("60")
        .current_dir(dir.join("in"))
        .stdin(fs::File::open(dir.join("in/f")).unwrap())
        .stdout(fs::File::open(dir.join("in")).unwrap())
        .spawn()
        .unwrap();
    let child = Killed(child);
    let expected = [
        (How::Cwd, PathBuf::from("in")),
        (How::Open, PathBuf::from("in/f")),
        (How::OpenDirectory, PathBuf::from("in")),
    ];
    assert_eq!(found(&dir, child.0.id(), false), expected);
    drop(child);

    fs::copy("/bin/sleep", dir.join("prog")).unwrap();
    let child = Killed(Command::new(dir.join("prog")).arg("60").spawn().unwrap());
    let mapped = found(&dir, child.0.id(), true);
    assert!(
        mapped.contains(&(How::Mapped, PathBuf::from("prog"))),
        "{mapped:?}"
    );
    assert_eq!(found(&dir, child.0.id(), false), []);
}

#[test]
fn a_place_is_told_by_mount_and_path() {
    let mount = |root: &str, point: &str| {
        let line = format!("1 0 0:42 {root} {point} rw - fuse.mica mica rw\n");
        mountinfo::parse(line.as_bytes()).remove(0)
    };
    let table = [
        ("/", "/m/volumes", "/m/volumes/x/f", Some("/x/f")),
        ("/", "/m/volumes", "/m/volumes", Some("/")),
        ("/x", "/mnt", "/mnt/f", Some("/x/f")),
        ("/x", "/mnt", "/mnt", Some("/x")),
        // Below a chroot, as the outside sees it.
        ("/", "/volumes", "/jail/volumes/x/f", Some("/x/f")),
        // Moved out of sight: only the part that is mounted is known, or nothing.
        ("/x", "/mnt", "/f", Some("/x")),
        ("/", "/m/volumes", "/x/f", None),
    ];
    for (root, point, shown, expected) in table {
        let place = match expected {
            Some(path) => Place::At(path.into()),
            None => Place::Unknown,
        };
        assert_eq!(
            inside(&mount(root, point), Path::new(shown)),
            place,
            "{shown}"
        );
    }
}

#[test]
fn mapping_lines() {
    let line = b"7f00-7f01 r-xp 00000000 00:2a 1234                       /a b";
    let device = DeviceId {
        major: 0,
        minor: 42,
    };
    let expected = ("7f00-7f01", device, 1234, PathBuf::from("/a b"));
    assert_eq!(parse_mapping(line), Some(expected));
    assert_eq!(parse_mapping(b""), None);
}
