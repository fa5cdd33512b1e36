//! Layers that the store has are nobody's to fetch or unpack.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mica_snapshotter::proto::Kind;
use tonic::Code;

use crate::client::{Labels, code, labels};
use crate::common::image::{ImageBuilder, digest};
use crate::common::registry::{Kind as Registries, Registry};
use crate::common::sandbox::Sandbox;
use crate::work::{Running, chains, image, mount, start};

const REF: &str = "containerd.io/snapshot.ref";

fn wanted(chain: &str) -> Labels {
    labels(&[(REF, chain)])
}

/// What a client does for the layers of an image; whether each was there.
pub fn unpack(running: &Running, image: &ImageBuilder, more: &Labels) -> Vec<bool> {
    let mut parent = String::new();
    let mut there = Vec::new();
    for (n, chain) in chains(image).iter().enumerate() {
        let key = format!("default/{n}/extract-1-x {chain}");
        let mut labels = wanted(chain);
        labels.extend(more.clone());
        let answer = running.client.create("Prepare", &key, &parent, labels);
        match answer {
            Err(status) => {
                assert_eq!(status.code(), Code::AlreadyExists, "{status}");
                there.push(true);
                // As containerd's database asks for it.
                let filter = format!("labels.\"{REF}\"=={chain},parent==\"{parent}\"");
                let names = running.client.names(&[&filter]);
                let [name] = &names[..] else {
                    panic!("{filter}: {names:?}");
                };
                parent = name.clone();
            }
            Ok(_) => {
                there.push(false);
                return there;
            }
        }
    }
    there
}

/// Every layer of an image that is here exists already, and a container stands on one lower directory.
#[test]
fn root_layers_of_the_store_exist_already() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(unpack(&running, &app, &Labels::new()), [true, true, true]);
    // Again, as another namespace of containerd's would: the same snapshots.
    assert_eq!(unpack(&running, &app, &Labels::new()), [true, true, true]);
    assert_eq!(client.list(&[]).unwrap().len(), 3);
    let chains = chains(&app);
    let top = client.stat(&chains[2]).unwrap();
    assert_eq!((top.kind(), &top.parent), (Kind::Committed, &chains[1]));
    assert!(client.usage(&chains[2]).unwrap().0 > 0);
    let mounts = client.prepare("default/9/web", &chains[2]).unwrap();
    let lower: Vec<&str> = mounts[0]
        .options
        .iter()
        .filter_map(|option| option.strip_prefix("lowerdir="))
        .collect();
    let tree = m.path(format!("stores/chains/{}", &chains[2][7..]));
    assert_eq!(lower, [tree.to_str().unwrap()]);
    let mounted = mount(&sandbox, &mounts);
    let seen = mounted.sh("cat data/old; ls data cache; stat -c %u:%g:%a data; touch data/mine; rm cache/b; ls data cache");
    assert_eq!(
        seen,
        "newcache:\nb\n\ndata:\nold\n7:8:750\ncache:\n\ndata:\nmine\nold\n"
    );
    // Nothing of it is M's, and a look at a layer below is one at that layer.
    assert_eq!(fs::read_dir(tree.join("cache")).unwrap().count(), 1);
    let view = mount(&sandbox, &client.view("view", &chains[1]).unwrap());
    assert_eq!(view.sh("cat data/gone; ls cache"), "gonea\n");
    assert!(
        sandbox
            .sh("ls store/snapshots")
            .ok()
            .stdout()
            .lines()
            .count()
            == 2
    );
    drop((view, mounted));
    drop(running);
    m.unmount();
}

/// A snapshot is a lease on its layers: whether the snapshotter runs or not, until containerd gives it back.
#[test]
fn root_layers_in_use_are_in_use() {
    let sandbox = Sandbox::new();
    let (app, base) = (image("app:1"), base("base:1"));
    sandbox.load(&app);
    sandbox.load(&base);
    let m = sandbox.mount();
    let mut running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let chains = chains(&app);
    running.client.prepare("default/9/web", &chains[2]).unwrap();
    let refused = |what: &[&str]| sandbox.mica(what).fails().stderr();
    let said = refused(&["rmi", "app:1"]);
    assert!(said.contains("containerd snapshot default/9/web"), "{said}");
    let users = sandbox.mica(["users", "app:1"]).ok().stdout();
    assert!(
        users.contains("containerd snapshot default/9/web"),
        "{users}"
    );
    let busy = fs::remove_dir(m.image("app/1")).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy);
    running.kill();
    sandbox.mica(["image", "prune", "-af"]).ok();
    sandbox.mica(["gc"]).ok();
    // -f takes the name; the bytes stay, and so does what stands on them.
    sandbox.mica(["rmi", "-f", "app:1"]).ok();
    refused(&["rmi", "-f", &app.id()]);
    assert!(
        !sandbox
            .mica(["images", "-q", "base"])
            .ok()
            .stdout()
            .contains('\n'),
        "pruned: nobody uses it"
    );
    sandbox.mica(["check"]).ok();
    let running = start(&sandbox);
    let mounted = mount(&sandbox, &running.client.mounts("default/9/web").unwrap());
    assert_eq!(mounted.sh("cat data/old"), "new");
    drop(mounted);
    for key in ["default/9/web", &chains[2], &chains[1], &chains[0]] {
        running.client.remove(key).unwrap();
    }
    sandbox.mica(["rmi", &app.id()]).ok();
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
    drop(running);
    m.unmount();
}

/// The first layers of [`image`], and one of its own.
fn base(name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(|l| l.file("own", "own"))
}

/// What the store has not is unpacked, and what is like it in between is not taken for it.
#[test]
fn root_layers_that_are_not_here() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    let m = sandbox.mount();
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(unpack(&running, &app, &Labels::new()), [false]);
    let chains = chains(&app);
    let key = format!("default/0/extract-1-x {}", chains[0]);
    mount(&sandbox, &client.mounts(&key).unwrap()).sh("echo first >first");
    client.commit(&chains[0], &key).unwrap();
    sandbox.load(&app);
    // A chain that has another number of layers than the parent says, and one that is none.
    for (parent, chain) in [
        ("", chains[1].as_str()),
        (&chains[0], &chains[2]),
        ("", "sha256:0"),
        ("", ""),
        ("", &chains[2][7..]),
    ] {
        client
            .create("Prepare", "odd", parent, wanted(chain))
            .unwrap();
        client.remove("odd").unwrap();
    }
    // On what was unpacked before, the next layer is the store's, with everything below it.
    let answer = client.create("Prepare", "two", &chains[0], wanted(&chains[1]));
    assert_eq!(code(answer), Code::AlreadyExists);
    let view = mount(&sandbox, &client.view("v", &chains[1]).unwrap());
    assert_eq!(view.sh("cat data/old; ls -d f* 2>/dev/null || true"), "old");
    drop(view);
    // The same chain on another parent: of a namespace that has unpacked nothing.
    let answer = client.create("Prepare", "one", "", wanted(&chains[0]));
    assert_eq!(code(answer), Code::AlreadyExists);
    let filter = format!("labels.\"{REF}\"=={},parent==\"\"", chains[0]);
    let [other] = &client.names(&[&filter])[..] else {
        panic!("one");
    };
    let answer = client.create("Prepare", "two", other, wanted(&chains[1]));
    assert_eq!(code(answer), Code::AlreadyExists);
    let filter = format!("labels.\"{REF}\"=={},parent==\"{other}\"", chains[1]);
    assert_eq!(client.names(&[&filter]).len(), 1);
    drop(running);
    m.unmount();
}

/// A client that says nothing before it unpacks (`ctr images pull`) has what the store has once it has committed.
#[test]
fn root_layers_that_were_unpacked_all_the_same() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    let client = &running.client;
    let chain = &chains(&app)[0];
    let key = format!("default/1/extract-12-ab {chain}");
    mount(&sandbox, &client.prepare(&key, "").unwrap()).sh("echo what the layer has >f");
    let name = format!("default/2/{chain}");
    client
        .commit_with(&name, &key, labels(&[("x", "y")]))
        .unwrap();
    assert_eq!(client.stat(&name).unwrap().labels, labels(&[("x", "y")]));
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    let view = mount(&sandbox, &client.view("v", &name).unwrap());
    assert_eq!(view.sh("ls bin | head -1"), "busybox\n");
    drop((view, running));
    m.unmount();
}

/// Layers that are not here, of an image that the labels name: mica pulls it, once, and says that they exist.
#[test]
fn net_root_layers_are_pulled() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Registries::Plain);
    let app = image("app:1");
    let name = registry.name("team/app:1");
    sandbox.load(&app);
    sandbox.mica(["tag", "app:1", &name]).ok();
    sandbox.mica(["push", "-q", &name]).ok();
    sandbox.mica(["rmi", "app:1", &name]).ok();
    let m = sandbox.mount();
    let running = start(&sandbox);
    let more = labels(&[("containerd.io/snapshot/cri.image-ref", &name)]);
    assert_eq!(unpack(&running, &app, &more), [true; 3]);
    assert!(
        m.path(format!("images/{}/team/app/1", registry.host()))
            .is_dir()
    );
    let log = registry.log();
    let fetched = log
        .lines()
        .filter(|l| l.contains("GET") && l.contains("/blobs/"));
    // The config and each layer, once.
    assert!(fetched.count() <= 4 * 2, "{log}");
    let users = sandbox.mica(["users"]).ok().stdout();
    assert!(users.contains("containerd snapshot"), "{users}");
    drop(running);
    m.unmount();
}

/// What docker's `daemon.json` says of registries holds for the snapshotter as for every verb, and from when it is written.
#[test]
fn regression_net_root_layers_are_pulled_as_daemon_json_says() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Registries::Tls);
    let app = image("app:1");
    let name = registry.name("library/app:1");
    sandbox.load(&app);
    sandbox.mica(["tag", "app:1", &name]).ok();
    let insecure = ["--insecure-registry", &registry.host()];
    let mut push = vec!["push", "-q"];
    push.extend(insecure);
    push.push(&name);
    sandbox.mica(push).ok();
    let m = sandbox.mount();
    let running = start(&sandbox);
    let host = registry.host();
    let file = sandbox.mkdir(".config/docker").join("daemon.json");
    for (image, text) in [
        (
            name.as_str(),
            format!(r#"{{"insecure-registries": ["{host}"]}}"#),
        ),
        (
            "docker.io/library/app:1",
            format!(
                r#"{{"insecure-registries": ["{host}"], "registry-mirrors": ["https://{host}"]}}"#
            ),
        ),
    ] {
        sandbox.mica(["rmi", "-f", &app.id()]).ok();
        fs::write(&file, text).unwrap();
        let more = labels(&[("containerd.io/snapshot/cri.image-ref", image)]);
        assert_eq!(unpack(&running, &app, &more), [true; 3], "{image}");
        sandbox.mica(["users", image]).ok();
        for chain in chains(&app).iter().rev() {
            running.client.remove(chain).unwrap();
        }
    }
    drop(running);
    m.unmount();
}

/// A registry that has not got it, that lies, or that is not there: the client is told to fetch for itself.
#[test]
fn net_root_layers_that_cannot_be_pulled() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Registries::Plain);
    let (app, other) = (image("app:1"), base("other:1"));
    let name = registry.name("team/app:1");
    sandbox.load(&other);
    sandbox.mica(["tag", "other:1", &name]).ok();
    sandbox.mica(["push", "-q", &name]).ok();
    let m = sandbox.mount();
    let running = start(&sandbox);
    let missing = registry.name("team/none:1");
    let manifest = digest(b"no such manifest");
    for (n, image, digest) in [
        // The tag means another image by now, and the manifest is not there.
        ("1", name.as_str(), manifest.as_str()),
        ("2", &missing, ""),
        ("3", "rubbish//::", "rubbish"),
        ("4", "", ""),
    ] {
        let mut labels = wanted(&chains(&app)[0]);
        labels.insert("containerd.io/snapshot/cri.image-ref".into(), image.into());
        labels.insert(
            "containerd.io/snapshot/cri.manifest-digest".into(),
            digest.into(),
        );
        let mounts = running.client.create("Prepare", n, "", labels).unwrap();
        assert_eq!(mounts[0].r#type, "bind", "{image}");
    }
    drop(running);
    m.unmount();
}

/// Makes a blob of a registry another than its name says, or what it was again.
fn spoil(sandbox: &Sandbox, registry: &Registry, digest: &str) {
    let hex = &digest[7..];
    let blobs = format!(
        "registry-{}/data/docker/registry/v2/blobs/sha256",
        registry.port
    );
    let data = sandbox.path(blobs).join(&hex[..2]).join(hex).join("data");
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(data, bytes).unwrap();
}

/// A registry that lies, and one that is gone: nothing of it comes into the store, and the client is told to fetch for itself. When it
/// says the truth again, it is pulled.
#[test]
fn net_root_layers_of_a_registry_that_lies() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Registries::Plain);
    let app = image("app:1");
    let name = crate::node::pushed(&sandbox, &registry, &app, "team/app:1");
    let layers = crate::node::blobs(&sandbox, &name);
    let m = sandbox.mount();
    let more = labels(&[("containerd.io/snapshot/cri.image-ref", &name)]);
    let key = format!("default/0/extract-1-x {}", chains(&app)[0]);
    let refused = |said: &str| {
        let running = start(&sandbox);
        assert_eq!(unpack(&running, &app, &more), [false], "{said}");
        running.client.remove(&key).unwrap();
        drop(running);
        let log = fs::read_to_string(sandbox.path("snapshotter.log")).unwrap();
        assert!(
            log.lines()
                .any(|line| line.contains(&name) && line.contains(said)),
            "{log}"
        );
        assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
        sandbox.mica(["check"]).ok();
    };
    spoil(&sandbox, &registry, &layers[2]);
    refused(&layers[2]);
    spoil(&sandbox, &registry, &layers[2]);
    let running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &more), [true; 3]);
    for chain in chains(&app).iter().rev() {
        running.client.remove(chain).unwrap();
    }
    drop(running);
    sandbox.mica(["rmi", &name]).ok();
    drop(registry);
    refused("refused");
    m.unmount();
}

/// Without a mount of the store nothing of it can be mounted; that is said, and nothing is made.
#[test]
fn root_layers_without_a_mount() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let top = &chains(&app)[2];
    let refused = client.prepare("web", top).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("mica mount"), "{refused}");
    assert_eq!(code(client.stat("web")), Code::NotFound);
    let m = sandbox.mount();
    client.prepare("web", top).unwrap();
    m.unmount();
    assert_eq!(code(client.mounts("web")), Code::Unavailable);
    // One that M is mounted at which containerd cannot be given.
    let m = sandbox.mount_on(&sandbox.mkdir("co:lon"), &[]);
    assert_eq!(code(client.mounts("web")), Code::Unavailable);
    m.unmount();
    let m = sandbox.mount();
    let mounted = mount(&sandbox, &client.mounts("web").unwrap());
    assert_eq!(mounted.sh("cat data/old"), "new");
    drop((mounted, running));
    m.unmount();
}

fn shift(first: u32) -> Labels {
    let ids = format!("0:{first}:65536");
    labels(&[
        ("containerd.io/snapshot/uidmapping", &ids),
        ("containerd.io/snapshot/gidmapping", &ids),
    ])
}

/// How many trees are mounted with other owners.
pub fn shifted_mounts(sandbox: &Sandbox) -> usize {
    let points = sandbox
        .sh("cut -d' ' -f5 /proc/self/mountinfo")
        .ok()
        .stdout();
    let ours = sandbox.path("snapshotter.ids").display().to_string();
    points
        .lines()
        .filter(|line| line.starts_with(&ours))
        .count()
}

/// For a container in a user namespace the same layers have other owners, and nothing is copied: the store's, what was unpacked
/// for containerd alone, and nothing at all.
#[test]
fn root_layers_with_other_owners() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let mut running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let top = chains(&app)[2].clone();
    let look = "stat -c %u:%g . data data/old bin/busybox; cat data/old; ls cache";
    let expected = "100000:100000\n100007:100008\n100000:100000\n100000:100000\nnewb\n";
    let create = |running: &Running, method: &str, key: &str, parent: &str, first: u32| {
        let mounts = running.client.create(method, key, parent, shift(first));
        mount(&sandbox, &mounts.unwrap())
    };
    let view = create(&running, "View", "view", &top, 100_000);
    assert_eq!(view.sh(look), expected);
    drop(view);
    let web = create(&running, "Prepare", "web", &top, 100_000);
    assert_eq!(web.sh(look), expected);
    // As root of the namespace: in its own directory, and on files that come from below.
    let as_root = "setpriv --reuid=100000 --regid=100000 --clear-groups";
    web.sh(&format!(
        "{as_root} sh -c 'mkdir mine; echo more >>bin/busybox'; setpriv --reuid=100007 --regid=100008 --clear-groups rm data/old"
    ));
    assert_eq!(
        web.sh("stat -c %u:%g mine bin/busybox; ls data"),
        "100000:100000\n100000:100000\n"
    );
    let upper = "find store/snapshots/*/fs -name busybox | xargs stat -c %u:%g";
    assert_eq!(sandbox.sh(upper).ok().stdout(), "100000:100000\n");
    // Others at the same time, and nobody at all.
    let other = create(&running, "Prepare", "other", &top, 300_000);
    assert_eq!(
        other.sh("stat -c %u:%g . data"),
        "300000:300000\n300007:300008\n"
    );
    let plain = mount(&sandbox, &running.client.prepare("plain", &top).unwrap());
    assert_eq!(plain.sh("stat -c %u:%g . data"), "0:0\n7:8\n");
    let empty = create(&running, "Prepare", "empty", "", 100_000);
    assert_eq!(empty.sh("stat -c %u:%g ."), "100000:100000\n");
    drop((other, plain, empty));
    // What is private to containerd.
    let own = mount(&sandbox, &running.client.prepare("own-key", &top).unwrap());
    own.sh("echo own >own; chown 5:6 own");
    drop(own);
    running.client.commit("own", "own-key").unwrap();
    let on_own = create(&running, "Prepare", "on-own", "own", 100_000);
    assert_eq!(on_own.sh(look), expected);
    assert_eq!(
        on_own.sh("stat -c %u:%g own; cat own"),
        "100005:100006\nown\n"
    );
    drop(on_own);
    // containerd's own copy with other owners, where it does not know that it need not make one.
    let copy = mount(&sandbox, &running.client.prepare("copy", &top).unwrap());
    copy.sh("find . | while read f; do chown -h $(($(stat -c %u $f) + 100000)):$(($(stat -c %g $f) + 100000)) $f; done");
    drop(copy);
    running.client.commit("copied", "copy").unwrap();
    let on_copy = create(&running, "Prepare", "on-copy", "copied", 100_000);
    assert_eq!(on_copy.sh(look), expected);
    drop(on_copy);

    // Nobody else's to look into, though it is mounted where every process could go.
    let ids = fs::metadata(sandbox.path("snapshotter.ids")).unwrap();
    assert_eq!(ids.permissions().mode() & 0o777, 0o700);

    // Killed, and another mount of the store: what runs goes on, and what is mounted anew is right.
    assert!(shifted_mounts(&sandbox) > 0);
    running.kill();
    assert_eq!(web.sh("cat cache/b"), "b");
    let running = start(&sandbox);
    assert_eq!(shifted_mounts(&sandbox), 0, "taken away at the start");
    let again = || mount(&sandbox, &running.client.mounts("on-own").unwrap());
    assert_eq!(again().sh(look), expected);
    drop(web);
    m.unmount();
    let m = sandbox.mount();
    assert_eq!(again().sh(look), expected);
    for key in ["view", "web", "other", "empty", "on-copy"] {
        running.client.remove(key).unwrap();
    }
    assert_eq!(shifted_mounts(&sandbox), 2);
    running.client.remove("on-own").unwrap();
    assert_eq!(shifted_mounts(&sandbox), 0);
    running
        .client
        .create("Prepare", "last", &top, shift(100_000))
        .unwrap();
    assert_eq!(shifted_mounts(&sandbox), 1);
    running.end();
    assert_eq!(shifted_mounts(&sandbox), 0);
    m.unmount();
}

/// Ids that are none are refused, and nothing is made.
#[test]
fn root_layers_with_owners_that_cannot_be() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    assert_eq!(unpack(&running, &app, &Labels::new()), [true; 3]);
    let top = &chains(&app)[2];
    let refused = |uids: &str, gids: &str| {
        let mut labels = labels(&[("containerd.io/snapshot/uidmapping", uids)]);
        if !gids.is_empty() {
            labels.insert("containerd.io/snapshot/gidmapping".into(), gids.into());
        }
        code(running.client.create("Prepare", "web", top, labels))
    };
    let good = "0:100000:65536";
    for bad in [
        "",
        "0",
        "0:1",
        "0:1:0",
        "0:1:1:1",
        "a:b:c",
        "0:100000:65536,",
        "-1:0:1",
        "0:4294967295:2",
        "4294967295:0:2",
        " 0:1:1",
        "0:99999999999:1",
    ] {
        assert_eq!(refused(bad, good), Code::InvalidArgument, "{bad:?}");
        assert_eq!(
            refused(good, if bad.is_empty() { "x" } else { bad }),
            Code::InvalidArgument
        );
    }
    assert_eq!(refused(good, ""), Code::InvalidArgument);
    // The kernel's to refuse.
    assert_eq!(
        refused("0:1000:10,5:2000:10", good),
        Code::FailedPrecondition
    );
    assert_eq!(code(running.client.stat("web")), Code::NotFound);
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    assert_eq!(shifted_mounts(&sandbox), 0);
    drop(running);
    m.unmount();
}
