//! One image at a time.

use super::*;

/// `podman images`, `run`, `inspect`, `history`; nothing is copied into podman's own storage.
#[test]
fn root_engines_podman_runs_an_image_of_the_store() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("team/app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let id = image("team/app:1").id();
    let hex = id.strip_prefix("sha256:").unwrap();
    let listed = engines
        .shown("podman images --no-trunc --format {{.ID}}~{{.Repository}}:{{.Tag}}~{{.ReadOnly}}");
    assert_eq!(listed, format!("{id}~docker.io/team/app:1~true\n"));
    let script = "cat /data/old /data/twice; ls /cache /data; stat -c %u:%g:%a:%h /data /data/big; touch /data/mine; ls /data/mine";
    let seen = engines.container("", "team/app:1", script);
    assert!(seen.starts_with("newsecond"), "{seen}");
    assert!(
        seen.contains("/cache:\nb\n") && !seen.contains("gone"),
        "{seen}"
    );
    assert!(
        seen.contains("7:8:750:") && seen.ends_with("/data/mine\n"),
        "{seen}"
    );
    let inspected = json(&engines.shown("podman inspect team/app:1"));
    assert_eq!(inspected[0]["Id"], hex);
    let layers: Vec<&str> = inspected[0]["RootFS"]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer.as_str().unwrap())
        .collect();
    assert_eq!(layers, image("team/app:1").diff_ids());
    assert_eq!(
        engines
            .shown("podman history -q team/app:1")
            .lines()
            .count(),
        3
    );
    // What the container wrote was in podman's storage, and is gone; of the image nothing ever was.
    let own = fs::read_to_string(sandbox.path("engine/overlay-images/images.json"));
    assert!(own.is_err() || json(&own.unwrap()).as_array().unwrap().is_empty());
}

/// A user namespace: the kernel maps the ids of the lower directories, which takes `FUSE_ALLOW_IDMAP`.
#[test]
fn root_engines_podman_maps_ids() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let map = "--uidmap 0:100000:65536 --gidmap 0:200000:65536";
    let script = "id -u; stat -c %u:%g /data /bin/busybox; chown 5:6 /data/old; stat -c %u:%g /data/old; cat /proc/self/uid_map";
    let seen = engines.container(map, "app:1", script);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..4], ["0", "7:8", "0:0", "5:6"], "{seen}");
    assert!(lines[4].contains("100000"), "{seen}");
    // The ids that podman picks by itself are subordinate ones of `containers`.
    crate::common::tier::subordinate_ids_by("containers:300000:200000\n");
    let seen = engines.container("--userns auto:size=1024", "app:1", script);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..4], ["0", "7:8", "0:0", "5:6"], "{seen}");
    assert!(lines[4].contains("300000"), "{seen}");
}

/// What engines make of the image is the image, bit for bit.
#[test]
fn root_engines_archives_are_bit_exact() {
    let sandbox = Sandbox::new();
    let made = image("app:1");
    sandbox.load(&made);
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    engines.shown("podman save -q -o saved.tar app:1");
    engines.shown("skopeo copy -q containers-storage:docker.io/library/app:1 dir:copied");
    sandbox.sh("mkdir saved && tar -C saved -xf saved.tar").ok();
    let manifest = json(&fs::read_to_string(sandbox.path("saved/manifest.json")).unwrap());
    let saved = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(saved.len(), 3);
    for (name, diff_id) in saved.iter().zip(made.diff_ids()) {
        let tar = fs::read(sandbox.path("saved").join(name.as_str().unwrap())).unwrap();
        assert_eq!(digest(&tar), diff_id, "{name}");
    }
    for diff_id in made.diff_ids() {
        let tar = fs::read(sandbox.path("copied").join(&diff_id[7..])).unwrap();
        assert_eq!(digest(&tar), diff_id);
    }
    assert_eq!(
        digest(&fs::read(sandbox.path("copied").join(&made.id()[7..])).unwrap()),
        made.id()
    );
}

/// `buildah from`, `mount`, `commit` and `podman build` stand on the layers of the store.
#[test]
fn root_engines_build_on_an_image_of_the_store() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let container = engines.shown("buildah from --pull-never app:1");
    let container = container.trim();
    let tree = engines.shown(&format!("buildah mount {container}"));
    let tree = Path::new(tree.trim());
    assert_eq!(fs::read_to_string(tree.join("data/old")).unwrap(), "new");
    fs::write(tree.join("data/added"), "added").unwrap();
    engines.shown(&format!("buildah commit -q {container} built:1"));
    fs::write(
        sandbox.path("Containerfile"),
        "FROM app:1\nCOPY extra /extra\nRUN cat /data/old /extra >/both\n",
    )
    .unwrap();
    fs::write(sandbox.path("extra"), "extra").unwrap();
    engines.shown("buildah bud -q --isolation chroot --network host --pull-never -t built:2 .");
    assert_eq!(
        engines.container("", "built:1", "cat /data/added /data/old"),
        "addednew"
    );
    assert_eq!(engines.container("", "built:2", "cat /both"), "newextra");
    // On its own layers podman stores what is new only.
    let own = json(&fs::read_to_string(sandbox.path("engine/overlay-layers/layers.json")).unwrap());
    let all: u64 = own
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["diff-size"].as_u64().unwrap_or(0))
        .sum();
    assert!(all < 100_000, "{own:#}");
}

/// The tree cannot be changed, its locks can be held, and a name that is not there is none.
#[test]
fn root_engines_cannot_write_into_the_store() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let top = mount.path("stores/containers");
    let script = "set -u; cd \"$1\"; for f in overlay-images/images.json overlay-images/new overlay/l/new; do \
        (echo x >>$f) 2>&1 | grep -o 'Read-only file system'; done; \
        rm overlay-images/images.json 2>&1 | grep -o 'Read-only file system'; \
        mkdir overlay/x 2>&1 | grep -o 'Read-only file system'; \
        rm -r overlay/*/diff/bin 2>&1 | grep -o -m1 'Read-only file system'";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&top);
    let refused = sandbox.run(command).stdout();
    assert_eq!(refused.lines().count(), 6, "{refused}");
    assert_eq!(
        fs::metadata(top.join("overlay-images/images.lock"))
            .unwrap()
            .len(),
        64
    );
    // The short name, the links, and what there is not.
    assert!(mount.path("stores/c/overlay-images/images.json").exists());
    assert_eq!(fs::read_dir(mount.path("stores")).unwrap().count(), 2);
    for missing in [
        "overlay/0123",
        "overlay-layers/x.tar-split.gz",
        "overlay-images/x",
        "x",
    ] {
        let error = fs::metadata(top.join(missing)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{missing}");
    }
    let layers = json(&fs::read_to_string(top.join("overlay-layers/layers.json")).unwrap());
    for layer in layers.as_array().unwrap() {
        let at = top.join("overlay").join(layer["id"].as_str().unwrap());
        let link = fs::read_to_string(at.join("link")).unwrap();
        let target = fs::canonicalize(top.join("overlay/l").join(link)).unwrap();
        assert_eq!(target, at.join("diff"));
        assert_eq!(at.join("lower").exists(), layer["parent"].is_string());
    }
    // For root alone: what an upper layer deletes can be read there.
    let user = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "ls"])
        .arg(&top)
        .output()
        .unwrap();
    assert!(!user.status.success());
    mount.unmount();
}
