//! An ordinary user's podman on that user's own mount, with `-o idmap=subid`.

use super::*;
use crate::common::tier;
use crate::common::user::as_user;

pub(crate) const USER: u32 = 54_340;
/// The first of the user's subordinate ids is what an image has as 1.
pub(crate) const FIRST: u32 = 200_000;

/// The user's podman, configured by `mica system connect`.
pub(crate) struct Rootless<'a> {
    sandbox: &'a Sandbox,
    runtime: PathBuf,
}

impl Drop for Rootless<'_> {
    fn drop(&mut self) {
        // Also ends the process that keeps the user namespace.
        self.run("podman system migrate");
        if let Err(error) = fs::remove_dir_all(&self.runtime) {
            eprintln!("removing {}: {error}", self.runtime.display());
        }
    }
}

impl<'a> Rootless<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox) -> Rootless<'a> {
        let name = digest(sandbox.dir().as_os_str().as_encoded_bytes());
        let runtime = PathBuf::from(format!("/run/mica-r-{}", &name[7..19]));
        let home = sandbox.path("home");
        for dir in [&runtime, &home] {
            fs::create_dir_all(dir).unwrap();
            std::os::unix::fs::chown(dir, Some(USER), Some(USER)).unwrap();
        }
        Rootless { sandbox, runtime }
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = as_user(USER, program.to_str().unwrap());
        command
            .env("HOME", self.sandbox.path("home"))
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env("MICA_STORE", self.sandbox.store())
            .env("TMPDIR", &self.runtime)
            .env_remove("CONTAINERS_STORAGE_CONF")
            .current_dir(self.sandbox.dir());
        command
    }

    /// A program with words split at blanks; what follows ` -- ` is one word.
    pub(crate) fn run(&self, line: &str) -> Run {
        let (words, script) = match line.split_once(" -- ") {
            Some((words, script)) => (words, Some(script)),
            None => (line, None),
        };
        let mut words = words.split_whitespace();
        let program = match words.next().unwrap() {
            "mica" => self.sandbox.path("mica"),
            program => program.into(),
        };
        let mut command = self.command(&program);
        if program == Path::new("podman") {
            command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
            command.args(["--runtime", "runc"]);
        }
        command.args(words).args(script);
        self.sandbox.run(command)
    }

    #[track_caller]
    pub(crate) fn shown(&self, line: &str) -> String {
        self.run(line).ok().stdout()
    }

    #[track_caller]
    pub(crate) fn container(&self, image: &str, script: &str) -> String {
        self.shown(&format!(
            "podman run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 {image} sh -c -- {script}"
        ))
    }
}

/// A mount of the user's whose images have ids of every kind.
pub(crate) fn world() -> (Sandbox, Mount) {
    let sandbox = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    let image = image("app:1").layer(|l| {
        l.dir("ids", 0o755)
            .file("ids/root", "root")
            .file("ids/last", "last")
            .owner(65_536, 65_536)
            .file("ids/beyond", "beyond")
            .owner(65_537, 70_000)
            .file("ids/user", "the user's own number")
            .owner(u64::from(USER), u64::from(FIRST))
            .file("ids/setuid", "setuid")
            .owner(33, 33)
            .mode(0o6755)
            .file("ids/able", "able")
            .xattr(
                "security.capability",
                [&[1, 0, 0, 2][..], &[0; 16]].concat(),
            )
            .file("ids/stranger", "able elsewhere")
            .xattr(
                "security.capability",
                [&[1, 0, 0, 3][..], &[0; 16], &[0xff; 4]].concat(),
            )
    });
    sandbox.load(&image);
    let mount = sandbox.mount_with(&["-o", "idmap=subid"]);
    (sandbox, mount)
}

/// A mount that goes from under an engine's container: it has its image to its end, and the daemon ends after it.
#[test]
fn root_engines_rootless_container_outlives_the_mount() {
    let (sandbox, mount) = world();
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    podman.shown(
        "podman run -d --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 app:1 sh -c -- while :; do cat /dev/null; done",
    );
    let daemon = mount.daemon().expect("a daemon");
    podman.shown(&format!("mica umount {}", mount.point.display()));
    assert!(!mount.is_mounted());
    mount.forget();
    // Nobody has read this one before.
    let read = podman.shown("podman exec web cat /data/old /data/big");
    assert_eq!(read.len(), 3 + 100_000);
    podman.shown("podman rm -f -t 0 web");
    drop(podman);
    let end = Instant::now() + Duration::from_secs(60);
    while crate::common::mount::runs(daemon) {
        assert!(Instant::now() < end, "the daemon serves nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An ordinary user's podman runs and builds on images of the user's own mount, which has their owners as that podman wants them.
#[test]
fn root_engines_rootless_podman_on_a_mount_of_ones_own() {
    let (sandbox, mount) = world();
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    let listed = podman.shown("podman images --format {{.Repository}}:{{.Tag}}");
    assert_eq!(listed, "docker.io/library/app:1\n");
    let seen = podman.container(
        "app:1",
        "stat -c '%n %u %g %a' /data /ids/root /ids/last /ids/beyond /ids/user /ids/setuid; cat /data/old; ls /cache",
    );
    assert_eq!(
        seen,
        format!(
            "/data 7 8 750\n/ids/root 0 0 644\n/ids/last 65536 65536 644\n/ids/beyond 65534 65534 644\n\
             /ids/user {USER} 65534 644\n/ids/setuid 33 33 6755\nnewb\n"
        )
    );
    // Copied up, with owner and capabilities.
    let changed = podman.container(
        "app:1",
        "echo more >>/data/old; echo x >>/ids/setuid; chown 5:6 /ids/able; rm /ids/root; stat -c '%u %g' /data/old /ids/able; cat /data/old",
    );
    assert_eq!(changed, "0 0\n5 6\nnewmore\n");
    fs::write(
        sandbox.path("Containerfile"),
        "FROM app:1\nCOPY extra /extra\n",
    )
    .unwrap();
    fs::write(sandbox.path("extra"), "extra").unwrap();
    podman.shown("podman build -q --isolation chroot --network host --pull-never -t built:1 .");
    assert_eq!(
        podman.container("built:1", "cat /extra /data/old"),
        "extranew"
    );
    // What it stands on is in use, and so is what runs.
    podman.shown(
        "podman run -d --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 app:1 sh -c -- while :; do cat /dev/null; done",
    );
    let users = podman.shown("mica users app:1");
    assert!(users.contains("podman container web"), "{users}");
    podman.shown("podman rm -f -t 0 web");
    let refused = podman.run("mica rmi app:1").fails();
    assert!(
        refused.stderr().contains("podman image localhost/built:1"),
        "{}",
        refused.describe()
    );
    podman.shown("podman rmi built:1");
    // While nothing is mounted podman goes on, once that was mounted anew.
    let point = mount.point.clone();
    podman.shown("podman system migrate");
    mount.unmount();
    sandbox.mount_on(&point, &["-o", "idmap=subid"]).unmount();
    assert_eq!(podman.shown("podman images -q"), "");
    podman.shown("podman system migrate");
    let mount = sandbox.mount_on(&point, &["-o", "idmap=subid"]);
    assert!(!podman.shown("podman images -q").is_empty());
    podman.shown("mica rmi app:1");
    assert_eq!(podman.shown("podman images -q"), "");
    drop(podman);
    mount.unmount();
}
