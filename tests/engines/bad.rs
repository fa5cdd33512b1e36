//! What engines and images of a store do to each other when something is wrong or too much.

use super::*;

fn listed(engines: &Engines) -> Vec<String> {
    let names = engines.shown("podman images --format {{.Repository}}:{{.Tag}}");
    let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The largest the process has ever been, in KiB.
fn peak(pid: rustix::process::Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB").trim();
    kib.parse().unwrap()
}

/// 10,000 tags: one document that has each once, is made once for each state of the names, and costs the daemon little.
#[test]
fn root_engines_ten_thousand_tags() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let document = mount.path("stores/containers/overlay-images/images.json");
    let before = fs::metadata(&document).unwrap().len();
    let daemon = mount.daemon().unwrap();
    let small = peak(daemon);
    let tags: Vec<String> = (1..10_000).map(|n| format!("team/tags:{n}")).collect();
    for some in tags.chunks(2_500) {
        let words = ["tag", "app:1"].into_iter();
        sandbox
            .mica(words.chain(some.iter().map(String::as_str)))
            .ok();
    }
    let text = fs::read_to_string(&document).unwrap();
    let images = json(&text);
    assert_eq!(images.as_array().unwrap().len(), 1);
    assert_eq!(images[0]["names"].as_array().unwrap().len(), 10_000);
    let size = u64::try_from(text.len()).unwrap();
    assert!(size < before + 10_000 * 40, "{size} bytes");
    // podman opens it some 50 times for one command: the same bytes, not made again.
    let stamp = || fs::metadata(&document).unwrap().modified().unwrap();
    let first = stamp();
    for _ in 0..50 {
        assert!(fs::read_to_string(&document).unwrap() == text);
    }
    assert_eq!(stamp(), first);
    let grown = peak(daemon) - small;
    assert!(grown < 64 << 10, "the daemon grew by {grown} KiB");
    assert!(
        mount
            .requests()
            .keys()
            .any(|name| name.starts_with("stores."))
    );
    mount.unmount();
}

/// Every name that mica accepts is one that podman shows and runs.
#[test]
fn root_engines_strange_names() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let long = format!(
        "{}/{}:{}",
        "p".repeat(100),
        "q".repeat(100),
        "T".repeat(128)
    );
    let names = [
        "localhost/a--b/c__d.e:_X.Y-Z_",
        "127.0.0.1:5000/x:latest",
        "docker.io/team/0:0",
        // By podman's grammar an id; by ours a name like another.
        &format!("localhost/{}:1", "a".repeat(63)),
        &format!("docker.io/{long}"),
    ];
    for name in names {
        sandbox.mica(["tag", "app:1", name]).ok();
    }
    let shown = listed(&engines);
    for name in names {
        assert!(shown.iter().any(|shown| shown == name), "{name}: {shown:?}");
    }
    assert_eq!(engines.container("", names[0], "cat /data/old"), "new");
    mount.unmount();
}

/// An image whose config or layer index is damaged takes none of the others from the engines.
#[test]
fn root_engines_a_damaged_image_takes_no_other_along() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("good:1"));
    let other = ImageBuilder::new("bad:1").layer(|l| l.file("f", "other"));
    sandbox.load(&other);
    let config = sandbox.store().join("blobs/sha256").join(&other.id()[7..]);
    let bytes = fs::read(&config).unwrap();
    fs::write(&config, vec![b'{'; bytes.len()]).unwrap();
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    assert_eq!(engines.container("", "good:1", "cat /data/old"), "new");
    let refused = engines.run("podman run --rm --pull never --network none bad:1 true");
    assert!(!refused.status.success(), "{}", refused.describe());
    assert!(listed(&engines).contains(&"docker.io/library/good:1".to_owned()));
    // Good again, shown, and then gone altogether.
    fs::write(&config, &bytes).unwrap();
    sandbox.mica(["tag", "bad:1", "bad:2"]).ok();
    assert_eq!(listed(&engines).len(), 3);
    fs::remove_file(&config).unwrap();
    assert!(listed(&engines).contains(&"docker.io/library/good:1".to_owned()));
    sandbox.mica(["tag", "good:1", "good:2"]).ok();
    assert_eq!(engines.container("", "good:2", "cat /data/old"), "new");
    mount.unmount();
}

/// M at a path with a blank serves podman; one with a colon, which podman cannot be told, is refused in words.
#[test]
fn root_engines_blanks_and_colons_in_the_path() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let connect = |engines: Option<&Engines>| {
        let conf = engines.map_or(sandbox.path("other.conf"), |e| e.conf.clone());
        let mut command = sandbox.command();
        command.env("CONTAINERS_STORAGE_CONF", conf);
        command.args(["system", "connect", "podman", "--write"]);
        sandbox.run(command)
    };
    let mount = sandbox.mount_on(&sandbox.mkdir("with a blank"), &[]);
    let engines = Engines::new(&sandbox, &mount);
    let own = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        sandbox.path("engine"),
        engines.runroot
    );
    fs::write(&engines.conf, own).unwrap();
    connect(Some(&engines)).ok();
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    mount.unmount();
    let mount = sandbox.mount_on(&sandbox.mkdir("co:lon"), &[]);
    let refused = connect(None).fails();
    assert!(
        refused.stderr().contains("colons"),
        "{}",
        refused.describe()
    );
    assert!(!sandbox.path("other.conf").exists());
    mount.unmount();
}

/// Locks on the store's lock files that are never given back stop nobody: what is read-only has no writer to wait for.
#[test]
fn root_engines_a_lock_that_is_held_for_ever() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let held: Vec<fs::File> = ["overlay-images/images.lock", "overlay-layers/layers.lock"]
        .iter()
        .map(|name| fs::File::open(mount.path("stores/containers").join(name)).unwrap())
        .collect();
    for file in &held {
        rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        // Not to be had for writing by whoever could open it for reading only.
        let write = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        let refused = rustix::fs::fcntl_lock(file, write).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::BADF);
        rustix::fs::fcntl_lock(file, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    }
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    assert_eq!(listed(&engines).len(), 2);
    drop(held);
    mount.unmount();
}

/// A layer that has just been removed is not there; what somebody still has open is never other bytes.
#[test]
fn root_engines_a_layer_that_was_just_removed() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let top = mount.path("stores/containers");
    let layers = json(&fs::read_to_string(top.join("overlay-layers/layers.json")).unwrap());
    let first = layers
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["parent"].is_null());
    let id = first.unwrap()["id"].as_str().unwrap().to_owned();
    let diff = top.join("overlay").join(&id).join("diff");
    let file = fs::File::open(diff.join("etc/passwd")).unwrap();
    let dir = fs::File::open(&diff).unwrap();
    sandbox.mica(["rmi", "app:1"]).ok();
    // Another image in its place has its own layers only.
    let other =
        ImageBuilder::new("app:1").layer(|l| l.dir("etc", 0o755).file("etc/passwd", "other"));
    sandbox.load(&other);
    for path in [
        diff.clone(),
        diff.join("etc/passwd"),
        top.join("overlay").join(&id),
    ] {
        let error = fs::metadata(&path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{path:?}");
    }
    let text = "root:x:0:0::/:/bin/sh\n";
    let read = |mut file: fs::File| {
        let mut bytes = String::new();
        std::io::Read::read_to_string(&mut file, &mut bytes).map(|_| bytes)
    };
    let at = rustix::fs::openat(
        &dir,
        "etc/passwd",
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    );
    for bytes in [Ok(file), at.map(fs::File::from)]
        .into_iter()
        .flatten()
        .map(read)
    {
        assert!(
            bytes.as_ref().map_or(true, |bytes| bytes == text),
            "{bytes:?}"
        );
    }
    assert_eq!(fs::read_dir(top.join("overlay")).unwrap().count(), 2);
    drop(dir);
    mount.unmount();
}

/// Two mounts of one store: what stands on either is in use, and either can go.
#[test]
fn root_engines_two_mounts_of_one_store() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let first = sandbox.mount();
    let second = sandbox.mount_on(&sandbox.mkdir("second"), &[]);
    let engines = Engines::new(&sandbox, &second);
    let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
    engines.shown(&format!(
        "podman run -d --name web --network none {limits} app:1 sh -c -- while :; do cat /dev/null; done"
    ));
    let refused = sandbox.mica(["rmi", "app:1"]).fails();
    assert!(refused.stderr().contains("web"), "{}", refused.describe());
    let busy = fs::remove_dir(first.image("app/1")).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy);
    first.unmount();
    assert_eq!(engines.shown("podman exec web cat /data/old"), "new");
    engines.run("podman rm -f -t 0 web").ok();
    sandbox.mica(["rmi", "app:1"]).ok();
    second.unmount();
}

/// While nothing is mounted a connected podman goes on with what it has of its own, and M can be mounted again where it was.
#[test]
fn root_engines_podman_goes_on_while_nothing_is_mounted() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    sandbox.load(&ImageBuilder::new("own:1").layer(tools));
    let mount = sandbox.mount();
    let point = mount.point.clone();
    let engines = Engines::new(&sandbox, &mount);
    fs::write(
        &engines.conf,
        format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            sandbox.path("engine"),
            engines.runroot
        ),
    )
    .unwrap();
    let verb = |words: &[&str]| {
        let mut command = sandbox.command();
        command
            .env("CONTAINERS_STORAGE_CONF", &engines.conf)
            .arg("system")
            .args(words);
        sandbox.run(command).ok().stdout()
    };
    let told = verb(&["connect", "podman", "--write"]);
    assert!(!told.contains("will not work"), "{told}");
    assert_eq!(listed(&engines).len(), 2);
    engines.shown("podman save -q -o own.tar own:1");
    mount.unmount();
    assert!(listed(&engines).is_empty());
    engines.shown("podman load -q -i own.tar");
    assert_eq!(engines.container("", "own:1", "echo here"), "here\n");
    engines.shown("podman rmi own:1");
    let mount = sandbox.mount_on(&point, &[]);
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    verb(&["disconnect", "podman"]);
    mount.unmount();
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    // A directory with anything else in it is refused as ever.
    fs::create_dir_all(point.join("stores/containers/data")).unwrap();
    let words = ["mount".as_ref(), point.as_os_str()];
    let refused = sandbox.mica(words).fails();
    assert!(
        refused.stderr().contains("not empty"),
        "{}",
        refused.describe()
    );
}
