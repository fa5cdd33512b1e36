//! `cp` and `attach` where the container, or who is attached to it, is hostile.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;

use rustix::fs::{Dir, Mode, OFlags, mkdirat, openat};

use super::*;
use crate::common::tarball::{TarEntry, TarWriter};

/// A script of the host, with `$M` for mica, in the sandbox's directory.
fn host(s: &Sandbox, script: &str) -> Run {
    let mut command = Command::new("bash");
    command.arg("-euc").arg(script).current_dir(s.dir());
    command.env("M", s.command().get_program());
    command.env("MICA_STORE", s.store());
    s.run(command)
}

/// Directories and files with several names, far below, each with a path of 45 kilobytes: they cost what they are, not their paths.
#[test]
fn root_regression_cp_of_very_many_that_lie_deep_costs_no_memory() {
    const MANY: usize = 3000;
    let s = sandbox();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(rustix::fs::CWD, s.mkdir("deep"), flags, Mode::empty()).unwrap();
    for _ in 0..450 {
        let name = "d".repeat(100);
        mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, &name, flags, Mode::empty()).unwrap();
    }
    for number in 0..MANY {
        mkdirat(&here, format!("x{number}"), Mode::from_raw_mode(0o755)).unwrap();
        mkdirat(&here, format!("x{number}/y"), Mode::from_raw_mode(0o700)).unwrap();
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let (one, two) = (format!("f{number}"), format!("g{number}"));
        openat(&here, &one, create, Mode::from_raw_mode(0o644)).unwrap();
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::linkat(&here, one, &here, two, flags).unwrap();
    }
    shown(
        &s,
        &format!(
            "run -d --name cc -v {}:/t app:1 sleep 1000",
            s.dir().join("deep").display()
        ),
    );
    // All of them, and their paths, were 400 MB.
    host(
        &s,
        "ulimit -v 300000; $M cp cc:/t/. copy; $M cp copy cc:/in; $M rm -f cc",
    )
    .ok();
    let mut here = openat(rustix::fs::CWD, s.dir().join("copy"), flags, Mode::empty()).unwrap();
    for _ in 0..450 {
        here = openat(&here, "d".repeat(100), flags, Mode::empty()).unwrap();
    }
    let stat = |name: &str| rustix::fs::statat(&here, name, rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(stat("x17").st_mode & 0o7777, 0o755);
    assert_eq!(stat("x17/y").st_mode & 0o7777, 0o700);
    assert_eq!(
        (stat("f2").st_nlink, stat("f2").st_ino),
        (2, stat("g2").st_ino)
    );
    assert_eq!(Dir::read_from(&here).unwrap().count(), 2 + 3 * MANY);
}

/// Names that would act on a terminal, files that never end, and what is no file.
#[test]
fn root_cp_of_whatever_a_container_has_ends_and_stays_inside() {
    let s = sandbox();
    shown(
        &s,
        "run -d --name cc app:1 -- mkdir -p /t/n /t/dirs; cd /t; mkfifo fifo; mknod disk b 8 0; mknod null c 1 3; \
         printf x > huge; dd if=/dev/zero of=huge bs=1 count=1 seek=8796093022207 conv=notrunc 2>/dev/null; \
         for n in $(printf 'a\\033[31mred\\033]0;title\\007') -rf .mica-1-1; do echo x > ./n/$n; mkdir ./dirs/$n; done; \
         printf x > \"n/$(printf 'two\\nlines')\"; ln -s / up; ln -s /proc/self/root/etc magic; \
         echo ready > /ready; while :; do echo more >> /t/endless; done",
    );
    wait_until("it is ready", || {
        mica(&s, "exec cc test -e /ready").status.success()
    });
    let run = mica(&s, "cp cc:/t copy").ok();
    assert!(
        run.stderr().contains("2 devices were left out"),
        "{}",
        run.describe()
    );
    let copied = |name: &str| fs::symlink_metadata(s.dir().join("copy").join(name)).unwrap();
    assert_eq!(copied("huge").len(), 1 << 43);
    assert!(copied("up").is_symlink() && copied("magic").is_symlink());
    assert!(
        copied("endless").len() > 0 && fs::symlink_metadata(s.dir().join("copy/disk")).is_err()
    );
    let mut names: Vec<_> = fs::read_dir(s.dir().join("copy/n"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let wanted = [
        "-rf",
        ".mica-1-1",
        "a\u{1b}[31mred\u{1b}]0;title\u{7}",
        "two\nlines",
    ];
    assert_eq!(names, wanted.map(std::ffi::OsString::from));
    // Whatever fails: nothing of a name reaches the terminal as it is.
    host(
        &s,
        "mkdir -p in/t/dirs; echo x > in/t/dirs/$(printf 'a\\033[31mred\\033]0;title\\007')",
    )
    .ok();
    for line in [
        "cp in/. cc:/",
        "cp cc:/t/\u{1b}[31m .",
        "cp cc:/t/up/\u{1b}]0;x\u{7}/y .",
    ] {
        let run = mica(&s, line).code(1);
        let said = run.stderr();
        assert!(
            said.ends_with('\n') && !said.trim_end().contains(char::is_control),
            "{}",
            run.describe()
        );
    }
    // In, too: what is there and no file is replaced, never written to or waited for.
    host(
        &s,
        "mkdir over; echo over > over/fifo; echo over > over/null; echo over > over/up",
    )
    .ok();
    shown(&s, "cp over/. cc:/t");
    assert_eq!(
        shown(&s, "exec cc cat /t/fifo /t/null /t/up"),
        "over\nover\nover\n"
    );
    shown(&s, "rm -f cc");
}

/// An archive that somebody else has made: with dots, from the root, through its own links, and very long.
#[test]
fn root_cp_of_an_archive_stays_where_it_is_told() {
    let s = sandbox();
    shown(&s, "create --name cc app:1 true");
    let outside = s.mkdir("outside").display().to_string();
    let mut tar = TarWriter::new(Vec::new());
    let file = |name: &str| TarEntry {
        content: b"evil\n".to_vec(),
        ..TarEntry::new(b'0', name)
    };
    for name in [
        format!("../../../../../..{outside}/dots"),
        format!("{outside}/absolute"),
        "a/../../../b".to_owned(),
    ] {
        tar.entry(&file(&name)).unwrap();
    }
    tar.entry(&TarEntry {
        link: outside.clone().into(),
        ..TarEntry::new(b'2', "way")
    })
    .unwrap();
    tar.entry(&file("way/through")).unwrap();
    for number in 0..10_000 {
        tar.entry(&file(&format!("many/{}/{number}", number % 100)))
            .unwrap();
    }
    fs::write(s.dir().join("t.tar"), tar.finish().unwrap()).unwrap();
    let run = host(&s, "$M cp - cc:/tmp < t.tar");
    assert!(
        fs::read_dir(&outside).unwrap().next().is_none(),
        "{}",
        run.describe()
    );
    assert!(!std::path::Path::new("/b").exists());
    host(&s, "mkdir copy; $M cp cc:/tmp/. copy; test $(find copy/many -type f | wc -l) = 10000 -o ! -e copy/many").ok();
    // A hard link to what is outside of the place is one to nothing.
    symlink("/etc", s.dir().join("copy/etc")).unwrap();
    let mut tar = TarWriter::new(Vec::new());
    tar.entry(&TarEntry {
        link: b"../../../../etc/passwd".to_vec(),
        ..TarEntry::new(b'1', "stolen")
    })
    .unwrap();
    fs::write(s.dir().join("t.tar"), tar.finish().unwrap()).unwrap();
    let run = host(&s, "$M cp - cc:/tmp < t.tar").code(1);
    assert!(run.stderr().contains("passwd"), "{}", run.describe());
}

/// Paused, killed or removed while somebody copies: the copy is whole or fails, and nothing stays.
#[test]
fn root_cp_goes_on_or_fails_when_its_container_ends() {
    let s = sandbox();
    for end in ["pause cc", "kill cc", "rm -f cc"] {
        shown(
            &s,
            "run -d --name cc app:1 -- dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; echo ready > /ready; exec sleep 1000",
        );
        wait_until("it is ready", || {
            mica(&s, "exec cc test -e /ready").status.success()
        });
        // More than pipes hold: it waits in the middle.
        let mut command = s.command();
        command.args(["cp", "cc:/big", "-"]).stdout(Stdio::piped());
        let mut copy = command.spawn().unwrap();
        let mut out = copy.stdout.take().unwrap();
        let mut archive = vec![0; 100_000];
        out.read_exact(&mut archive).unwrap();
        shown(&s, end);
        out.read_to_end(&mut archive).unwrap();
        let status = copy.wait().unwrap();
        assert!(
            archive.len() > (8 << 20) || !status.success(),
            "{end}: {}",
            archive.len()
        );
        if end != "rm -f cc" {
            shown(&s, "cp cc:/ready .");
            shown(&s, "rm -f cc");
        }
    }
    assert!(left(&s).is_empty());
}

/// Very many who attach, with nonsense or in silence: the program runs, its output comes, and others attach afterwards.
#[test]
fn root_regression_very_many_attach_and_the_next_one_can() {
    let s = sandbox();
    host(
        &s,
        "ulimit -n 256; $M run -d -i --name cc app:1 sh -c 'while read line; do echo got $line; done; exit 3'",
    )
    .ok();
    let directory = left(&s).pop().unwrap();
    let connect = || mica::sys::local_socket::connect_to(&directory.join("attach"));
    wait_until("it listens", || connect().is_ok());
    let mut all = Vec::new();
    for number in 0..1200 {
        // Who is too much is hung up on, and is not kept waiting.
        let Ok(stream) = connect() else { continue };
        let mut stream = fs::File::from(stream);
        let _ = match number % 8 {
            0 => stream.write_all(&[255; 64]),
            1 => stream.write_all(&[4, 255, 255, 255, 255]),
            _ => Ok(()),
        };
        all.push(stream);
    }
    drop(all);
    wait_until("there is room again", || {
        host(&s, "echo x | timeout -s KILL 1 $M attach cc 2>&1 || true")
            .stdout()
            .contains("got x")
    });
    shown(&s, "rm -f cc");
}
