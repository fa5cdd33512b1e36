//! The chapter "Isolation": the store is its owner's alone.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::common::user::as_user;

fn mode(path: &Path) -> u32 {
    let stat = path
        .symlink_metadata()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    stat.mode() & 0o7777
}

fn image() -> ImageBuilder {
    ImageBuilder::new("sample:1").layer(|l| l.file("secret", "for root only").mode(0o600))
}

/// What below `dir` others may read, write or enter, but for what belongs to volumes and containers.
fn open_to_others(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut open = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().expect("stat");
        let name = path.file_name().unwrap_or_default();
        if stat.mode() & 0o077 != 0 && !stat.is_symlink() {
            open.push((path.clone(), stat.mode() & 0o7777));
        }
        if stat.is_dir() && name != "_data" && name != "upper" {
            let entries = fs::read_dir(&path).expect("readdir");
            todo.extend(entries.map(|entry| entry.expect("readdir").path()));
        }
    }
    open.retain(|(path, _)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // What containers get of them is bound into them.
        !["_data", "upper", "hosts", "hostname", "resolv.conf"].contains(&&*name)
    });
    open.sort();
    open
}

/// A store, with its volumes, locks, logs and sockets, is its owner's alone: nobody else reads or enters any of it, whatever umask it was made with.
#[test]
fn regression_root_a_store_is_private_whatever_the_umask() {
    for umask in ["000", "002", "077"] {
        let sandbox = Sandbox::new();
        image().docker_archive(&sandbox.path("i.tar"));
        let mica = env!("CARGO_BIN_EXE_mica");
        let mount = sandbox.mkdir("m");
        tier::root();
        let script = format!(
            "umask {umask}; {mica} load -qi i.tar; {mica} tag sample:1 sample:2; {mica} volume create vol
             {mica} volume create --ephemeral eph; {mica} trash --keep 1h; {mica} mount m; mkdir m/volumes/www; echo x >m/volumes/www/f
             {mica} rmi sample:2; {mica} users vol; skopeo inspect oci:$MICA_STORE:sample:1 >/dev/null 2>&1 || true"
        );
        sandbox.sh(&script).ok();
        assert_eq!(open_to_others(&sandbox.store()), [], "umask {umask}");
        sandbox.mica(["umount".as_ref(), mount.as_os_str()]).ok();
        let run = sandbox.mica(["volume", "inspect", "-f", "{{.Source}}", "vol"]);
        assert_eq!(mode(Path::new(run.ok().stdout().trim())), 0o755);
    }
}

/// A store that is open to other users is shut when it is opened, which is said once: set-id files in its volumes serve nobody else any more.
#[test]
fn regression_root_an_open_store_is_shut_and_it_is_said_once() {
    let sandbox = Sandbox::new();
    sandbox.load(&image());
    sandbox.mica(["volume", "create", "vol"]).ok();
    let source = sandbox.mica(["volume", "inspect", "-f", "{{.Source}}", "vol"]);
    let data = PathBuf::from(source.ok().stdout().trim());
    let shell = data.join("sh");
    fs::copy("/bin/true", &shell).expect("cp");
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o4755)).expect("chmod");
    let store = sandbox.store();
    for (name, mode) in [
        ("", 0o755),
        ("volumes", 0o711),
        ("blobs/sha256", 0o755),
        ("lock", 0o644),
        ("index.json", 0o664),
    ] {
        let path = store.join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let nobody = |path: &Path| {
        let mut run = as_user(65_534, "test");
        run.arg("-e").arg(path);
        sandbox.run(run)
    };
    nobody(&store.join("index.json")).ok();
    let said = sandbox.mica(["images", "-q"]).ok().stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("was open to other users"), "{said}");
    assert_eq!(sandbox.mica(["images", "-q"]).ok().stderr(), "");
    for path in [
        shell,
        store.join("index.json"),
        store.join("lock"),
        store.join("blobs/sha256"),
    ] {
        nobody(&path).code(1);
    }
    assert_eq!(mode(&store), 0o700);
    assert_eq!(mode(&store.join("lock")), 0o600);
    assert_eq!(mode(&store.join("index.json")), 0o600);
    assert_eq!(mode(&store.join("volumes")), 0o700);
}

/// Nobody uses the store of another user, root neither: the message says what to do instead.
#[test]
fn regression_root_a_store_of_somebody_else_is_refused() {
    let theirs = Sandbox::as_user(1000);
    theirs.load(&image());
    let before = theirs.store_files();
    for args in [
        &["images"][..],
        &["tag", "sample:1", "sample:2"],
        &["volume", "ls"],
        &["system", "df"],
    ] {
        let mut mica = Command::new(env!("CARGO_BIN_EXE_mica"));
        mica.args(args).env("MICA_STORE", theirs.store());
        let said = theirs.run(mica).code(1).stderr();
        assert!(said.contains("belongs to user 1000"), "{said}");
        assert!(said.contains("sudo -u '#1000'"), "{said}");
    }
    assert_eq!(theirs.store_files(), before);

    let root = Sandbox::new();
    root.load(&image());
    let mut mica = as_user(1000, "env");
    mica.arg(format!("MICA_STORE={}", root.store().display()));
    mica.arg(theirs.path("mica")).arg("images");
    let said = root.run(mica).code(1).stderr();
    assert!(
        said.contains("belongs to user 0") && said.contains("MICA_STORE"),
        "{said}"
    );
}

/// Links that somebody has planted in a store where it was open to others are not followed: such a store is refused.
#[test]
fn regression_root_planted_links_are_not_followed() {
    for name in ["leases", "tmp", "daemon.log", "events.log", "lock"] {
        let sandbox = Sandbox::new();
        sandbox.load(&image());
        let (inside, outside) = (sandbox.store().join(name), sandbox.path("outside"));
        if inside.is_dir() {
            fs::rename(&inside, &outside).expect("mv");
        } else {
            let _ = fs::remove_file(&inside);
            fs::write(&outside, "as it was").expect("a file");
        }
        symlink(&outside, &inside).expect("ln -s");
        let said = sandbox.mica(["tag", "sample:1", "sample:2"]).code(1);
        assert!(said.stderr().contains("not put there by mica"), "{name}");
        if outside.is_file() {
            assert_eq!(fs::read(&outside).expect("the file"), b"as it was");
        }
    }
}

/// Only its own user and root can stop a daemon or ask it anything, however its socket can be reached.
#[test]
fn regression_fuse_nobody_else_can_stop_a_daemon() {
    let sandbox = Sandbox::new();
    sandbox.load(&image());
    tier::root();
    let point = sandbox.mkdir("m");
    let mica = env!("CARGO_BIN_EXE_mica");
    sandbox.sh(&format!("umask 0; {mica} mount m")).ok();
    let leases = fs::read_dir(sandbox.store().join("leases")).expect("leases");
    let mut sockets = leases
        .map(|entry| entry.expect("leases").path())
        .filter(|path| path.extension().is_some_and(|e| e == "sock"));
    let socket = sockets.next().expect("a socket");
    assert_eq!(mode(&socket), 0o600);
    // Even one that can reach it.
    for path in [sandbox.store(), sandbox.store().join("leases")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).expect("chmod");
    let script = "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; connect($s, sockaddr_un($ARGV[0])) or die;
        $SIG{PIPE} = 'IGNORE'; syswrite($s, qq(stop\\n)); sysread($s, my $answer, 9); print $answer // ''";
    let mut perl = as_user(65_534, "perl");
    perl.args(["-e", script]).arg(&socket);
    assert_eq!(sandbox.run(perl).ok().stdout(), "");
    assert!(point.join("images/sample/1/secret").exists());
    sandbox.mica(["umount".as_ref(), point.as_os_str()]).ok();
}

/// The root directory of a new ext4, with its `lost+found`, can be a store.
#[test]
fn regression_root_a_store_at_the_top_of_a_new_file_system() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.store().join("lost+found")).expect("mkdir");
    sandbox.load(&image());
    let images = sandbox.mica(["images", "-q"]).ok();
    assert_eq!(images.stdout().lines().count(), 1);
    sandbox.mica(["check"]).ok();
    sandbox.mica(["system", "df"]).ok();
    let other = Sandbox::new();
    fs::create_dir_all(other.store().join("something")).expect("mkdir");
    image().docker_archive(&other.path("i.tar"));
    let said = other.load_file(&other.path("i.tar")).code(1).stderr();
    assert!(said.contains("is not empty"), "{said}");
}
