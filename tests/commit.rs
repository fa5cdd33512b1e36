//! `mica commit` and `mica diff` of a container: what it saw is what the image has, here and in podman.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::common::container::ByHand;
use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

mod runs;

fn base(name: &str) -> ImageBuilder {
    ImageBuilder::new(name)
        .config(|config| {
            config["config"] = serde_json::json!({
                "Cmd": ["/bin/app", "--flag"], "Env": ["PATH=/bin", "NAME=base"],
                "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/srv"
            });
        })
        .layer(|l| {
            l.dir("etc", 0o755)
                .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
                .file("etc/gone", "gone")
                .file("etc/changed", "before")
                .file("etc/mode", "mode")
                .dir("opt", 0o755)
                .dir("opt/tree", 0o755)
                .file("opt/tree/a", "a")
                .file("opt/tree/b", "b")
                .dir("opt/tree/sub", 0o755)
                .file("opt/tree/sub/c", "c")
                .dir("usr", 0o755)
                .dir("usr/deleted", 0o755)
                .file("usr/deleted/x", "x")
                .file("usr/to-dir", "file")
                .dir("usr/to-file", 0o755)
                .file("usr/to-file/y", "y")
                .file("usr/hard1", "hard")
                .hardlink("usr/hard2", "usr/hard1")
                .symlink("usr/link", "hard1")
        })
        .layer(|l| l.dir("var", 0o755).file("var/two", "two"))
}

/// Something of every kind.
const CHANGES: &str = r#"
    rm etc/gone
    echo after >etc/changed
    chmod 600 etc/mode
    rm -r opt/tree
    mkdir opt/tree
    echo new >opt/tree/b
    mkdir opt/tree/sub
    rm -r usr/deleted
    rm usr/to-dir; mkdir usr/to-dir; echo 1 >usr/to-dir/in
    rm -r usr/to-file; echo 2 >usr/to-file
    echo more >>usr/hard2
    ln -sf nowhere usr/link
    mkdir -p new/deep
    echo one >new/one; ln new/one new/deep/two; ln new/one new/three
    mkfifo -m 640 new/fifo
    mknod new/null c 1 3
    mknod new/disk b 7 300
    cp /bin/true new/capable; setcap cap_net_raw+ep new/capable
    setfattr -n user.note -v value new/one
    setfattr -n trusted.note -v value new/capable
    chown 1234:70000 new/one
    chmod 4711 new/capable
    chmod 1777 new/deep
    touch -d '1969-12-31 23:59:50.25 UTC' new/deep/old
    touch -d '2031-05-06 07:08:09.123456789 UTC' new/deep/new
    truncate -s 96M new/sparse
    printf 'a name with \n a newline' >"new/$(printf 'n\nl')"
    printf x >"new/$(printf '%0200d' 7)"
    mkdir -m 750 empty
"#;

fn inspect(sandbox: &Sandbox, image: &str) -> Value {
    let text = sandbox.mica(["inspect", image]).ok().stdout();
    let mut all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    all.remove(0)
}

fn layers(inspection: &Value) -> Vec<String> {
    let layers = inspection["RootFS"]["Layers"].as_array().expect("layers");
    layers
        .iter()
        .map(|l| l.as_str().expect("text").to_owned())
        .collect()
}

/// Differences that are meant: the root's time, which a tag directory shows as the image's date.
fn differences(expected: &std::path::Path, actual: &std::path::Path) -> Vec<String> {
    let mut found = walk::differences(expected, actual).expect("a walk");
    found.retain(|line| !line.starts_with("/: mtime should be "));
    found
}

/// The committed image's tree is the container's, in M and in podman.
#[test]
fn root_commit_keeps_the_tree() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh(CHANGES);
    let sparse = fs::File::options()
        .write(true)
        .open(container.root.join("new/sparse"));
    sparse
        .and_then(|file| file.write_all_at(b"in the middle", 1 << 26))
        .expect("a write");
    let socket = UnixListener::bind(container.root.join("new/socket")).expect("a socket");
    drop(socket);

    let id = sandbox.mica(["commit", "worker", "app:2"]).ok().stdout();
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id:?}");
    assert_eq!(inspect(&sandbox, "app:2")["Id"], id.trim());
    fs::remove_file(container.root.join("new/socket")).expect("unlink");
    let expected = differences(&container.root, &mount.image("app/2"));
    // The socket's directory has another time now.
    assert_eq!(
        expected
            .iter()
            .filter(|line| !line.starts_with("/new: mtime"))
            .collect::<Vec<_>>(),
        [""; 0]
    );

    // Not a copy of the hole.
    let image = inspect(&sandbox, "app:2");
    let top = layers(&image)
        .pop()
        .expect("a layer")
        .replace("sha256:", "");
    let tar = sandbox.store().join("blobs/sha256").join(top);
    assert!(fs::metadata(tar).expect("the layer").len() < 1 << 20);

    let archive = sandbox.path("app.tar");
    let saved = archive.to_str().expect("UTF-8");
    sandbox.mica(["save", "-o", saved, "app:2"]).ok();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    podman.load(&sandbox, &archive);
    let there = podman.mount(&sandbox, "docker.io/library/app:2");
    let mut found = differences(&there, &mount.image("app/2"));
    // podman's storage: the root's mode, no time before 1970.
    found.retain(|line| {
        !line.starts_with("/: mode should be 40555")
            && !line.contains("mtime should be (0, 0), is (-")
    });
    assert_eq!(found, [""; 0]);
}

/// `diff` of the container and `diff` of the two images say the same, in docker's letters.
#[test]
fn root_commit_diff_says_what_changed() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    assert_eq!(sandbox.mica(["diff", "worker"]).ok().stdout(), "");
    container.sh(CHANGES);
    let diff = sandbox.mica(["diff", "worker"]).ok().stdout();
    for line in [
        "C /etc\n",
        "C /etc/changed\n",
        "C /etc/mode\n",
        "D /etc/gone\n",
        "C /opt/tree\n",
        "D /opt/tree/a\n",
        "C /opt/tree/b\n",
        "D /opt/tree/sub/c\n",
        "D /usr/deleted\n",
        "C /usr/to-dir\n",
        "A /usr/to-dir/in\n",
        "C /usr/to-file\n",
        "A /new\n",
        "A /new/deep/two\n",
        "A /empty\n",
        "C /usr/hard2\n",
        "C /usr/link\n",
    ] {
        assert!(diff.contains(line), "{line:?} is not in\n{diff}");
    }
    for absent in ["/etc/passwd", "/usr/deleted/x", "/var", "/usr/to-file/y"] {
        assert!(!diff.contains(absent), "{absent} is in\n{diff}");
    }
    sandbox.mica(["commit", "worker", "app:2"]).ok();
    let images = sandbox.mica(["diff", "app:1", "app:2"]).ok().stdout();
    let top = sandbox.mica(["diff", "app:2"]).ok().stdout();
    assert_eq!(images, top);
    // A container's copy of a directory that is the same but for its time counts as docker counts it: by what is in it.
    assert_eq!(images, diff);
    assert_eq!(sandbox.mica(["diff", "app:2", "app:2"]).ok().stdout(), "");
}

/// The same changes are the same layer; without a change there is none.
#[test]
fn root_commit_is_deterministic_and_may_be_empty() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh(CHANGES);
    sandbox.mica(["commit", "worker", "app:2"]).ok();
    sandbox.mica(["commit", "worker", "app:3"]).ok();
    let (two, three) = (inspect(&sandbox, "app:2"), inspect(&sandbox, "app:3"));
    assert_ne!(two["Id"], three["Id"], "made at different times");
    assert_eq!(layers(&two), layers(&three));
    assert_eq!(layers(&two).len(), 3);

    let idle = ByHand::new(&sandbox, &mount, "app:2", "idle");
    // Looking is no change; neither is what leaves no trace but the directory's time.
    idle.sh("cat etc/changed; ls -lR . >/dev/null; touch etc/x; rm etc/x");
    sandbox
        .mica(["commit", "-m", "nothing", "idle", "app:4"])
        .ok();
    let four = inspect(&sandbox, "app:4");
    assert_eq!(layers(&four), layers(&two));
    let history = sandbox.mica([
        "history",
        "--format",
        "{{.Size}} {{.CreatedBy}} {{.Comment}}",
        "app:4",
    ]);
    assert_eq!(
        history.ok().stdout().lines().next(),
        Some("0B /bin/app --flag nothing")
    );
    let config = fs::read(mount.path("info/images/app/4/config.json")).expect("the config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let last = config["history"]
        .as_array()
        .and_then(|h| h.last())
        .expect("history");
    assert_eq!(last["empty_layer"], true);
}

/// Config and history grow as docker's do.
#[test]
fn root_commit_configuration() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::with(&sandbox, &mount, "app:1", "worker", |record| {
        record.config.env.push("GIVEN=1".to_owned());
        record.config.cmd = Some(vec!["sh".to_owned(), "-c".to_owned(), "date".to_owned()]);
    });
    container.sh("echo x >file");
    sandbox
        .mica([
            "commit",
            "-a",
            "A <a@example.org>",
            "-m",
            "why not",
            "-c",
            "ENV NAME=new MORE=$GIVEN",
            "-c",
            "EXPOSE 443",
            "-c",
            "ENTRYPOINT [\"/entry\"]",
            "-c",
            "CMD x y",
            "--change",
            "LABEL \"a b\"=c",
            "-c",
            "WORKDIR sub",
            "-c",
            "USER 33:33",
            "-c",
            "VOLUME /data",
            "-c",
            "ONBUILD RUN make",
            "worker",
            "app:2",
        ])
        .ok();
    let image = inspect(&sandbox, "app:2");
    assert_eq!(image["Author"], "A <a@example.org>");
    assert_eq!(image["Comment"], "why not");
    let config = &image["Config"];
    let expected = serde_json::json!({
        "Env": ["PATH=/bin", "NAME=new", "GIVEN=1", "MORE=1"], "Entrypoint": ["/entry"],
        "Cmd": ["/bin/sh", "-c", "x y"], "WorkingDir": "/srv/sub", "User": "33:33",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Volumes": {"/data": {}},
        "Labels": {"a b": "c"}, "OnBuild": ["RUN make"],
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[key], value, "{key}");
    }
    let rows = sandbox.mica([
        "history",
        "--no-trunc",
        "--format",
        "{{.CreatedBy}}|{{.Comment}}",
        "app:2",
    ]);
    assert_eq!(
        rows.ok().stdout().lines().next(),
        Some("sh -c date|why not")
    );
    // The first image is as it was.
    assert_eq!(inspect(&sandbox, "app:1")["Config"]["Cmd"][0], "/bin/app");
}

/// Refusals leave nothing.
#[test]
fn root_commit_refuses() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh("echo x >file");
    let before = sandbox.store_files();
    for (args, text) in [
        (
            vec!["commit", "nobody"],
            "Error response from daemon: No such container: nobody\n",
        ),
        (
            vec!["commit", "worker", "Upper:1"],
            "repository name (library/Upper) must be lowercase",
        ),
        (
            vec!["commit", "-c", "RUN make", "worker"],
            "RUN is not a valid change command",
        ),
        (
            vec!["commit", "-c", "EXPOSE x", "worker"],
            "invalid containerPort: x",
        ),
        (
            vec!["diff", "nobody"],
            "Error response from daemon: No such container or image: nobody:latest\n",
        ),
        (vec!["diff", "app:1", "worker"], "worker is a container"),
    ] {
        let run = sandbox.mica(args).code(1);
        assert!(run.stderr().contains(text), "{}", run.describe());
    }
    container.sh("mkdir d; : >d/.wh.trap");
    let run = sandbox.mica(["commit", "worker", "app:2"]).code(1);
    assert!(
        run.stderr().contains("container worker: \"/d/.wh.trap\""),
        "{}",
        run.describe()
    );
    fs::remove_dir_all(container.root.join("d")).expect("rm");
    sandbox.mica(["gc"]).ok();
    let mut after = sandbox.store_files();
    after.retain(|(path, _)| !path.starts_with(sandbox.store().join("containers")));
    let mut before = before;
    before.retain(|(path, _)| !path.starts_with(sandbox.store().join("containers")));
    assert_eq!(before, after);
    // By the beginning of its ID, and without a name.
    let id = container.container.record.id.as_str()[..8].to_owned();
    sandbox.mica(["commit", &id]).ok();
    let dangling = sandbox
        .mica(["images", "-q", "-f", "dangling=true"])
        .ok()
        .stdout();
    assert_eq!(dangling.lines().count(), 1);
    // A name that was another image's leaves that one without.
    let first = sandbox.mica(["commit", "worker", "app:3"]).ok().stdout();
    container.sh("echo more >more");
    sandbox.mica(["commit", "worker", "app:3"]).ok();
    let pruned = sandbox.mica(["image", "prune", "-f"]).ok().stdout();
    assert!(pruned.contains(&format!("deleted: {first}")), "{pruned}");
    sandbox.mica(["inspect", "app:3"]).ok();
}

/// Killed at any moment it leaves the tag whole or absent, and nothing in the store after the next change.
#[test]
fn root_commit_killed() {
    let sandbox = Sandbox::new();
    sandbox.load(&base("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh("head -c 10000000 /dev/urandom >big; for i in $(seq 300); do echo $i >f$i; done");
    let files = || {
        let mut files = sandbox.store_files();
        // Containers, and what is written for the user.
        files.retain(|(path, _)| {
            let path = path.strip_prefix(sandbox.store()).expect("in the store");
            path.starts_with("blobs") || path.starts_with("layers") || path.starts_with("tmp")
        });
        files
    };
    let start = std::time::Instant::now();
    sandbox.mica(["commit", "worker", "app:2"]).ok();
    let whole = start.elapsed();
    let layers = layers(&inspect(&sandbox, "app:2"));
    sandbox.mica(["rmi", "app:2"]).ok();
    let before = files();
    let mut absent = 0;
    for step in 0..12 {
        let mut command = sandbox.command();
        command.args(["commit", "worker", "app:2"]);
        command.stdout(std::process::Stdio::null());
        let mut child = command.spawn().expect("mica");
        std::thread::sleep(whole * step / 10);
        child.kill().expect("kill");
        child.wait().expect("wait");
        let images = sandbox.mica(["images", "-q", "app:2"]).ok().stdout();
        if images.is_empty() {
            absent += 1;
        } else {
            assert_eq!(self::layers(&inspect(&sandbox, "app:2")), layers);
            sandbox.mica(["rmi", "app:2"]).ok();
        }
        sandbox.mica(["gc"]).ok();
        assert_eq!(files(), before, "after a kill at step {step}");
    }
    assert!(absent > 1, "never killed in time");
}
