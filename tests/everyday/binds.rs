//! Directories and files of the host.

use std::os::unix::net::UnixListener;

use super::*;

/// `demo/f`, and ways to it.
fn world() -> Sandbox {
    let s = sandbox();
    let dir = s.mkdir("demo");
    fs::write(dir.join("f"), "host\n").unwrap();
    s.sh("ln -s demo link; ln -s . here; ln -s $PWD/demo absolute; ln -s f demo/l; mkdir 'two words' other; echo o > other/o");
    s.load(&image("links:1").layer(|l| {
        l.dir("run", 0o755)
            .dir("var", 0o755)
            .symlink("var/run", "/run")
            .symlink("var/up", "../../../run")
            .symlink("dangling", "/not/there")
            .dir("opt", 0o755)
            .mtime(1_600_000_000, 0)
            .file("opt/conf", "image\n")
    }));
    s
}

#[test]
fn root_everyday_binds_through_links_of_the_host() {
    let s = world();
    print(
        &s,
        &[
            ("mica run --rm -v $PWD/link:/d app:1 cat /d/f", "host\n"),
            ("mica run --rm -v $PWD/link/:/d app:1 cat /d/f", "host\n"),
            (
                "mica run --rm -v $PWD/here/demo:/d app:1 cat /d/f",
                "host\n",
            ),
            ("mica run --rm -v $PWD/absolute:/d app:1 cat /d/l", "host\n"),
            (
                "mica run --rm -v $PWD/demo/l:/etc/l:ro app:1 cat /etc/l",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo/../demo:/d app:1 cat /d/f",
                "host\n",
            ),
            (
                "cd demo; mica run --rm -v \"$PWD\":\"$PWD\" -w \"$PWD\" app:1 cat f",
                "host\n",
            ),
            (
                "mica run --rm --mount \"type=bind,src=$PWD/two words,dst=/two words\" app:1 sh -c 'echo x > \"/two words/x\"'; cat two*/x",
                "x\n",
            ),
        ],
    );
}

#[test]
fn root_everyday_binds_on_places_of_the_image() {
    let s = world();
    print(
        &s,
        &[
            (
                "mica run --rm -v $PWD/demo:/var/run/x links:1 cat /run/x/f",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/var/up/x links:1 cat /run/x/f",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/dangling links:1 cat /not/there/f",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo/f:/opt/conf links:1 cat /opt/conf",
                "host\n",
            ),
            ("mica run --rm -v $PWD/demo:/opt links:1 ls /opt", "f\nl\n"),
            (
                "mica run --rm -v $PWD/demo/f:/etc/hostname:ro app:1 cat /etc/hostname",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/made/deep/in app:1 cat /made/deep/in/f",
                "host\n",
            ),
            (
                "mica run --rm -v $PWD/demo/f:/made/file app:1 cat /made/file",
                "host\n",
            ),
            // The directory that something is made in keeps its times.
            (
                "mica run --rm -v $PWD/demo:/opt/new links:1 stat -c %Y /opt",
                "1600000000\n",
            ),
            // Parents come first, however they are given.
            (
                "mica run --rm -v $PWD/demo:/x/y/z -v $PWD/other:/x app:1 sh -c 'cat /x/o /x/y/z/f'; rmdir other/y/z other/y",
                "o\nhost\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/d -v $PWD/other/o:/d/f app:1 cat /d/f; cat demo/f",
                "o\nhost\n",
            ),
            (
                "mica run --rm --tmpfs /d -v $PWD/demo:/d/in app:1 sh -c 'touch /d/t; cat /d/in/f; ls /d'",
                "host\nin\nt\n",
            ),
        ],
    );
}

#[test]
fn root_everyday_binds_for_reading_and_for_writing() {
    let s = world();
    print(
        &s,
        &[
            (
                "mica run --rm -v $PWD/demo:/d app:1 sh -c 'echo new > /d/n'; cat demo/n; rm demo/n",
                "new\n",
            ),
            (
                "mica run --rm -v $PWD/demo/f:/f app:1 sh -c 'echo more >> /f'; cat demo/f; echo host > demo/f",
                "host\nmore\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/d:ro app:1 touch /d/n 2>/dev/null || ls demo",
                "f\nl\n",
            ),
            (
                "mica run --rm --mount type=bind,source=$PWD/demo,target=/d,readonly app:1 touch /d/n 2>/dev/null || echo ro",
                "ro\n",
            ),
            (
                "mica run --rm --read-only -v $PWD/demo:/d --tmpfs /t app:1 sh -c 'touch /d/n /t/n; ls /d /t'; rm demo/n",
                "/d:\nf\nl\nn\n\n/t:\nn\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/d:z,rw app:1 cat /d/f",
                "host\n",
            ),
            (
                "mica run --rm -v /proc:/host/proc:ro -v /sys:/host/sys:ro app:1 sh -c 'grep -c . /host/proc/uptime; ls -d /host/sys/kernel'",
                "1\n/host/sys/kernel\n",
            ),
        ],
    );
}

#[test]
fn root_everyday_binds_of_what_is_neither_file_nor_directory() {
    let s = world();
    let _listening = UnixListener::bind(s.path("demo/socket")).unwrap();
    s.sh("mkfifo demo/fifo; mkdir demo/below; mount -t tmpfs none demo/below; echo inner > demo/below/i");
    print(
        &s,
        &[
            (
                "mica run --rm -v $PWD/demo/socket:/run/docker.sock app:1 test -S /run/docker.sock && echo yes",
                "yes\n",
            ),
            (
                "echo through > demo/fifo & mica run --rm -v $PWD/demo:/d app:1 cat /d/fifo; wait",
                "through\n",
            ),
            (
                "mica run --rm -v $PWD/demo/fifo:/p app:1 sh -c 'echo out > /p' & cat demo/fifo; wait",
                "out\n",
            ),
            // With what is mounted below.
            (
                "mica run --rm -v $PWD/demo:/d app:1 cat /d/below/i",
                "inner\n",
            ),
            (
                "mica run --rm -v $PWD/demo:/d:ro app:1 touch /d/below/n 2>/dev/null || ls demo/below",
                "i\n",
            ),
        ],
    );
}
