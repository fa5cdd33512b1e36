use super::*;
use std::fs;
use std::os::unix::fs::symlink as ln;

#[test]
fn names_are_one_component() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    let host = Host::new().unwrap();
    let node = host.root(&root).unwrap();
    for (name, expected) in [
        (&b".."[..], Errno::XDEV),
        (b".", Errno::INVAL),
        (b"", Errno::INVAL),
        (b"../secret", Errno::INVAL),
        (b"/etc", Errno::INVAL),
        (b"a\0b", Errno::INVAL),
        (&[b'x'; 256], Errno::NAMETOOLONG),
        (b"missing", Errno::NOENT),
    ] {
        assert_eq!(host.child(&node, name).unwrap_err(), expected);
    }
    assert_eq!(unlink(&node, b"../secret").unwrap_err(), Errno::INVAL);
    assert_eq!(mkdir(&node, b"..", 0o755).unwrap_err(), Errno::XDEV);
}

#[test]
fn links_are_data() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    ln("/etc/passwd", root.join("link")).unwrap();
    let host = Host::new().unwrap();
    let node = host.root(&root).unwrap();
    let link = host.child(&node, b"link").unwrap();
    assert_eq!(kind(&stat(&link).unwrap()), FileType::Symlink);
    assert_eq!(read_link(&link).unwrap(), b"/etc/passwd");
    assert_eq!(host.open(&link, OFlags::RDONLY).unwrap_err(), Errno::LOOP);
    let root_link = host.root(&root.join("link")).unwrap();
    assert_eq!(kind(&stat(&root_link).unwrap()), FileType::Symlink);
    assert_eq!(host.root(&root.join("link/x")).unwrap_err(), Errno::LOOP);
    let taken = host.create(&node, b"link", OFlags::WRONLY, 0o600);
    assert_eq!(taken.unwrap_err(), Errno::EXIST);
}

#[test]
fn what_is_excluded_is_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let host = Host::new().unwrap();
    let node = host.root(&root).unwrap();
    host.exclude(device(&stat(&node).unwrap()));
    assert_eq!(host.root(&root).unwrap_err(), Errno::LOOP);
}

#[test]
fn owners_of_locks_meet() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || {
        fs::File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap()
    };
    let (a, b) = (open(), open());
    let low = Range { start: 0, end: 9 };
    let whole = Range {
        start: 0,
        end: u64::try_from(i64::MAX).unwrap(),
    };
    set_lock(&a, LockKind::Write, &low).unwrap();
    assert_eq!(
        set_lock(&b, LockKind::Read, &whole).unwrap_err(),
        Errno::AGAIN
    );
    set_lock(&b, LockKind::Write, &Range { start: 10, end: 10 }).unwrap();
    let (kind, range, pid) = get_lock(&b, LockKind::Read, &whole).unwrap().unwrap();
    assert_eq!((kind, range, pid), (LockKind::Write, low, -1));
    drop(a);
    assert_eq!(get_lock(&b, LockKind::Read, &whole).unwrap(), None);
    assert!(whole.is_whole() && !low.is_whole());
}
