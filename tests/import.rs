//! `mica import` and `mica export`: a tree out and in again, exactly.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::image::{ImageBuilder, Pack};
use crate::common::real;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::walk;

/// Two layers with everything a tar can say.
fn everything() -> ImageBuilder {
    let long = "d".repeat(120);
    ImageBuilder::new("all:1")
        .layer(|l| {
            l.dir(".", 0o751)
                .mtime(1_000_000_000, 0)
                .dir("etc", 0o755)
                .xattr("user.dir", "of a directory")
                .file("etc/a", vec![b'a'; 3_000_000])
                .owner(33, 5_000_000)
                .mtime(1_700_000_000, 123_456_789)
                .mode(0o4755)
                .hardlink("etc/b", "etc/a")
                .file("etc/gone", "gone")
                .file("below", "linked to from above")
                .mtime(-2, 500_000_000)
                .symlink("etc/link", "a")
                .symlink("etc/far", "x".repeat(300))
                .char_device("etc/null", 1, 3)
                .block_device("etc/disk", 259, 1_000_000)
                .fifo("etc/pipe")
                .dir(&long, 0o700)
                .file(format!("{long}/{}", "f".repeat(200)), "long")
                .file(b"etc/latin-\xe9", "bytes")
                .file("etc/empty", "")
                .file("etc/attributes", "x")
                .xattr("user.a", b"b=c\n\0d")
                .xattr(
                    "security.capability",
                    [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                )
        })
        .layer(|l| {
            l.whiteout("etc/gone")
                .hardlink("up", "below")
                .file("implicit/parent", "no entry for the directory")
        })
}

fn export(sandbox: &Sandbox, image: &str, name: &str) -> PathBuf {
    let path = sandbox.path(name);
    let target = path.display().to_string();
    let run = sandbox.mica(["export", "-o", &target, image]).ok();
    assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()));
    path
}

fn import(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut all = vec!["import"];
    all.extend(args);
    sandbox.mica(all)
}

/// Unpacks with GNU tar, as root would.
fn unpack(sandbox: &Sandbox, archive: &Path, name: &str) -> PathBuf {
    let dir = sandbox.mkdir(name);
    let mut tar = Command::new("tar");
    tar.args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--warning=no-timestamp",
        "-xpf",
    ])
    .arg(archive)
    .arg("-C")
    .arg(&dir);
    let run = sandbox.run(tar).ok();
    assert_eq!(run.stderr(), "");
    dir
}

/// The root: a tag directory has the date of the image.
fn differences(left: &Path, right: &Path) -> Vec<String> {
    let mut found = walk::differences(left, right).expect("walk");
    found.retain(|line| !line.starts_with("/: mtime"));
    found
}

#[test]
fn fuse_export_is_the_tree() {
    let sandbox = Sandbox::new();
    let image = everything();
    sandbox.load(&image);
    let archive = export(&sandbox, "all:1", "one.tar");
    let mount = sandbox.mount();
    let unpacked = unpack(&sandbox, &archive, "unpacked");
    let tree = mount.point.join("images/all/1");
    assert_eq!(differences(&tree, &unpacked), Vec::<String>::new());
    assert_eq!(
        fs::read(unpacked.join("up")).expect("read"),
        b"linked to from above"
    );
    // In again: the same tree, and the same bytes out.
    let id = import(&sandbox, &[&archive.display().to_string(), "back:1"])
        .ok()
        .stdout();
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    let back = mount.point.join("images/back/1");
    assert_eq!(differences(&tree, &back), Vec::<String>::new());
    let again = export(&sandbox, id.trim(), "two.tar");
    assert!(fs::read(&archive).expect("read") == fs::read(again).expect("read"));
    sandbox.mica(["check"]).ok();
}

#[test]
fn fuse_export_of_a_real_image() {
    let sandbox = Sandbox::new();
    sandbox.load_file(&real::docker_archive("small")).ok();
    let archive = export(&sandbox, "localhost/mica-test:small", "small.tar");
    let mount = sandbox.mount();
    let unpacked = unpack(&sandbox, &archive, "unpacked");
    let tree = mount.image("localhost/mica-test/small");
    assert_eq!(differences(&tree, &unpacked), Vec::<String>::new());
}

#[test]
fn holes_stay_holes() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("mkdir tree && cd tree && truncate -s 9G end && \
             printf head > both && truncate -s 1M both && printf tail >> both && \
             truncate -s 5M middle && printf x | dd of=middle bs=1M seek=2 conv=notrunc status=none && \
             tar -S -cf ../sparse.tar . && tar -S --format=pax -cf ../pax.tar .")
        .ok();
    for source in ["sparse.tar", "pax.tar"] {
        import(&sandbox, &[source, "holes:1"]).ok();
        let archive = export(&sandbox, "holes:1", "out.tar");
        assert!(fs::metadata(&archive).expect("stat").len() < 3 << 20);
        let dir = unpack(&sandbox, &archive, source.trim_end_matches(".tar"));
        for name in ["end", "both", "middle"] {
            let compare = format!("cmp tree/{name} {}/{name}", dir.display());
            // Nine gigabytes of nothing need not be read.
            if name != "end" {
                sandbox.sh(&compare).ok();
            }
        }
        assert_eq!(fs::metadata(dir.join("end")).expect("stat").len(), 9 << 30);
        import(&sandbox, &["out.tar", "holes:2"]).ok();
        let again = export(&sandbox, "holes:2", "again.tar");
        assert!(fs::read(&archive).expect("read") == fs::read(again).expect("read"));
    }
}

#[test]
fn import_takes_docker_s_options() {
    let sandbox = Sandbox::new();
    let tar = &everything().layers[0];
    fs::write(sandbox.path("tree.tar"), tar).expect("write");
    let id = import(
        &sandbox,
        &[
            "-c",
            "CMD [\"/bin/app\", \"-v\"]",
            "--change",
            "ENV A=1 B=\"two words\"",
            "-c",
            "LABEL x=y",
            "-c",
            "EXPOSE 80",
            "-m",
            "by hand",
            "--platform",
            "linux/arm/v7",
            "tree.tar",
            "org/app",
        ],
    )
    .ok()
    .stdout();
    let format = "{{.Id}} {{.RepoTags}} {{.Architecture}} {{.Variant}} {{json .Config.Cmd}} \
                  {{json .Config.Env}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}";
    let inspect = sandbox
        .mica(["inspect", "-f", format, "org/app"])
        .ok()
        .stdout();
    let expected = format!(
        "{} [org/app:latest] arm v7 [\"/bin/app\",\"-v\"] [\"A=1\",\"B=two words\"] {{\"x\":\"y\"}} {{\"80/tcp\":{{}}}}\n",
        id.trim()
    );
    assert_eq!(inspect, expected);
    let history = sandbox.mica([
        "history",
        "--format",
        "{{.Comment}}|{{.CreatedBy}}",
        "org/app",
    ]);
    assert_eq!(history.ok().stdout(), "by hand|\n");
    // Another import takes the name; docker's comment where none is given.
    let other = import(&sandbox, &["tree.tar", "org/app:latest"])
        .ok()
        .stdout();
    assert_ne!(other, id);
    let history = sandbox.mica(["history", "--format", "{{.Comment}}", "org/app"]);
    assert_eq!(history.ok().stdout(), "Imported from -\n");
    // Without a name; the layer is stored once.
    import(&sandbox, &["tree.tar"]).ok();
    let rows = sandbox
        .mica(["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok()
        .stdout();
    assert_eq!(rows.matches("<none>:<none>").count(), 2, "{rows}");
    assert_eq!(
        sandbox
            .mica(["image", "import", "tree.tar", "x"])
            .ok()
            .stdout()
            .len(),
        72
    );
}

#[test]
fn import_reads_pipes_and_every_compression() {
    let sandbox = Sandbox::new();
    let tar = everything().layers[0].clone();
    fs::write(sandbox.path("tree.tar"), &tar).expect("write");
    fs::write(sandbox.path("tree.tar.gz"), Pack::Gzip.apply(&tar)).expect("write");
    fs::write(sandbox.path("tree.tar.zst"), Pack::Zstd.apply(&tar)).expect("write");
    sandbox.sh("xz -k tree.tar; bzip2 -k tree.tar").ok();
    let mica = env!("CARGO_BIN_EXE_mica");
    for name in [
        "tree.tar",
        "tree.tar.gz",
        "tree.tar.zst",
        "tree.tar.xz",
        "tree.tar.bz2",
    ] {
        sandbox
            .sh(&format!("cat {name} | {mica} import - app:1"))
            .ok();
        import(&sandbox, &[name, "app:2"]).ok();
    }
    let layers = sandbox
        .mica(["inspect", "-f", "{{json .RootFS.Layers}}", "app:1", "app:2"])
        .ok();
    let layer = crate::common::image::digest(&tar);
    assert_eq!(layers.stdout(), format!("[\"{layer}\"]\n[\"{layer}\"]\n"));
}

#[test]
fn import_refuses_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let tar = everything().layers[0].clone();
    fs::write(sandbox.path("tree.tar"), &tar).expect("write");
    fs::write(sandbox.path("cut.tar"), &tar[..tar.len() / 2]).expect("write");
    let mut packed = Pack::Gzip.apply(&tar);
    packed.truncate(packed.len() - 4);
    fs::write(sandbox.path("cut.gz"), packed).expect("write");
    fs::write(sandbox.path("text"), "hello\n".repeat(200)).expect("write");
    fs::write(sandbox.path("empty"), "").expect("write");
    import(&sandbox, &["tree.tar", "app:1"]).ok();
    let before = sandbox.store_files();
    let nothing = format!("app@sha256:{}", "0".repeat(64));
    let table: &[(&[&str], &str)] = &[
        (&["cut.tar"], "mica: the archive is no file system: "),
        (&["cut.gz"], "mica: cannot read the archive: "),
        (&["text"], "mica: the archive is no file system: "),
        (&["empty"], "mica: the archive is empty"),
        (&["missing"], "mica: missing: No such file"),
        (
            &["https://example.com/x.tar"],
            "mica: import downloads nothing; type: curl -fL",
        ),
        (
            &["tree.tar", "App"],
            "Error response from daemon: invalid reference format",
        ),
        (
            &["tree.tar", &nothing],
            "mica: cannot import digest reference",
        ),
        (
            &["-c", "FROM x", "tree.tar"],
            "mica: FROM is not a valid change command",
        ),
        (
            &["--max-layer-size", "1m", "tree.tar"],
            "mica: the archive is no file system: ",
        ),
        (
            &["--max-layer-entries", "3", "tree.tar"],
            "mica: the archive is no file system: ",
        ),
    ];
    for (args, words) in table {
        let run = import(&sandbox, args).code(1);
        assert!(run.stderr().starts_with(words), "{}", run.describe());
        assert_eq!(run.stdout(), "");
    }
    import(&sandbox, &[]).code(1);
    let run = import(&sandbox, &["-c", "CMD x", "-", "y"]).code(1);
    assert!(
        run.stderr().contains("the archive is empty"),
        "{}",
        run.describe()
    );
    assert_eq!(sandbox.store_files(), before);
}

#[test]
fn export_by_any_name_and_never_to_a_terminal() {
    let sandbox = Sandbox::new();
    let image = everything();
    sandbox.load(&image);
    let archive = export(&sandbox, "all:1", "one.tar");
    let bytes = fs::read(archive).expect("read");
    for name in ["all:1", &image.id(), &image.id()[7..19]] {
        assert!(
            sandbox.mica(["export", name]).ok().stdout == bytes,
            "{name}"
        );
    }
    let run = sandbox.mica(["export", "nothing"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such image: nothing:latest\n"
    );
    let mica = env!("CARGO_BIN_EXE_mica");
    let run = sandbox
        .sh(&format!("script -qec '{mica} export all:1' /dev/null"))
        .code(1);
    let said = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
    assert!(run.stdout().contains(said), "{}", run.describe());
    // A reader that has enough is no error, a full disk is one.
    sandbox
        .sh(&format!("{mica} export all:1 | head -c 100 > /dev/null"))
        .ok();
    let run = sandbox.mica(["export", "-o", "/dev/full", "all:1"]).code(1);
    assert!(run.stderr().contains("No space left"), "{}", run.stderr());
}

#[test]
fn export_never_gives_wrong_bytes() {
    let sandbox = Sandbox::new();
    let image = everything();
    sandbox.load(&image);
    let old = sandbox.path("out.tar");
    fs::write(&old, "old").expect("write");
    let blob = sandbox
        .store()
        .join("blobs")
        .join(image.diff_ids()[0].replace(':', "/"));
    let mut bytes = fs::read(&blob).expect("the layer");
    let at = bytes
        .windows(64)
        .position(|w| w == [b'a'; 64])
        .expect("content");
    bytes[at + 100_000] ^= 1;
    fs::write(&blob, bytes).expect("write");
    let run = sandbox.mica(["export", "-o", "out.tar", "all:1"]).code(1);
    assert!(run.stderr().contains("etc/a"), "{}", run.stderr());
    assert_eq!(fs::read(&old).expect("read"), b"old");
}

/// Killed at any moment, a verb that writes an archive leaves the old file, or the new one, and nothing else.
#[test]
fn save_and_export_killed_leave_nothing() {
    let sandbox = Sandbox::new();
    let image = ImageBuilder::new("big:1").layer(|l| l.file("big", vec![b'x'; 60_000_000]));
    sandbox.load(&image);
    let dir = sandbox.mkdir("out");
    let target = dir.join("file.tar");
    for verb in ["save", "export"] {
        let whole = sandbox.mica([verb, "big:1"]).ok().stdout;
        fs::write(&target, "old").expect("write");
        let (mut old, mut new) = (0, 0);
        for number in 0..20u64 {
            let mut command = sandbox.command();
            command.args([verb, "-o"]).arg(&target).arg("big:1");
            let mut child = command.stdin(Stdio::null()).spawn().expect("mica");
            std::thread::sleep(std::time::Duration::from_millis(number * 12));
            child.kill().and_then(|()| child.wait()).expect("kill");
            match fs::read(&target).expect("read") {
                bytes if bytes == b"old" => old += 1,
                bytes if bytes == whole => new += 1,
                bytes => panic!("{} bytes of {verb}", bytes.len()),
            }
            assert_eq!(fs::read_dir(&dir).expect("readdir").count(), 1);
            File::create(&target)
                .and_then(|_| fs::write(&target, "old"))
                .expect("write");
        }
        assert!(old > 0, "{verb}: {old} old, {new} new");
    }
}
