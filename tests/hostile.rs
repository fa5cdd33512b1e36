//! What somebody who means harm, or a machine that is short of everything, does to a mount.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::common::image::{ImageBuilder, LayerBuilder};
use crate::common::mount::runs;
use crate::common::sandbox::{Mount, Run, Sandbox};
use crate::common::walk;

const NOBODY: u32 = 65_534;

/// A shell script as an ordinary user.
fn as_nobody(sandbox: &Sandbox, script: &str) -> Run {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).uid(NOBODY).gid(NOBODY);
    command.current_dir("/");
    sandbox.run(command)
}

fn secret_image(name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(|l| {
        let l = l.dir("etc", 0o755).file("etc/passwd", "everybody");
        let l = l.file("etc/shadow", "top secret").mode(0o600);
        let l = l.dir("root", 0o700).file("root/key", "top secret");
        let l = l
            .dir("dev", 0o755)
            .char_device("dev/null", 1, 3)
            .mode(0o666);
        let id = fs::read("/usr/bin/id").expect("/usr/bin/id");
        let l = l.file("suid", id).mode(0o4755);
        l.symlink("out", "../../../../../../../../etc/hostname")
            .symlink("abs", "/etc/hostname")
    })
}

/// Root's mount is open to everybody: what the image keeps from them stays kept, its programs gain nothing, and nobody but
/// root changes a name.
#[test]
fn fuse_hostile_ordinary_user() {
    let sandbox = Sandbox::new();
    sandbox.load(&secret_image("app:1"));
    let mount = sandbox.mount();
    let m = mount.point.display();
    assert_eq!(
        as_nobody(&sandbox, &format!("cat {m}/images/app/1/etc/passwd"))
            .ok()
            .stdout(),
        "everybody"
    );
    for path in ["etc/shadow", "root/key", "root", "dev/null"] {
        for tree in ["images/app/1", "by-id/*", "layers/*/diff"] {
            let run = as_nobody(
                &sandbox,
                &format!("for t in {m}/{tree}; do cat $t/{path} || ls $t/{path}/; done"),
            );
            assert!(
                run.stderr().contains("Permission denied"),
                "{}",
                run.describe()
            );
            assert_eq!(run.stdout(), "");
        }
    }
    let run = as_nobody(&sandbox, &format!("cat {m}/layers/*/tar"));
    assert!(
        run.stderr().contains("Permission denied"),
        "{}",
        run.stderr()
    );
    let run = as_nobody(&sandbox, &format!("{m}/images/app/1/suid -u")).ok();
    assert_eq!(run.stdout().trim(), NOBODY.to_string());
    // Not even root gets at the host's devices through an image.
    assert_eq!(
        errno(File::open(mount.image("app/1/dev/null"))),
        Errno::ACCESS
    );
    assert_eq!(
        fs::read_link(mount.image("app/1/out")).unwrap(),
        Path::new("../../../../../../../../etc/hostname")
    );

    let files = sandbox.store_files();
    for script in [
        "rm -r M/images/app/1",
        "rmdir M/images/app/1",
        "rm -f M/images/app:1",
        "mv M/images/app/1 M/images/app/2",
        "mv M/images/app M/images/other",
        "ln -s 1 M/images/app/2",
        "mkdir M/images/new",
        "rmdir M/by-id/*",
        "touch M/images/app/1/new M/layers/*/diff/new M/info/new",
    ] {
        let run = as_nobody(&sandbox, &script.replace('M', &m.to_string()));
        assert!(
            !run.status.success() && !run.stderr().is_empty(),
            "{}",
            run.describe()
        );
    }
    assert_eq!(sandbox.store_files(), files);
    assert!(mount.image("app/1/etc/passwd").exists());
}

/// More layers in use than the starter's limit of open files: the daemon raises it as far as it may.
#[test]
fn fuse_hostile_few_descriptors() {
    let sandbox = Sandbox::new();
    let image = (0..100).fold(ImageBuilder::new("app:1"), |image, n| {
        image.layer(|l| l.file(format!("file{n}"), format!("{n}")))
    });
    sandbox.load(&image);
    let point = sandbox.mkdir("m");
    let mica = env!("CARGO_BIN_EXE_mica");
    let script = format!(
        "ulimit -Sn 64; {mica} mount {0}; cat {0}/images/app/1/* | wc -c; {mica} umount {0}",
        point.display()
    );
    crate::common::tier::root();
    let run = sandbox.sh(&script).ok();
    assert_eq!(run.stdout().trim(), "190", "{}", run.describe());
}

/// Every way to read gives the same bytes, no way to write changes one, and a page changed in memory does not stay.
#[test]
fn fuse_hostile_ways_to_read_and_write() {
    let sandbox = Sandbox::new();
    let content: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("big", &content)));
    let mount = sandbox.mount();
    let path = mount.image("app/1/big");
    let file = File::open(&path).unwrap();
    let size = content.len() as u64;

    let mut buffer = [1; 16];
    assert_eq!(file.read_at(&mut buffer, size).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, size + 1_000_000).unwrap(), 0);
    assert_eq!(
        file.read_at(&mut buffer, i64::MAX as u64 - 4096).unwrap(),
        0
    );
    assert_eq!(file.read_at(&mut buffer, size - 3).unwrap(), 3);
    assert_eq!(buffer[..3], content[content.len() - 3..]);

    use rustix::fs::SeekFrom as At;
    assert_eq!(rustix::fs::seek(&file, At::Hole(5)), Ok(size));
    assert_eq!(rustix::fs::seek(&file, At::Data(5)), Ok(5));
    assert_eq!(rustix::fs::seek(&file, At::Data(size)), Err(Errno::NXIO));

    // SAFETY: nobody changes the file.
    #[allow(unsafe_code)]
    let mut private = unsafe { memmap2::MmapOptions::new().map_copy(&file) }.unwrap();
    assert!(private[..] == content[..]);
    private[..4].copy_from_slice(b"mine");

    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let direct = File::options()
        .read(true)
        .custom_flags(flags)
        .open(&path)
        .unwrap();
    // SAFETY: an anonymous mapping, for its alignment.
    let mut page = memmap2::MmapMut::map_anon(8192).unwrap();
    assert_eq!(direct.read_at(&mut page, 4096).unwrap(), 8192);
    assert!(page[..] == content[4096..12_288]);

    let out = tempfile::tempfile().unwrap();
    rustix::fs::sendfile(&out, &file, Some(&mut 1000), 500_000).unwrap();
    let mut sent = Vec::new();
    (&out).seek(SeekFrom::Start(0)).unwrap();
    (&out).read_to_end(&mut sent).unwrap();
    assert!(!sent.is_empty() && sent[..] == content[1000..1000 + sent.len()]);

    let writer = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(errno(writer.write_at(b"x", 0)), Errno::ROFS);
    assert_eq!(errno(writer.set_len(0)), Errno::ROFS);
    // SAFETY: nobody changes the file but this test, through this mapping.
    #[allow(unsafe_code)]
    let mut shared = unsafe { memmap2::MmapMut::map_mut(&writer) }.unwrap();
    shared[..4].copy_from_slice(b"evil");
    assert_eq!(errno(shared.flush()), Errno::ROFS);
    drop((shared, writer));
    wait_until("the changed page goes", || {
        fs::read(&path).unwrap() == content
    });
}

/// A directory of 65,000 entries: complete, from any invented position harmless, and forgotten when the kernel forgets.
#[test]
fn fuse_hostile_large_directory() {
    let sandbox = Sandbox::new();
    let fill = |l: LayerBuilder| {
        (0..65_000).fold(l.dir("d", 0o755), |l, n| l.file(format!("d/file{n}"), ""))
    };
    sandbox.load(
        &ImageBuilder::new("app:1")
            .layer(fill)
            .layer(|l| l.file("d/upper", "")),
    );
    let mount = sandbox.mount();
    let dir = mount.image("app/1/d");
    let daemon = mount.daemon().expect("the daemon");
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.as_raw_nonzero()))
            .unwrap()
            .count()
    };
    let rss = || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.as_raw_nonzero()));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let storm = || {
        let run = sandbox.sh(&format!(
            "find {} -type f | wc -l; echo 2 >/proc/sys/vm/drop_caches",
            dir.display()
        ));
        assert_eq!(run.ok().stdout().trim(), "65001");
    };
    storm();
    let (files, memory) = (open(), rss());
    for _ in 0..4 {
        storm();
    }
    assert!(open() <= files + 4, "{} open files, then {}", files, open());
    assert!(rss() < memory + 32_000, "{memory} KiB, then {}", rss());

    for path in [
        dir,
        mount.image("app"),
        mount.path("by-id"),
        mount.path("info"),
        mount.path("images"),
    ] {
        for offset in [0, 1, 2, 3, 1000, 1 << 31, 1 << 32, 1 << 62, i64::MAX as u64] {
            let file = File::open(&path).unwrap();
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset)).unwrap();
            let mut buffer = Vec::with_capacity(1 << 16);
            let mut entries = RawDir::new(&file, buffer.spare_capacity_mut());
            let mut count = 0;
            while let Some(entry) = entries.next() {
                entry.unwrap_or_else(|e| panic!("{} at {offset}: {e}", path.display()));
                count += 1;
            }
            assert!(count <= 65_003, "{} at {offset}: {count}", path.display());
            // Small directories end early, and none begins that late.
            assert!(
                count == 0 || offset < 1 << 31,
                "{} at {offset}: {count}",
                path.display()
            );
            assert!(count > 0 || offset > 0, "{} is empty", path.display());
        }
    }
    // Two removers at once: one wins, and nothing else happens.
    let script = "(rm -r TAG 2>/dev/null; echo $?) & (rm -r TAG 2>/dev/null; echo $?) & wait";
    let tag = mount.image("app/1");
    let run = sandbox
        .sh(&script.replace("TAG", tag.to_str().unwrap()))
        .ok();
    assert!(
        run.stdout().contains('0') && !tag.exists(),
        "{}",
        run.describe()
    );
    assert!(runs(daemon));
    sandbox.mica(["check"]).ok();
}

/// 3,000 levels can be walked and removed.
#[test]
fn fuse_hostile_deep_tree() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| {
        let mut path = "d".to_owned();
        let l = (0..3000).fold(l, |l, _| {
            let l = l.dir(&path, 0o755);
            path.push_str("/d");
            l
        });
        l.file(format!("{path}leaf"), "deep")
    }));
    let mount = sandbox.mount();
    let tag = mount.image("app/1");
    let run = sandbox
        .sh(&format!("find {} | wc -l; rm -r {0}", tag.display()))
        .ok();
    assert_eq!(run.stdout().trim(), "3002", "{}", run.describe());
    assert!(!tag.exists());
}

/// A daemon in a pid namespace of its own does not know who asks: nothing can be staged, and nothing crashes.
#[test]
fn fuse_hostile_foreign_pid_namespace() {
    let sandbox = Sandbox::new();
    sandbox.load(&secret_image("app:1"));
    crate::common::tier::root();
    let point = sandbox.mkdir("m");
    let mica = env!("CARGO_BIN_EXE_mica");
    let mut daemon = Command::new("unshare");
    daemon
        .args(["--pid", "--fork", "--kill-child", mica, "mount", "-f"])
        .arg(&point);
    daemon.env("MICA_STORE", sandbox.store());
    let mut daemon = daemon.spawn().expect("unshare");
    let tag = point.join("images/app/1");
    wait_until("the mount is there", || tag.exists());
    let run = sandbox.sh(&format!("rm -r {}", tag.display()));
    let removed = run.describe();
    let refused = run.status.code() == Some(1) && run.stderr().contains("Read-only file system");
    let whole = fs::read_to_string(tag.join("etc/passwd"));
    let users = fs::read_to_string(point.join("info/images/app/1/users"));
    sandbox
        .sh(&format!("{mica} umount {}", point.display()))
        .ok();
    daemon.wait().expect("wait");
    assert!(refused, "{removed}");
    assert_eq!(whole.unwrap(), "everybody");
    users.expect("users");
    sandbox.mica(["check"]).ok();
}

/// Readers of a mount that is detached under them read on, and the daemon ends after the last of them.
#[test]
fn fuse_hostile_detached_with_readers() {
    let sandbox = Sandbox::new();
    let content = vec![b'x'; 3_000_000];
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("big", &content)));
    let mount = sandbox.mount();
    let daemon = mount.daemon().expect("the daemon");
    let mut file = File::open(mount.image("app/1/big")).unwrap();
    rustix::mount::unmount(&mount.point, rustix::mount::UnmountFlags::DETACH).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == content);
    assert!(runs(daemon));
    drop(file);
    wait_until("the daemon ends", || !runs(daemon));
    mount.forget();
}

/// Killed under load, mounted again, again and again: the same trees each time.
#[test]
fn fuse_hostile_killed_under_load() {
    let sandbox = Sandbox::new();
    sandbox.load(
        &secret_image("app:1")
            .layer(|l| (0..300).fold(l, |l, n| l.file(format!("f{n}"), vec![b'y'; 1000 * n]))),
    );
    let mut mount = sandbox.mount();
    let tag = mount.image("app/1");
    let before = walk::walk(&tag).unwrap();
    for round in 0..8 {
        let script = format!(
            "while :; do find {} -type f -exec cat {{}} + || exit; done",
            tag.display()
        );
        let mut load = Command::new("sh");
        load.arg("-c")
            .arg(script)
            .stdout(std::process::Stdio::null());
        load.stderr(std::process::Stdio::null());
        let mut load = load.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 * round));
        let daemon = mount.daemon().expect("the daemon");
        rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
        load.wait().unwrap();
        let point = mount.point.clone();
        mount.forget();
        mount = sandbox.mount_on(&point, &[]);
        let after = walk::walk(&tag).unwrap();
        assert!(walk::compare(&before, &after).is_empty());
    }
    sandbox.mica(["check"]).ok();
}

/// A bind mount or a working directory keeps its image also when the name it came by has gone elsewhere meanwhile.
#[test]
fn fuse_hostile_renamed_under_a_user() {
    let sandbox = Sandbox::new();
    sandbox.load(&secret_image("app:1").tag("app:2"));
    let (mount, other): (Mount, Mount) = (sandbox.mount(), sandbox.mount());
    let bound = sandbox.mkdir("bound");
    rustix::mount::mount_bind(mount.image("app/1"), &bound).unwrap();
    // Another tag keeps the image, so the name may go.
    fs::remove_dir(other.image("app/1")).unwrap();
    fs::rename(other.image("app/2"), other.image("app/3")).unwrap();
    wait_until("the new name is there", || mount.image("app/3").exists());
    assert_eq!(errno(fs::remove_dir(mount.image("app/3"))), Errno::BUSY);
    assert_eq!(
        fs::read_to_string(bound.join("etc/passwd")).unwrap(),
        "everybody"
    );
    rustix::mount::unmount(&bound, rustix::mount::UnmountFlags::empty()).unwrap();

    let mut sitter = Command::new("sleep")
        .arg("600")
        .current_dir(mount.image("app/3"))
        .spawn()
        .unwrap();
    fs::rename(other.image("app/3"), other.image("app/4")).unwrap();
    wait_until("the new name is there", || mount.image("app/4").exists());
    let refused = fs::remove_dir(mount.image("app/4"));
    sitter.kill().and_then(|()| sitter.wait()).unwrap();
    assert_eq!(errno(refused), Errno::BUSY);
    fs::remove_dir(mount.image("app/4")).unwrap();
    sandbox.mica(["check"]).ok();
}

#[track_caller]
fn errno<T>(result: std::io::Result<T>) -> Errno {
    let error = result.err().expect("an error was expected");
    Errno::from_io_error(&error).unwrap_or_else(|| panic!("no errno in {error}"))
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{what}: not in 20 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
