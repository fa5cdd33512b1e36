//! Volumes, and other images.

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// An image whose `/srv` has everything a directory can hold.
fn rich(name: &str) -> crate::common::image::ImageBuilder {
    image(name).layer(|l| {
        l.dir("srv", 0o2775)
            .owner(33, 44)
            .mtime(1_600_000_000, 5)
            .file("srv/index", "from the image\n")
            .owner(5, 6)
            .mode(0o4750)
            .mtime(1_500_000_000, 7)
            .xattr("user.note", "kept")
            .hardlink("srv/again", "srv/index")
            .owner(5, 6)
            .mode(0o4750)
            .mtime(1_500_000_000, 7)
            .xattr("user.note", "kept")
            .symlink("srv/link", "index")
            .symlink("srv/out", "/etc/passwd")
            .owner(7, 8)
            .dir("srv/closed", 0o700)
            .owner(9, 9)
            .file("srv/closed/empty", "")
            .mode(0o400)
            .fifo("srv/fifo")
            .dir("srv/deep", 0o755)
            .dir("srv/deep/er", 0o1777)
            .file("srv/deep/er/zeros", vec![0; 1 << 20])
            .symlink("data", "srv")
            .dir("bare", 0o711)
            .owner(12, 13)
    })
}

#[test]
fn root_everyday_volumes_begin_as_the_image_has_them() {
    let s = sandbox();
    s.load(&rich("rich:1"));
    print(
        &s,
        &[
            (
                "mica run --rm -v vol:/srv rich:1 sh -c 'cd /srv; stat -c \"%n %A %u:%g %h\" . index again closed closed/empty fifo deep/er'",
                ". drwxrwsr-x 33:44 4\nindex -rwsr-x--- 5:6 2\nagain -rwsr-x--- 5:6 2\nclosed drwx------ 9:9 2\nclosed/empty -r-------- 0:0 1\nfifo prw-r--r-- 0:0 1\ndeep/er drwxrwxrwt 0:0 2\n",
            ),
            (
                "mica run --rm -v vol:/x rich:1 sh -c 'cd /x; stat -c %Y . index; readlink link; readlink out; stat -c %u:%g out; cat link; busybox cmp deep/er/zeros /srv/deep/er/zeros && echo same'",
                "1600000000\n1500000000\nindex\n/etc/passwd\n7:8\nfrom the image\nsame\n",
            ),
            // Only what is empty is filled.
            (
                "mica run --rm -v vol:/srv rich:1 rm /srv/again; mica run --rm -v vol:/srv rich:1 ls /srv",
                "closed\ndeep\nfifo\nindex\nlink\nout\n",
            ),
            ("mica run --rm -v none:/srv:nocopy rich:1 ls /srv", ""),
            (
                "mica run --rm --mount type=volume,src=n2,dst=/srv,volume-nocopy rich:1 ls /srv",
                "",
            ),
            (
                "mica run --rm -v bare:/bare rich:1 stat -c '%a %u:%g' /bare",
                "711 12:13\n",
            ),
            (
                "mica run --rm -v linked:/data rich:1 ls /srv",
                "again\nclosed\ndeep\nfifo\nindex\nlink\nout\n",
            ),
            (
                "mica run --rm -v new:/not/there rich:1 stat -c '%a %u:%g' /not/there",
                "755 0:0\n",
            ),
            (
                "mica volume create made >/dev/null; mica run --rm -v made:/srv rich:1 cat /srv/index",
                "from the image\n",
            ),
            (
                "mica run --rm -v /srv rich:1 cat /srv/index",
                "from the image\n",
            ),
            (
                "mica run --rm -v one:/srv/deep -v two:/srv rich:1 sh -c 'ls /srv/deep; ls -d /srv/closed'",
                "er\n/srv/closed\n",
            ),
            (
                "mica run --rm -v ro:/srv:ro rich:1 sh -c 'cat /srv/index; touch /srv/x 2>/dev/null || echo ro'",
                "from the image\nro\n",
            ),
        ],
    );
    let dir = fs::read_dir(s.store().join("volumes")).unwrap();
    let copies: Vec<_> = dir
        .map(|d| d.unwrap().path().join("_data"))
        .filter(|data| data.join("index").exists())
        .collect();
    assert!(!copies.is_empty());
    for data in copies {
        let mut value = [0; 16];
        let got = rustix::fs::getxattr(data.join("index"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..got], b"kept");
        let index = fs::metadata(data.join("index")).unwrap();
        assert_eq!((index.mtime(), index.mtime_nsec()), (1_500_000_000, 7));
    }
}

#[test]
fn root_everyday_volumes_are_shared() {
    let s = sandbox();
    s.load(&rich("rich:1"));
    s.load(
        &image("vol:1")
            .layer(|l| l.dir("data", 0o755).file("data/d", "d\n").dir("log", 0o755))
            .config(|c| {
                c["config"]["Volumes"] =
                    serde_json::json!({"/data": {}, "/log": {}, "/run/deep/new": {}});
            }),
    );
    print(
        &s,
        &[
            (
                "mica run -d --name one -v both:/b app:1 sleep 600 >/dev/null; mica run --rm -v both:/other app:1 sh -c 'echo x > /other/x'; mica exec one cat /b/x",
                "x\n",
            ),
            ("mica run --rm --volumes-from one app:1 cat /b/x", "x\n"),
            (
                "mica run --rm --volumes-from one:ro app:1 touch /b/y 2>/dev/null || mica exec one ls /b; mica rm -f one",
                "x\none\n",
            ),
            (
                "mica run --rm vol:1 sh -c 'cat /data/d; touch /log/l /run/deep/new/n; grep -c \" /data \\| /log \\| /run/deep/new \" /proc/self/mounts'",
                "d\n3\n",
            ),
            (
                "mica run -d --name two vol:1 sh -c 'echo t > /log/t; sleep 600' >/dev/null; until mica run --rm --volumes-from two app:1 cat /log/t; do :; done 2>/dev/null; mica rm -f two",
                "t\ntwo\n",
            ),
            (
                "mica run --rm -v sub:/v app:1 sh -c 'mkdir -p /v/a/b; echo s > /v/a/b/f; busybox ln -s a /v/inside'",
                "",
            ),
            (
                "mica run --rm --mount type=volume,src=sub,dst=/m,volume-subpath=a/b app:1 cat /m/f",
                "s\n",
            ),
            (
                "mica run --rm --mount type=volume,src=sub,dst=/m,volume-subpath=a/b/f app:1 cat /m",
                "s\n",
            ),
            (
                "mica run --rm --mount type=volume,src=sub,dst=/m,volume-subpath=inside/b app:1 cat /m/f",
                "s\n",
            ),
            (
                "mica run --rm --mount type=volume,src=sub,dst=/m,volume-subpath=./a app:1 ls /m",
                "b\n",
            ),
            (
                "mica run --rm --mount type=image,src=rich:1,dst=/i app:1 cat /i/srv/index /i/data/index",
                "from the image\nfrom the image\n",
            ),
            (
                "mica run --rm --mount type=image,src=rich:1,dst=/i,image-subpath=srv app:1 cat /i/index",
                "from the image\n",
            ),
            (
                "mica run --rm --mount type=image,src=rich:1,dst=/i,image-subpath=data app:1 cat /i/index",
                "from the image\n",
            ),
            (
                "mica run --rm --mount type=image,src=rich:1,dst=/i,image-subpath=srv/index app:1 cat /i",
                "from the image\n",
            ),
            (
                "mkdir host; echo h > host/h; mica volume create --bind $PWD/host bound >/dev/null; mica run --rm -v bound:/b app:1 cat /b/h",
                "h\n",
            ),
            (
                "mica run --rm --mount type=volume,src=bound,dst=/b,volume-subpath=h app:1 cat /b",
                "h\n",
            ),
            (
                "mica volume create --bind $PWD/host/h:ro file >/dev/null; mica run --rm -v file:/f app:1 sh -c 'cat /f; echo x > /f' 2>/dev/null || echo ro",
                "h\nro\n",
            ),
        ],
    );
}
