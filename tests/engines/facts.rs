//! What engines see of single files, ids and documents.

use super::*;

/// `linux/capability.h`, revision 2: effective and permitted, by number.
fn capability(number: u32) -> Vec<u8> {
    let words = [0x0200_0001u32, 1 << number, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `CAP_DAC_OVERRIDE`, which podman lets containers have.
const DAC_OVERRIDE: u32 = 1;

/// An image with a program that may read whatever it likes, and one that may not.
pub(super) fn able() -> ImageBuilder {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    image("app:1").layer(|l| {
        l.file(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        )
        .dir("as-it-came", 0o755)
        .file("as-it-came/cat", &busybox)
        .mode(0o755)
        .xattr("security.capability", capability(DAC_OVERRIDE))
        .dir("copied-up", 0o755)
        .file("copied-up/cat", &busybox)
        .mode(0o755)
        .xattr("security.capability", capability(DAC_OVERRIDE))
    })
}

/// Capabilities of a file take effect in a container, from the image and after the file was copied up, with mapped ids and without.
#[test]
fn root_engines_capabilities_of_files_take_effect() {
    let sandbox = Sandbox::new();
    sandbox.load(&able());
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let script = "echo secret >/secret; chmod 600 /secret; chmod 755 /copied-up/cat; \
        for cat in /bin/cat /as-it-came/cat /copied-up/cat; do \
        su -s /bin/sh user -c \"$cat /secret 2>/dev/null || echo refused\"; done";
    for map in ["", "--uidmap 0:100000:65536 --gidmap 0:200000:65536"] {
        let seen = engines.container(map, "app:1", script);
        assert_eq!(seen, "refused\nsecret\nsecret\n", "{map:?}");
    }
    mount.unmount();
}

/// Ids that a user namespace does not have are nobody's there, and a file of theirs cannot be changed into somebody else's.
#[test]
fn root_engines_ids_that_a_namespace_does_not_have() {
    let sandbox = Sandbox::new();
    let last = u64::from(u32::MAX - 1);
    sandbox.load(&image("app:1").layer(|l| {
        l.file("beyond", "beyond")
            .owner(70_000, 70_000)
            .file("last", "last")
            .owner(last, last)
            .file("in", "in")
            .owner(65_535, 65_535)
    }));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let script = "cd /; stat -c %u:%g in beyond last; cat in beyond last";
    let as_they_are = engines.container("", "app:1", script);
    assert_eq!(
        as_they_are,
        format!("65535:65535\n70000:70000\n{last}:{last}\ninbeyondlast")
    );
    let map = "--uidmap 0:100000:65536 --gidmap 0:200000:65536";
    let mapped = engines.container(map, "app:1", script);
    assert_eq!(
        mapped,
        "65535:65535\n65534:65534\n65534:65534\ninbeyondlast"
    );
    let script = "cd /; (echo more >>beyond) 2>/dev/null || echo refused; (chown 0 last) 2>/dev/null || echo refused; \
        echo more >>in; cat in beyond last; stat -c %u:%g in beyond last";
    let changed = engines.container(map, "app:1", script);
    assert_eq!(
        changed,
        "refused\nrefused\ninmore\nbeyondlast65535:65535\n65534:65534\n65534:65534\n"
    );
    mount.unmount();
}

/// `M/stores` can be mounted with mapped ids by whoever asks the kernel; M itself cannot, which has to know its callers.
#[test]
fn root_engines_an_idmapped_mount_by_hand() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    sandbox.mkdir("mapped");
    // Debian 12's mount(8) has no `--map-users` yet: its three calls. open_tree, mount_setattr, move_mount.
    let script = "import ctypes, os, struct, subprocess, sys\n\
        source, target = (os.fsencode(a) for a in sys.argv[1:])\n\
        child = subprocess.Popen(['unshare', '-U', 'sleep', '60'])\n\
        while os.readlink('/proc/%d/ns/user' % child.pid) == os.readlink('/proc/self/ns/user'): pass\n\
        for kind, first in (('gid', 200000), ('uid', 100000)):\n  open('/proc/%d/%s_map' % (child.pid, kind), 'w').write('0 %d 65536' % first)\n\
        userns = os.open('/proc/%d/ns/user' % child.pid, os.O_RDONLY)\n\
        child.kill(); child.wait()\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        def call(*a):\n  r = c.syscall(*a)\n  if r < 0: sys.exit(os.strerror(ctypes.get_errno()))\n  return r\n\
        tree = call(428, -100, source, 1 | os.O_CLOEXEC)\n\
        call(442, tree, b'', 0x1000, struct.pack('QQQQ', 0x100000, 0, 0, userns), 32)\n\
        call(429, tree, b'', -100, target, 4)\n";
    let mapped = |source: &Path| {
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(source);
        command.arg(sandbox.path("mapped"));
        sandbox.run(command)
    };
    let refused = mapped(&mount.point).fails();
    assert_eq!(refused.stderr(), "Invalid argument\n");
    mapped(&mount.path("stores")).ok();
    let seen = sandbox
        .sh("cd mapped/containers/overlay; stat -c '%u:%g %n' */diff/data/old */diff/data */diff/etc/passwd | sort | uniq | cut -d' ' -f1")
        .ok()
        .stdout();
    let (root, other) = ("100000:200000\n", "100007:200008\n");
    assert_eq!(seen, root.repeat(3) + &other.repeat(2));
    // Read only, as it is without.
    sandbox.sh("touch mapped/containers/x").fails();
    sandbox.umount("mapped");
    mount.unmount();
}

/// Any overlay on layers of the store counts, in whatever mount namespace and whoever has mounted it.
#[test]
fn root_regression_engines_an_overlay_in_another_namespace_is_a_use() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let script = "mount -t tmpfs tmpfs \"$2\"; cd \"$1\"; mount -t overlay by-hand -o \
        lowerdir=$(echo */diff | tr ' ' :) \"$2\"; echo ready; exec sleep 60";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-euc", script, "sh"]);
    command.arg(mount.path("stores/containers/overlay"));
    command.arg(sandbox.mkdir("merged")).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    let refused = sandbox.mica(["rmi", "app:1"]).fails();
    let who = sandbox.mica(["users", "app:1"]).ok().stdout();
    let busy = fs::remove_dir(mount.image("app/1"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        refused.stderr().contains("overlay"),
        "{}",
        refused.describe()
    );
    assert!(who.contains("overlay"), "{who}");
    let kind = busy.unwrap_err().kind();
    assert_eq!(kind, std::io::ErrorKind::ResourceBusy);
    sandbox.mica(["rmi", "app:1"]).ok();
    mount.unmount();
}

/// `skopeo inspect` of the store, and `podman tag`, which gives podman an image of its own on layers of the store.
#[test]
fn root_engines_inspect_and_tag() {
    let sandbox = Sandbox::new();
    let made = image("app:1");
    sandbox.load(&made);
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let told = engines.shown("skopeo inspect containers-storage:docker.io/library/app:1");
    assert_eq!(json(&told)["Layers"].as_array().unwrap().len(), 3);
    let config = "skopeo inspect --config --raw containers-storage:docker.io/library/app:1";
    assert_eq!(digest(engines.shown(config).as_bytes()), made.id());
    engines.shown("podman tag app:1 localhost/mine:1");
    assert_eq!(engines.container("", "mine:1", "cat /data/old"), "new");
    // The store is as it was.
    let names = sandbox.mica(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(names.ok().stdout(), "app:1\n");
    let own = fs::read_to_string(sandbox.path("engine/overlay-layers/layers.json"));
    assert_eq!(json(&own.unwrap_or("[]".to_owned())), json("[]"));
    mount.unmount();
}

/// `mica users` names what an engine keeps on an image while nothing of it runs: stopped containers, and its own images.
#[test]
fn root_regression_engines_users_of_what_does_not_run() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let mut command = sandbox.command();
    command.env("CONTAINERS_STORAGE_CONF", &engines.conf);
    command.args(["system", "connect", "podman"]);
    sandbox.run(command).ok();
    engines.shown("podman create --name idle app:1 sh");
    fs::write(
        sandbox.path("Containerfile"),
        "FROM app:1\nCOPY Containerfile /\n",
    )
    .unwrap();
    engines.shown("podman build -q --isolation chroot --network host --pull-never -t built:1 .");
    for (words, file) in [
        (&["users", "app:1"][..], "podman container idle"),
        (&["users"], "podman image localhost/built:1"),
        (&["users", "app:1"], "podman image localhost/built:1"),
    ] {
        let users = sandbox.mica(words).ok().stdout();
        assert!(users.contains(file), "{users}");
    }
    let info = fs::read_to_string(mount.path("info/images/app/1/users")).unwrap();
    assert!(info.contains("podman container idle"), "{info}");
    engines.shown("podman rm idle");
    engines.shown("podman rmi built:1");
    let users = sandbox.mica(["users", "app:1"]).ok().stdout();
    assert!(!users.contains("podman"), "{users}");
    mount.unmount();
}

/// A config that podman cannot read takes no other image from it; one that only looks odd is there as well.
#[test]
fn root_regression_engines_configs_that_podman_cannot_read() {
    type Change = (&'static str, fn(&mut Value));
    let unread: [Change; 7] = [
        ("created", |c| c["created"] = "yesterday".into()),
        ("history", |c| c["history"][0]["created"] = "x".into()),
        ("cmd", |c| c["config"]["Cmd"] = "/bin/sh".into()),
        ("version", |c| c["docker_version"] = 7.into()),
        ("id", |c| c["ID"] = 7.into()),
        ("container", |c| {
            c["container_config"] = serde_json::json!([])
        }),
        ("features", |c| c["os.features"] = "x".into()),
    ];
    let odd: [Change; 5] = [
        ("null", |c| c["created"] = Value::Null),
        ("zone", |c| {
            c["created"] = "2024-05-06T07:08:09.1+02:00".into()
        }),
        ("labels", |c| {
            c["config"]["Labels"] = serde_json::json!({"a": null})
        }),
        ("unknown", |c| {
            c["unknown"] = serde_json::json!([{"created": 7}])
        }),
        ("empty", |c| c["config"] = Value::Null),
    ];
    let sandbox = Sandbox::new();
    sandbox.load(&image("good:1"));
    for (name, change) in unread.into_iter().chain(odd) {
        let mut made = ImageBuilder::new(&format!("odd:{name}")).layer(|l| l.file("name", name));
        change(&mut made.config);
        sandbox.load(&made);
    }
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let listed = engines.shown("podman images --sort tag --format {{.Tag}}");
    assert_eq!(listed, "1\nempty\nlabels\nnull\nunknown\nzone\n");
    assert_eq!(engines.container("", "good:1", "cat /data/old"), "new");
    // They are M's still.
    assert!(mount.image("odd/created/name").exists());
    mount.unmount();
}
