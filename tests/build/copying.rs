//! COPY and ADD: what goes where, whose it is, and what it looks like there.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn rich(s: &Sandbox) -> PathBuf {
    let root = context(
        s,
        "c",
        &[
            ("a.txt", "a"),
            ("b.txt", "bb"),
            ("d/one", "1"),
            ("d/sub/two", "22"),
            ("x/d.o", "o"),
            ("x/keep", "k"),
            ("with space", "s"),
        ],
    );
    fs::set_permissions(root.join("d/one"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("d/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("one", root.join("d/link")).unwrap();
    symlink("/etc/passwd", root.join("d/out")).unwrap();
    fs::hard_link(root.join("a.txt"), root.join("d/hard")).unwrap();
    std::os::unix::fs::chown(root.join("b.txt"), Some(77), Some(78)).unwrap();
    root
}

fn built(s: &Sandbox, steps: &str) -> Vec<String> {
    fs::write(s.path("c/Dockerfile"), format!("FROM app:1\n{steps}\n")).unwrap();
    fs::write(s.path("c/.dockerignore"), "Dockerfile\n.dockerignore\n").unwrap();
    build(s, "c", &["-t", "t:1"]).ok();
    listing(s, "t:1", "t/")
}

#[test]
fn root_build_copy_puts_things_where_docker_does() {
    let s = sandbox();
    rich(&s);
    for (steps, expected) in [
        ("COPY a.txt /t/", vec!["-rw-r--r-- 0/0 1 t/a.txt"]),
        ("COPY a.txt /t/new", vec!["-rw-r--r-- 0/0 1 t/new"]),
        ("WORKDIR /t\nCOPY a.txt .", vec!["-rw-r--r-- 0/0 1 t/a.txt"]),
        ("WORKDIR /t\nCOPY b.txt c", vec!["-rw-r--r-- 0/0 2 t/c"]),
        (
            "COPY *.txt /t/",
            vec!["-rw-r--r-- 0/0 1 t/a.txt", "-rw-r--r-- 0/0 2 t/b.txt"],
        ),
        (
            "COPY [\"with space\", \"/t/\"]",
            vec!["-rw-r--r-- 0/0 1 t/with space"],
        ),
        ("COPY d/sub /t/", vec!["-rw-r--r-- 0/0 2 t/two"]),
        ("COPY d/su* /t", vec!["-rw-r--r-- 0/0 2 t/two"]),
        (
            "COPY --chown=bob d/sub/two /t/",
            vec!["-rw-r--r-- 1000/1001 2 t/two"],
        ),
        (
            "COPY --chown=5:bobs d/sub/two /t/",
            vec!["-rw-r--r-- 5/1001 2 t/two"],
        ),
        (
            "COPY --chmod=640 d/sub/two /t/",
            vec!["-rw-r----- 0/0 2 t/two"],
        ),
        ("COPY --exclude=*.o x /t/", vec!["-rw-r--r-- 0/0 1 t/keep"]),
        (
            "COPY --parents d/sub/two ./x/./keep /t/",
            vec![
                "-rw-r--r-- 0/0 1 t/keep",
                "-rw-r--r-- 0/0 2 t/d/sub/two",
                "drwxr-x--- 0/0 0 t/d/sub/",
                "drwxr-xr-x 0/0 0 t/d/",
            ],
        ),
        (
            "COPY a.txt /t/x\nCOPY b.txt /t/x",
            vec!["-rw-r--r-- 0/0 2 t/x"],
        ),
        ("ADD a.txt /t/", vec!["-rw-r--r-- 0/0 1 t/a.txt"]),
    ] {
        let found = built(&s, steps);
        let found: Vec<&str> = found
            .iter()
            .map(String::as_str)
            .filter(|l| !l.ends_with(" t/"))
            .collect();
        assert_eq!(found, expected, "{steps}");
    }
    // A whole tree: modes, links and hard links stay, owners are root's.
    let found = built(&s, "COPY . /t/");
    for line in [
        "-rws--x--x 0/0 1 t/d/one",
        "drwxr-x--- 0/0 0 t/d/sub/",
        "lrwxrwxrwx 0/0 0 t/d/link -> one",
        "lrwxrwxrwx 0/0 0 t/d/out -> /etc/passwd",
        "-rw-r--r-- 0/0 2 t/b.txt",
    ] {
        assert!(found.iter().any(|have| have == line), "{line}\n{found:#?}");
    }
    assert!(
        found
            .iter()
            .any(|line| line.starts_with('h') && line.contains("t/d/hard")),
        "{found:#?}"
    );
}

#[test]
fn root_build_copy_merges_directories_and_follows_links_of_the_stage() {
    let s = sandbox();
    rich(&s);
    let found = built(
        &s,
        "RUN mkdir -p /t/real/sub /t/other; chmod 700 /t/real; busybox ln -s real /t/link; busybox ln -s ../../../../t/other /t/up; busybox ln -s /t/real/file /t/to-file; echo old > /t/real/file\nCOPY d/sub /t/link/\nCOPY a.txt /t/up/\nCOPY b.txt /t/to-file\nCOPY d /t/real/",
    );
    for line in [
        "lrwxrwxrwx 0/0 0 t/link -> real",
        "drwx------ 0/0 0 t/real/",
        "-rw-r--r-- 0/0 2 t/real/two",
        "-rw-r--r-- 0/0 1 t/other/a.txt",
        "-rw-r--r-- 0/0 2 t/real/file",
        "lrwxrwxrwx 0/0 0 t/to-file -> /t/real/file",
        "drwxr-x--- 0/0 0 t/real/sub/",
        "-rw-r--r-- 0/0 2 t/real/sub/two",
    ] {
        assert!(found.iter().any(|have| have == line), "{line}\n{found:#?}");
    }
}

#[test]
fn root_build_add_takes_archives_apart_and_copy_does_not() {
    let s = sandbox();
    let root = rich(&s);
    for (flag, name) in [
        ("", "p.tar"),
        ("z", "p.tar.gz"),
        ("J", "p.tar.xz"),
        ("j", "p.tar.bz2"),
    ] {
        let done = Command::new("tar")
            .arg(format!("-c{flag}f"))
            .arg(root.join(name))
            .arg("-C")
            .arg(root.join("d"))
            .args(["one", "sub", "link"])
            .status();
        assert!(done.unwrap().success());
        let found = built(&s, &format!("ADD {name} /t/x"));
        assert!(
            found.contains(&"-rws--x--x 0/0 1 t/x/one".to_owned()),
            "{name} {found:#?}"
        );
        assert!(found.contains(&"lrwxrwxrwx 0/0 0 t/x/link -> one".to_owned()));
        let copied = built(&s, &format!("COPY {name} /t/"));
        assert!(
            copied
                .iter()
                .any(|line| line.ends_with(&format!(" t/{name}"))),
            "{copied:#?}"
        );
    }
    // Compressed, but no archive: a file.
    let gz = Command::new("gzip")
        .arg("-kf")
        .arg(root.join("a.txt"))
        .status();
    assert!(gz.unwrap().success());
    let found = built(&s, "ADD a.txt.gz /t/");
    assert!(found.iter().any(|line| line.ends_with(" t/a.txt.gz")));
}

#[test]
fn root_build_add_downloads() {
    let s = sandbox();
    rich(&s);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in server.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut client, &mut request);
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: close\r\n\r\nhello");
        }
    });
    let sum = crate::common::image::digest(b"hello");
    let found = built(
        &s,
        &format!("ADD --checksum={sum} http://127.0.0.1:{port}/dir/file.bin?x=1 /t/"),
    );
    assert!(
        found.contains(&"-rw------- 0/0 5 t/file.bin".to_owned()),
        "{found:#?}"
    );
    let wrong = sum.replace(&sum[10..12], "00");
    let wrong = if wrong == sum {
        sum.replace(&sum[10..12], "11")
    } else {
        wrong
    };
    for (steps, why) in [
        (
            format!("ADD --checksum={wrong} http://127.0.0.1:{port}/f /t/"),
            "digest mismatch",
        ),
        (
            format!("ADD http://127.0.0.1:{port}/ /t/"),
            "cannot determine filename",
        ),
        (
            "ADD https://example.org/x.git /t/".to_owned(),
            "repositories are not supported",
        ),
        (
            "ADD git@example.org:x /t/".to_owned(),
            "repositories are not supported",
        ),
    ] {
        let error = build_text(&s, &format!("FROM app:1\n{steps}\n"), &[])
            .code(1)
            .stderr();
        assert!(error.contains(why), "{steps}: {error}");
    }
}

#[test]
fn root_build_leaves_out_what_dockerignore_names() {
    let s = sandbox();
    let root = context(
        &s,
        "c",
        &[
            ("Dockerfile", "FROM app:1\nCOPY . /t/\n"),
            ("other.Dockerfile", "FROM app:1\nCOPY . /t/\n"),
            ("other.Dockerfile.dockerignore", "*\n!keep.log\n"),
            (
                ".dockerignore",
                "*.log\n!keep.log\nnode_modules\n!node_modules/keep/me\n**/*.tmp\nDockerfile\n",
            ),
            ("a.log", ""),
            ("keep.log", ""),
            ("sub/b.log", ""),
            ("sub/c.tmp", ""),
            ("node_modules/x/y", ""),
            ("node_modules/keep/me", ""),
        ],
    );
    let listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    build(&s, "c", &["-t", "t:1"]).ok();
    let files = |image: &str| -> Vec<String> {
        let lines = listing(&s, image, "t/");
        let path = |line: &String| line.split(" t/").nth(1).unwrap().to_owned();
        let mut files: Vec<String> = lines
            .iter()
            .map(path)
            .filter(|path| !path.is_empty())
            .collect();
        files.sort();
        files
    };
    assert_eq!(
        files("t:1"),
        [
            ".dockerignore",
            "keep.log",
            "node_modules/",
            "node_modules/keep/",
            "node_modules/keep/me",
            "other.Dockerfile",
            "other.Dockerfile.dockerignore",
            "sub/",
            "sub/b.log"
        ]
    );
    drop(listener);
    let other = root.join("other.Dockerfile");
    build(&s, "c", &["-t", "t:2", "-f", other.to_str().unwrap()]).ok();
    assert_eq!(files("t:2"), ["keep.log"]);
}

/// As docker: whoever packs an archive leaves out what he wants to. Of the two files that the build itself takes from it their
/// patterns are asked.
#[test]
fn root_build_asks_dockerignore_of_an_archive_for_two_files_only() {
    let s = sandbox();
    for (ignore, expected) in [
        (
            "*.log\nDockerfile\n",
            &[".dockerignore", "a.log", "sub/", "sub/Dockerfile"][..],
        ),
        (
            ".*\nsub\n",
            &["Dockerfile", "a.log", "sub/", "sub/Dockerfile"],
        ),
        ("*\n!a.log\n", &["a.log", "sub/", "sub/Dockerfile"]),
        (
            "[\n",
            &[
                ".dockerignore",
                "Dockerfile",
                "a.log",
                "sub/",
                "sub/Dockerfile",
            ],
        ),
    ] {
        let dockerfile = "FROM app:1\nCOPY . /t/\n";
        let root = context(
            &s,
            "c",
            &[
                ("Dockerfile", dockerfile),
                ("sub/Dockerfile", dockerfile),
                (".dockerignore", ignore),
                ("a.log", ""),
            ],
        );
        let tar = Command::new("tar")
            .args(["-c", "-C"])
            .arg(&root)
            .arg(".")
            .output();
        let tar = tar.unwrap().stdout;
        let (code, out, err) = piped(&s, &["build", "-t", "t:1", "-"], &tar);
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(
            err.contains("line 1: syntax error"),
            ignore == "[\n",
            "{err}"
        );
        let lines = listing(&s, "t:1", "t/");
        let mut files: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.split(" t/").nth(1))
            .filter(|path| !path.is_empty())
            .collect();
        files.sort_unstable();
        assert_eq!(files, expected, "{ignore}");
    }
    // One in a directory, named with -f.
    let tar = Command::new("sh")
        .args([
            "-euc",
            "printf 'sub/Dockerfile\\n' >c/.dockerignore; exec tar -c -C c .",
        ])
        .current_dir(s.dir())
        .output();
    let tar = tar.unwrap().stdout;
    let (code, out, err) = piped(
        &s,
        &["build", "-t", "t:1", "-f", "./sub/Dockerfile", "-"],
        &tar,
    );
    assert_eq!(code, Some(0), "{out}{err}");
    let lines = listing(&s, "t:1", "t/");
    assert!(
        lines.iter().any(|line| line.ends_with(" t/Dockerfile")),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|line| line.ends_with(" t/sub/Dockerfile")),
        "{lines:?}"
    );
}

#[test]
fn root_build_of_a_hundred_thousand_files() {
    let s = sandbox();
    let root = context(&s, "c", &[("Dockerfile", "FROM scratch\nCOPY d /d/\n")]);
    for directory in 0..100 {
        let directory = root.join(format!("d/{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs::write(directory.join(file.to_string()), "").unwrap();
        }
    }
    build(&s, "c", &["-q", "-t", "many:1"]).ok();
    assert_eq!(listing(&s, "many:1", "d/").len(), 100_101);
    // All of it was done before, and one file more is one step more.
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 1);
    fs::write(root.join("d/99/more"), "").unwrap();
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 0);
}

#[test]
fn root_build_keeps_names_attributes_and_holes() {
    let s = sandbox();
    let root = context(&s, "c", &[("Dockerfile", "FROM app:1\nCOPY t /t\n")]);
    fs::create_dir(root.join("t")).unwrap();
    let odd = std::os::unix::ffi::OsStrExt::as_bytes(OsStr::new("")).len();
    assert_eq!(odd, 0);
    let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\n\x1b[31m x");
    fs::write(root.join("t").join(name), "odd").unwrap();
    let sparse = fs::File::create(root.join("t/sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (1 << 40) - 3).unwrap();
    fs::write(root.join("t/marked"), "m").unwrap();
    rustix::fs::setxattr(
        root.join("t/marked"),
        "user.note",
        b"value",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::options()
        .append(true)
        .open(root.join("t/marked"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    build(&s, "c", &["-t", "t:1"]).ok();
    let mount = s.mount();
    let tree = mount.point.join("images/t/1/t");
    assert_eq!(fs::read(tree.join(name)).unwrap(), b"odd");
    assert_eq!(tree.join("sparse").metadata().unwrap().len(), 1 << 40);
    assert_eq!(
        tree.join("marked").metadata().unwrap().modified().unwrap(),
        time
    );
    let mut value = [0u8; 16];
    let got = rustix::fs::getxattr(tree.join("marked"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..got], b"value");
    let blobs = s.sh("du -sm \"$MICA_STORE/blobs\"").ok().stdout();
    let megabytes: u64 = blobs.split_whitespace().next().unwrap().parse().unwrap();
    assert!(megabytes < 64, "{blobs}");
}
