//! The same for an ordinary user: with subordinate ids, with a single one, and without user namespaces.

use std::io::Write as _;

use rustix::fs::Mode;

use super::*;
use crate::common::user::as_user;

const USER: u32 = 54_330;
const ALONE: u32 = 54_331;

/// `/etc/subuid` and `/etc/subgid` with this line, seen by this test only.
fn subordinate(line: &str) {
    for file in ["/etc/subuid", "/etc/subgid"] {
        let mut copy = tempfile::NamedTempFile::new().unwrap();
        copy.write_all(line.as_bytes()).unwrap();
        rustix::fs::chmod(copy.path(), Mode::from_raw_mode(0o644)).unwrap();
        if !std::path::Path::new(file).exists() {
            fs::write(file, "").unwrap();
        }
        rustix::mount::mount_bind(copy.path(), file).unwrap();
    }
}

pub(crate) fn user(uid: u32, line: &str) -> Sandbox {
    let s = Sandbox::as_user(uid);
    subordinate(line);
    s.load(&image("app:1"));
    s
}

/// The small init is mica itself, and nobody may look into it, its own user neither; who joins the container goes by its program.
fn joins_a_container_with_an_init(line: &str) {
    let s = user(USER, line);
    shown(&s, "run -d --init --name web app:1 sleep 600");
    for _ in 0..3 {
        assert_eq!(shown(&s, "exec web echo here"), "here\n");
    }
    assert_eq!(shown(&s, "exec -t web echo here"), "here\r\n");
    assert_eq!(
        shown(&s, "exec web readlink /proc/self/ns/pid"),
        shown(&s, "exec web readlink /proc/2/ns/pid")
    );
    mica(&s, "exec web readlink /proc/1/exe").code(1);
    shown(&s, "stop -t 1 web");
    mica(&s, "exec web true").code(1);
    shown(&s, "rm web");
}

#[test]
fn fuse_regression_rootless_exec_joins_a_container_with_an_init() {
    joins_a_container_with_an_init(&format!("mica-test-{USER}:700000:65536\n"));
}

#[test]
fn fuse_regression_rootless_exec_joins_a_container_of_one_id_with_an_init() {
    joins_a_container_with_an_init("");
}

#[test]
fn fuse_rootless_with_subordinate_ids() {
    let s = user(USER, &format!("mica-test-{USER}:700000:65536\n"));
    let map = shown(&s, "run --rm app:1 cat /proc/self/uid_map");
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(words, ["0", "54330", "1", "1", "700000", "65536"]);
    assert_eq!(shown(&s, "run --rm app:1 id -u"), "0\n");
    let bob = shown(&s, "run --rm -u bob app:1 id");
    assert_eq!(
        bob,
        "uid=1000(bob) gid=1001(bobs) groups=10(wheel),1001(bobs)\n"
    );
    // Owners of the image are those of the image, and can be given.
    s.load(&image("own:1").layer(|l| l.file("theirs", "x").owner(33, 44)));
    let own = shown(
        &s,
        "run --rm own:1 -- stat -c %u:%g /theirs; chown 7:8 /theirs; stat -c %u:%g /theirs",
    );
    assert_eq!(own, "33:44\n7:8\n");
    // What belongs to others inside, and is closed, is removed all the same.
    shown(
        &s,
        "run --rm app:1 -- mkdir /p; touch /p/f; chmod 700 /p; chown -R 1000 /p",
    );
    assert!(left(&s).is_empty());
    shown(
        &s,
        "run --name kept app:1 -- mkdir /p; touch /p/f; chmod 700 /p; chown -R 1000 /p; rm /bin/wc; true",
    );
    shown(&s, "start -a kept");
    shown(&s, "rm kept");
    assert!(left(&s).is_empty());
    // Nothing of the host's root.
    mica(&s, "run --rm app:1 -- echo 1 > /proc/sys/kernel/panic").code(1);
    mica(&s, "run --rm app:1 mount -t tmpfs none /tmp").code(1);
    let status = shown(&s, "run --rm app:1 cat /proc/self/status");
    assert!(status.contains("CapBnd:\t00000000a80405fb") && status.contains("NoNewPrivs:\t1"));
}

#[test]
fn fuse_rootless_volumes_and_what_stays_with_a_container() {
    let s = user(USER, &format!("{USER}:700000:65536\n"));
    shown(
        &s,
        "run -d --rm --name one -v /shared app:1 -- echo hello > /shared/f; mkdir -m 700 /shared/p; chown 1000 /shared/p; sleep 600",
    );
    wait_until("it has written", || {
        mica(&s, "exec one ls /shared").stdout().contains('p')
    });
    shown(
        &s,
        "run -d --rm --name two --volumes-from one app:1 sleep 600",
    );
    shown(&s, "kill one");
    assert_eq!(shown(&s, "exec two cat /shared/f"), "hello\n");
    assert_eq!(shown(&s, "exec -u bob two id -u"), "1000\n");
    shown(&s, "kill two");
    wait_until("all is gone", || left(&s).is_empty() && volumes(&s) == 0);
    let dir = s.mkdir("demo");
    shown(
        &s,
        &format!(
            "run --rm -v {}:/d -v data:/v app:1 touch /d/f /v/f",
            dir.display()
        ),
    );
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.join("f")).unwrap());
    assert_eq!(owner, USER);
}

/// Nobody may look into a small init; it keeps no volume that its container has not, of this store or another.
#[test]
fn fuse_regression_rootless_an_init_uses_no_volume_of_others() {
    let s = user(USER, &format!("mica-test-{USER}:700000:65536\n"));
    shown(&s, "volume create data");
    shown(&s, "run -d --init -v own:/v --name web app:1 sleep 600");
    shown(&s, "volume rm data");
    let refused = mica(&s, "volume rm own").code(1);
    assert!(
        refused.stderr().contains("volume is in use"),
        "{}",
        refused.describe()
    );
    shown(&s, "rm -f web");
    shown(&s, "volume rm own");
}

/// Directories that only their owner can enter are no hindrance for users inside, who are subordinate ids outside, whatever the umask.
#[test]
fn fuse_rootless_in_a_private_store_whatever_the_umask() {
    let s = user(USER, &format!("{USER}:700000:65536\n"));
    let mica = s.path("mica");
    for umask in ["000", "077"] {
        let mut sh = as_user(USER, "sh");
        let script = format!(
            "umask {umask}; cd /; m() {{ {0} --store {1} \"$@\"; }}; m volume create data$0 >&2
             m run --rm -v data$0:/v app:1 sh -c 'mkdir -m 777 /v/d; echo root >/v/f; chmod 644 /v/f'
             m run --rm -u bob -v data$0:/v app:1 sh -c 'cat /v/f; echo bob >/v/d/f; ls / >/dev/null && echo bob >/tmp/f && stat -c %u /v/d/f'
             m run --name c$0 -u bob app:1 true; m start -a c$0; m diff c$0; m rm c$0; m volume rm data$0",
            mica.display(),
            s.store().display()
        );
        sh.args(["-ec", &script, umask]);
        let run = s.run(sh).ok();
        assert!(run.stdout().starts_with("root\n1000\n"), "{}", run.stdout());
    }
    assert!(left(&s).is_empty());
}

#[test]
fn fuse_rootless_with_one_id_says_so() {
    let s = user(ALONE, "");
    s.load(&image("own:1").layer(|l| l.file("theirs", "x").owner(33, 44)));
    let run = mica(
        &s,
        "run --rm own:1 -- id -u; stat -c %u:%g /theirs; echo y > /theirs; touch /new",
    )
    .ok();
    assert_eq!(run.stdout(), "0\n0:0\n");
    // It has got along with it.
    assert_eq!(run.stderr(), "");
    let run = mica(&s, "run --rm own:1 chown 33 /theirs").code(1);
    assert!(
        run.stderr().contains("one user id only")
            && run.stderr().contains("/etc/subuid has no line"),
        "{}",
        run.describe()
    );
    let refused = mica(&s, "run --rm -u bob app:1 id").code(126);
    assert!(
        refused.stderr().contains("only one user id here"),
        "{}",
        refused.describe()
    );
    shown(&s, "run -d --name web app:1 sleep 600");
    assert_eq!(shown(&s, "exec web id -u"), "0\n");
    shown(&s, "rm -f web");
    assert!(left(&s).is_empty());
}

#[test]
fn fuse_rootless_without_user_namespaces_says_so_and_leaves_nothing() {
    let s = user(USER, &format!("{USER}:700000:65536\n"));
    let denied = |line: &str| {
        let id = USER.to_string();
        let mica = s.path("mica").display().to_string();
        // A user namespace in which there are none.
        let script = "echo 0 >/proc/sys/user/max_user_namespaces; \
                      exec setpriv --ambient-caps -all --inh-caps -all \"$@\"";
        let mut command = as_user(USER, "unshare");
        command
            .args(["--user", "--map-user", &id, "--map-group", &id])
            .args(["--keep-caps", "sh", "-euc", script, "sh", &mica])
            .args(line.split_whitespace())
            .env("MICA_STORE", s.store())
            .env("HOME", s.dir());
        s.run(command)
    };
    for line in [
        "run --rm -v /anonymous app:1 true",
        "run --rm -d app:1 true",
        "run --rm -t app:1 true",
    ] {
        let run = denied(line).code(125);
        assert_eq!(
            run.stderr(),
            "mica: an ordinary user needs user namespaces, and the kernel refuses one: No space left on device (os error 28); \
             enable them: sysctl -w user.max_user_namespaces=15000\n"
        );
        assert_eq!(run.stdout(), "");
        assert!(left(&s).is_empty() && volumes(&s) == 0);
    }
    // As with docker, one that was to stay is there, and starts when that is mended.
    denied("run --name kept app:1 true").code(125);
    denied("start kept").code(1);
    let run = denied("commit kept new:1").code(1);
    assert!(
        run.stderr().contains("making a user namespace"),
        "{}",
        run.describe()
    );
    shown(&s, "start -a kept");
    shown(&s, "rm kept");
    assert!(left(&s).is_empty());
}

#[test]
fn fuse_rootless_without_a_dev_fuse_of_its_own_says_what_to_do() {
    let s = user(ALONE, "");
    // As some distributions have it: root's alone.
    let closed = s.path("fuse");
    let (kind, mode) = (
        rustix::fs::FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
    );
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &closed,
        kind,
        mode,
        rustix::fs::makedev(10, 229),
    )
    .unwrap();
    // What this test may have over it has no name, and nothing can be put on that.
    let _ = rustix::mount::unmount("/dev/fuse", rustix::mount::UnmountFlags::DETACH);
    rustix::mount::mount_bind(&closed, "/dev/fuse").unwrap();
    let point = s.mkdir("mnt").display().to_string();
    for line in ["run --rm app:1 true".to_owned(), format!("mount {point}")] {
        let run = mica(&s, &line).fails();
        assert!(
            run.stderr().contains("chmod 0666 /dev/fuse"),
            "{}",
            run.describe()
        );
    }
    rustix::mount::unmount("/dev/fuse", rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// What is said of a mount is said of the place that was typed, volumes included.
#[test]
fn fuse_rootless_paths_are_those_that_were_typed() {
    let s = user(ALONE, "");
    let mount = s.mount();
    let point = mount.path("").display().to_string();
    let point = point.trim_end_matches('/');
    shown(&s, "volume create data");
    let mut command = Command::new("sleep");
    command.arg("1000").current_dir(mount.path("volumes/data"));
    std::os::unix::process::CommandExt::uid(&mut command, ALONE);
    std::os::unix::process::CommandExt::gid(&mut command, ALONE);
    let mut sleeper = command.spawn().unwrap();
    let users = mica(&s, "users data").ok();
    let typed = format!("{point}/volumes/data");
    assert!(users.stdout().contains(&typed), "{}", users.describe());
    let busy = mica(&s, &format!("umount {point}")).fails();
    assert!(busy.stderr().contains(point), "{}", busy.describe());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}
