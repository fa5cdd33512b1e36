//! `mica system connect podman` and configurations that are not as one expects.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Place<'a> {
    sandbox: &'a Sandbox,
    engines: Engines<'a>,
    mount: Mount,
}

impl<'a> Place<'a> {
    fn new(sandbox: &'a Sandbox) -> Place<'a> {
        sandbox.load(&image("app:1"));
        let mount = sandbox.mount();
        let engines = Engines::new(sandbox, &mount);
        Place {
            sandbox,
            engines,
            mount,
        }
    }

    fn verb(&self, words: &[&str]) -> Run {
        let mut command = self.sandbox.command();
        command
            .env("CONTAINERS_STORAGE_CONF", &self.engines.conf)
            .arg("system")
            .args(words);
        self.sandbox.run(command)
    }

    fn connect(&self) -> Run {
        self.verb(&["connect", "podman", "--write"])
    }

    fn write(&self, bytes: impl AsRef<[u8]>) {
        fs::write(&self.engines.conf, bytes).unwrap();
    }

    /// Nothing has changed, and nothing has been left beside it.
    #[track_caller]
    fn is(&self, bytes: &[u8]) {
        let found = fs::read(&self.engines.conf).unwrap();
        assert!(found == bytes, "{}", String::from_utf8_lossy(&found));
        let names = fs::read_dir(self.engines.conf.parent().unwrap()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let temps: Vec<String> = names.filter(|name| name.contains(".mica-")).collect();
        assert!(temps.is_empty(), "{temps:?}");
    }
}

/// However a storage.conf is written: podman has the images afterwards, what it keeps counts, and `disconnect` brings the file back
/// byte for byte; or it is left alone with a reason.
#[test]
fn root_regression_connect_reads_any_toml() {
    let sandbox = Sandbox::new();
    let place = Place::new(&sandbox);
    let (root, run) = (sandbox.path("engine"), &place.engines.runroot);
    let (root, run) = (root.display(), run.display());
    let written = [
        format!("[storage]\ndriver = 'overlay'\ngraphroot = '{root}'\nrunroot = '{run}'\n"),
        format!(
            "[storage] # podman's\ndriver = \"overlay\" # of course\ngraphroot = \"{root}\" # here\nrunroot = \"{run}\"\n\
             [storage.options] # \"none\"\nsize = \"\"\n"
        ),
        format!(
            "[ storage ]\r\n\"driver\" = \"overlay\"\r\n'graphroot' = \"{root}\"\r\nrunroot = \"{run}\"\r\n[ storage . options ]\r\nsize = \"\"\r\n"
        ),
        format!(
            "storage.driver = \"overlay\"\nstorage.graphroot = \"{root}\"\nstorage.runroot = \"{run}\"\n"
        ),
        format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"\"\"\n{root}\"\"\"\nrunroot = \"{run}\"\n[storage.options.overlay]\nmountopt = \"nodev\"\n"
        ),
        format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n# [storage.options]\n# additionalimagestores = []\n[other]\ntext = \"\"\"\n[storage.options]\n\"\"\"\n"
        ),
    ];
    for (number, text) in written.iter().enumerate() {
        place.write(text);
        let connected = place.connect();
        if !connected.status.success() {
            connected.fails();
            place.is(text.as_bytes());
            // The first ones are what people have.
            assert!(number >= 3, "{text}");
            continue;
        }
        let listed = place.engines.shown("podman images -q");
        assert_eq!(listed.lines().count(), 1, "{text}");
        place.connect().ok();
        place.engines.shown("podman create --name idle app:1 sh");
        let refused = sandbox.mica(["rmi", "app:1"]).fails();
        assert!(refused.stderr().contains("idle"), "{}", refused.describe());
        place.engines.shown("podman rm idle");
        place.verb(&["disconnect", "podman"]).ok();
        place.is(text.as_bytes());
    }
    // A list that is there already, in any spelling.
    let head =
        format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n");
    for list in [
        "options.additionalimagestores = []\n",
        "[storage.options]\n\"additionalimagestores\" = []\n",
        "[storage.options]\nadditionalimagestores= [\n  '/x',\n]\n",
        "options = {additionalimagestores = []}\n",
    ] {
        let text = format!("{head}{list}");
        place.write(&text);
        let refused = place.connect().fails();
        assert!(
            refused.stderr().contains("set already"),
            "{}",
            refused.describe()
        );
        place.is(text.as_bytes());
    }
    place.mount.unmount();
}

/// Rubbish is left as it is; so is a file larger than any configuration, and one of whose marks half is missing.
#[test]
fn root_regression_connect_leaves_rubbish_alone() {
    let sandbox = Sandbox::new();
    let place = Place::new(&sandbox);
    let head = "[storage]\ndriver = \"overlay\"\n";
    let large = format!("{head}{}", "# a comment\n".repeat(100_000));
    let half = format!("{head}# mica begin\n[storage.options]\nsize = \"\"\n");
    let twice = format!("{head}# mica begin\n# mica begin\n# mica end\nx = 1\n");
    let rubbish: [&[u8]; 9] = [
        b"\0\0\0\0",
        b"\xff\xfe[storage]\n",
        b"[storage\ndriver = \"overlay\"\n",
        b"driver: overlay\n",
        b"[storage]\ndriver = \"overlay\"\ndriver = \"vfs\"\n",
        b"[storage]\ndriver = 7\n",
        large.as_bytes(),
        half.as_bytes(),
        twice.as_bytes(),
    ];
    for bytes in rubbish {
        place.write(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let run = place.connect();
        assert!(!run.status.success(), "{shown}");
        run.fails();
        place.is(bytes);
        // Nor is anything taken out of it.
        place.verb(&["disconnect", "podman"]);
        place.is(bytes);
    }
    let deep = format!("{head}x = {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    place.write(&deep);
    place.connect().fails();
    place.is(deep.as_bytes());
    place.mount.unmount();
}

/// A user's files are where podman looks for them.
#[test]
fn root_regression_connect_follows_the_user_s_directories() {
    let sandbox = Sandbox::new();
    let place = Place::new(&sandbox);
    let mut command = sandbox.command();
    for (name, dir) in [("XDG_CONFIG_HOME", "conf"), ("XDG_DATA_HOME", "data")] {
        command.env(name, sandbox.mkdir(dir));
    }
    command.args(["system", "connect", "podman", "--user", "--write"]);
    sandbox.run(command).ok();
    let text = fs::read_to_string(sandbox.path("conf/containers/storage.conf")).unwrap();
    let root = sandbox.path("data/containers/storage");
    assert!(text.contains(&format!("graphroot = {root:?}")), "{text}");
    assert!(!sandbox.path(".config").exists());
    place.mount.unmount();
}

/// What is no file of one's own is not read, written or waited for.
#[test]
fn root_engines_connect_takes_files_only() {
    let sandbox = Sandbox::new();
    let place = Place::new(&sandbox);
    let conf = &place.engines.conf;
    let refused = |why: &str| {
        let run = place.connect().fails();
        assert!(run.stderr().contains(why), "{}", run.describe());
        place.verb(&["disconnect", "podman"]).fails();
    };
    let text = fs::read(conf).unwrap();
    std::os::unix::fs::chown(conf, Some(65_534), None).unwrap();
    refused("no file of your own");
    place.is(&text);
    fs::remove_file(conf).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(conf).unwrap();
    refused("storage.conf");
    fs::remove_file(conf).unwrap();
    fs::create_dir(conf).unwrap();
    refused("storage.conf");
    fs::remove_dir(conf).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(rustix::fs::CWD, conf, kind, 0o600.into(), zero).unwrap();
    refused("no file of your own");
    fs::remove_file(conf).unwrap();
    // A link on the way, a directory that others may write to.
    let other = sandbox.mkdir("other/containers");
    std::os::unix::fs::symlink(&other, sandbox.path("link")).unwrap();
    fs::set_permissions(&other, PermissionsExt::from_mode(0o777)).unwrap();
    for at in ["link/storage.conf", "other/containers/storage.conf"] {
        let mut command = sandbox.command();
        command.env("CONTAINERS_STORAGE_CONF", sandbox.path(at));
        command.args(["system", "connect", "podman", "--write"]);
        sandbox.run(command).fails();
    }
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    place.mount.unmount();
}

/// Whatever the umask is, nobody else writes into the directories that are made for a configuration.
#[test]
fn root_regression_connect_makes_directories_for_nobody_else() {
    let sandbox = Sandbox::new();
    let place = Place::new(&sandbox);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "umask 0; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_mica"),
    ]);
    command.args(["system", "connect", "podman", "--write"]);
    command.env("MICA_STORE", sandbox.store());
    command.env(
        "CONTAINERS_STORAGE_CONF",
        sandbox.path("made/here/storage.conf"),
    );
    sandbox.run(command).ok();
    for (made, mode) in [
        ("made", 0o755),
        ("made/here", 0o755),
        ("made/here/storage.conf", 0o644),
    ] {
        let found = fs::metadata(sandbox.path(made))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{made}");
    }
    place.mount.unmount();
}

/// A disk that is full, and a `connect` that is killed at any step: the file is the one from before or the new one.
#[test]
fn root_engines_connect_on_a_full_disk_and_killed() {
    let sandbox = Sandbox::new();
    let mut place = Place::new(&sandbox);
    let small = sandbox.mkdir("small");
    sandbox.sh("mount -t tmpfs -o size=64k tmpfs small").ok();
    place.engines.conf = small.join("storage.conf");
    let (root, run) = (sandbox.path("engine"), place.engines.runroot.clone());
    let own = format!("[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
    place.write(&own);
    sandbox.sh("! cat /dev/zero >small/fill 2>/dev/null").ok();
    place.connect().fails();
    place.is(own.as_bytes());
    fs::remove_file(small.join("fill")).unwrap();
    place.connect().ok();
    let new = fs::read(&place.engines.conf).unwrap();
    place.verb(&["disconnect", "podman"]).ok();
    place.is(own.as_bytes());
    for call in ["write", "fsync", "rename,renameat2", "mkdirat", "fchmod"] {
        for number in 1..40 {
            let mut strace = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            strace.args(["-f", "-o", "/dev/null", "-e", &inject]);
            strace.arg(env!("CARGO_BIN_EXE_mica"));
            strace.args(["system", "connect", "podman", "--write"]);
            strace.env("MICA_STORE", sandbox.store());
            strace.env("CONTAINERS_STORAGE_CONF", &place.engines.conf);
            let ended = sandbox.run(strace).status.success();
            let found = fs::read(&place.engines.conf).unwrap();
            assert!(found == own.as_bytes() || found == new, "{call} {number}");
            place.connect().ok();
            assert_eq!(fs::read(&place.engines.conf).unwrap(), new);
            place.verb(&["disconnect", "podman"]).ok();
            assert_eq!(fs::read(&place.engines.conf).unwrap(), own.as_bytes());
            sandbox.mica(["check"]).ok();
            if ended {
                break;
            }
            assert!(number < 39, "{call}");
        }
    }
    place.mount.unmount();
}
