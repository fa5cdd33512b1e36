//! What an engine stands on is in use.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Running<'a>(&'a Engines<'a>, &'static str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.run(&format!("podman rm -f -t 0 {}", self.1));
    }
}

fn start<'a>(engines: &'a Engines<'a>, name: &'static str, image: &str) -> Running<'a> {
    let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
    engines.shown(&format!(
        "podman run -d --name {name} --network none {limits} {image} sh -c -- while :; do cat /dev/null; done"
    ));
    Running(engines, name)
}

/// A running container: no verb takes the image from under it, and they say whose it is; `-f` takes the name.
#[test]
fn root_engines_an_image_under_a_running_container_is_in_use() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let running = start(&engines, "web", "app:1");
    let refused = sandbox.mica(["rmi", "app:1"]).fails();
    assert!(
        refused.stderr().contains("podman container web"),
        "{}",
        refused.describe()
    );
    let pruned = sandbox.mica(["image", "prune", "-af"]).ok().stdout();
    assert!(!pruned.contains("deleted"), "{pruned}");
    let busy = fs::remove_dir(mount.image("app/1")).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy);
    let users = sandbox.mica(["users", "app:1"]).ok().stdout();
    assert!(
        users.contains("podman container web") && users.contains("engine"),
        "{users}"
    );
    let forced = sandbox.mica(["rmi", "-f", "app:1"]).ok().stdout();
    assert!(
        forced.contains("Untagged: app:1") && !forced.contains("Deleted"),
        "{forced}"
    );
    let id = image("app:1").id();
    sandbox.mica(["rmi", "-f", &id]).fails();
    assert_eq!(engines.shown("podman exec web cat /data/old"), "new");
    drop(running);
    sandbox.mica(["rmi", &id]).ok();
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
    mount.unmount();
}

/// What an engine keeps in its own storage is known once it is connected: stopped containers, and images built on ours.
#[test]
fn root_engines_connected_storage_keeps_what_it_stands_on() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let verb = |words: &[&str]| {
        let mut command = sandbox.command();
        command
            .env("CONTAINERS_STORAGE_CONF", &engines.conf)
            .arg("system")
            .args(words);
        sandbox.run(command)
    };
    let before = fs::read_to_string(&engines.conf).unwrap();
    let taken = verb(&["connect", "podman", "--write"]).fails();
    assert!(
        taken
            .stderr()
            .contains("additionalimagestores is set already")
    );
    assert_eq!(fs::read_to_string(&engines.conf).unwrap(), before);
    let shown = verb(&["connect", "podman"]).ok().stdout();
    assert!(
        shown.contains(&format!("{:?}", mount.path("stores/containers"))),
        "{shown}"
    );
    // A container that does not run.
    engines.shown("podman create --name idle app:1 sh");
    let refused = sandbox.mica(["rmi", "app:1"]).fails();
    assert!(
        refused.stderr().contains("podman container idle"),
        "{}",
        refused.describe()
    );
    engines.shown("podman rm idle");
    // An image of podman's that stands on ours.
    fs::write(
        sandbox.path("Containerfile"),
        "FROM app:1\nCOPY extra /extra\n",
    )
    .unwrap();
    fs::write(sandbox.path("extra"), "extra").unwrap();
    engines.shown("podman build -q --isolation chroot --network host --pull-never -t built:1 .");
    let refused = sandbox.mica(["rmi", "app:1"]).fails();
    assert!(
        refused.stderr().contains("podman image localhost/built:1"),
        "{}",
        refused.describe()
    );
    assert_eq!(
        fs::remove_dir(mount.image("app/1")).unwrap_err().kind(),
        std::io::ErrorKind::ResourceBusy
    );
    engines.shown("podman rmi built:1");
    sandbox.mica(["rmi", "app:1"]).ok();
    verb(&["disconnect", "podman"]).ok();
    verb(&["disconnect", "podman"]).fails();
    mount.unmount();
}

/// `connect --write` makes the configuration that podman needs, and `disconnect` leaves what was there before.
#[test]
fn root_engines_connect_writes_the_configuration() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let own = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        sandbox.path("engine"),
        engines.runroot
    );
    fs::write(&engines.conf, &own).unwrap();
    assert_eq!(engines.shown("podman images -q"), "");
    let verb = |words: &[&str]| {
        let mut command = sandbox.command();
        command
            .env("CONTAINERS_STORAGE_CONF", &engines.conf)
            .arg("system")
            .args(words);
        sandbox.run(command).ok()
    };
    verb(&["connect", "podman", "--write"]);
    verb(&["connect", "podman", "--write"]);
    assert_eq!(engines.shown("podman images -q").lines().count(), 1);
    verb(&["disconnect", "podman"]);
    assert_eq!(fs::read_to_string(&engines.conf).unwrap(), own);
    mount.unmount();
}

/// A configuration that is a link, a pipe, or in somebody else's directory is not written through, and keeps its mode otherwise.
#[test]
fn root_regression_connect_follows_nothing_planted() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let secret = sandbox.path("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let dir = sandbox.mkdir("c/containers");
    let conf = dir.join("storage.conf");
    let verb = |words: &[&str]| {
        let mut command = sandbox.command();
        command
            .env("CONTAINERS_STORAGE_CONF", &conf)
            .arg("system")
            .args(words);
        sandbox.run(command)
    };
    std::os::unix::fs::symlink(&secret, &conf).unwrap();
    verb(&["connect", "podman", "--write"]).fails();
    fs::remove_file(&conf).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &conf,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    verb(&["connect", "podman", "--write"]).fails();
    fs::remove_file(&conf).unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    verb(&["connect", "podman", "--write"]).fails();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    std::os::unix::fs::chown(&dir, Some(0), Some(0)).unwrap();
    fs::write(&conf, "[storage]\ndriver = \"overlay\"\n").unwrap();
    fs::set_permissions(&conf, PermissionsExt::from_mode(0o600)).unwrap();
    verb(&["connect", "podman", "--write"]).ok();
    assert_eq!(
        fs::metadata(&conf).unwrap().permissions().mode() & 0o777,
        0o600
    );
    mount.unmount();
}

/// A mount that goes while an engine's container stands on it: the container has its image to its end, and podman has the container
/// again when there is a mount in that place.
#[test]
fn root_engines_a_container_outlives_the_mount() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let point = mount.point.clone();
    let engines = Engines::new(&sandbox, &mount);
    let running = start(&engines, "web", "app:1");
    let pid = engines.shown("podman inspect -f {{.State.Pid}} web");
    let inside = PathBuf::from(format!("/proc/{}/root", pid.trim()));
    let daemon = mount.daemon().expect("a daemon");
    sandbox.mica(["umount".as_ref(), point.as_os_str()]).ok();
    assert!(!mount.is_mounted());
    mount.forget();
    assert_eq!(fs::read_to_string(inside.join("data/old")).unwrap(), "new");
    // Nobody has read this one before.
    assert_eq!(fs::read(inside.join("data/big")).unwrap().len(), 100_000);
    let again = sandbox.mount_on(&point, &[]);
    assert_eq!(
        fs::read_to_string(again.image("app/1/data/old")).unwrap(),
        "new"
    );
    assert_eq!(engines.shown("podman exec web cat /cache/b"), "b");
    drop(running);
    let end = Instant::now() + Duration::from_secs(60);
    while crate::common::mount::runs(daemon) {
        assert!(Instant::now() < end, "the first daemon serves nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
    again.unmount();
}
