use std::fs;

use super::*;
use crate::engines::{Engines, image as with_tools};

/// podman lists, runs and saves every image of `M/stores/containers` without copying a layer, and its archives have the layers bit for bit.
#[test]
fn root_engines_read_images_where_they_are() {
    let sandbox = Sandbox::new();
    let made = with_tools("app:1");
    sandbox.load(&made);
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    assert_eq!(
        engines.shown("podman images -q --no-trunc").trim(),
        made.id()
    );
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    engines.shown("podman save -q -o saved.tar app:1");
    for diff_id in made.diff_ids() {
        let tar = sandbox.sh(&format!(
            "tar -xOf saved.tar {}.tar | sha256sum",
            &diff_id[7..]
        ));
        assert!(tar.stdout().starts_with(&diff_id[7..]), "{diff_id}");
    }
    let own = sandbox.sh("ls engine/overlay | grep -vc '^l$'").stdout();
    assert_eq!(own.trim(), "0");
}

/// A tag that is made, moved or removed shows in the next listing of an engine, also of one that runs.
#[test]
fn root_engines_see_names_change() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let names = || {
        let shown = engines.shown("podman images --format {{.Repository}}:{{.Tag}} --sort tag");
        shown.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["docker.io/library/app:1"]);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    fs::rename(mount.image("app/1"), mount.image("app/3")).unwrap();
    assert_eq!(
        names(),
        ["docker.io/library/app:2", "docker.io/library/app:3"]
    );
    sandbox.mica(["rmi", "app:2", "app:3"]).ok();
    assert!(names().is_empty());
}

/// An image under an engine's running container is not removed, whatever `-f` says: the name goes, the image stays, and `mica users` names the container.
#[test]
fn root_engines_keep_what_they_run() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network none";
    engines.shown(&format!(
        "podman run -d --name web {limits} app:1 sh -c -- while :; do cat /dev/null; done"
    ));
    let users = sandbox.mica(["users", "app:1"]).ok().stdout();
    sandbox.mica(["rmi", "app:1"]).fails();
    sandbox.mica(["rmi", "-f", "app:1"]).ok();
    let still = engines.run("podman exec web cat /data/old");
    let images = sandbox.mica(["images", "-aq"]).ok().stdout();
    engines.run("podman rm -f -t 0 web").ok();
    assert!(
        users.contains("podman container web") && !users.contains("overlay"),
        "{users}"
    );
    assert_eq!(still.ok().stdout(), "new");
    assert_eq!(images.lines().count(), 1);
}

/// Nothing in `M/stores` can be changed: EROFS.
#[test]
fn root_engines_cannot_change_stores() {
    let sandbox = Sandbox::new();
    sandbox.load(&with_tools("app:1"));
    let mount = sandbox.mount();
    let stores = mount.path("stores");
    for path in [
        "containers/overlay/l",
        "containers",
        "containers/overlay-images",
    ] {
        let error = errno(fs::create_dir(stores.join(path).join("new")));
        assert_eq!(error, rustix::io::Errno::ROFS, "{path}");
    }
    let error = errno(fs::remove_file(
        stores.join("containers/overlay-images/images.json"),
    ));
    assert_eq!(error, rustix::io::Errno::ROFS);
    let error = errno(fs::write(
        stores.join("containers/overlay-images/images.json"),
        "x",
    ));
    assert_eq!(error, rustix::io::Errno::ROFS);
}
