//! mount(8), fstab, systemd's units, and the Debian package.

use super::*;
use crate::common::tier;

/// Everything that is installed, below the sandbox, with the program at its real place.
pub(super) fn installed(sandbox: &Sandbox) -> PathBuf {
    let root = sandbox.mkdir("root");
    let bin = sandbox.path("root/bin");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/install-files");
    let mut command = Command::new(source);
    command.arg(env!("CARGO_BIN_EXE_mica")).arg(&bin).arg("");
    command.args(["share", "units", "sbin"].map(|dir| root.join(dir)));
    sandbox.run(command).ok();
    root
}

/// The helpers where mount(8) looks, for this test alone.
pub(super) fn helpers(sandbox: &Sandbox) {
    let root = installed(sandbox);
    sandbox
        .sh(&format!(
            "mkdir up && mount -t tmpfs tmpfs up && mkdir up/u up/w && cp {}/sbin/* up/u/ && \
             mount -t overlay -o lowerdir=/usr/sbin,upperdir=up/u,workdir=up/w overlay /usr/sbin",
            root.display()
        ))
        .ok();
}

/// `mount -t fuse.mica`, a line of fstab, and a plain `umount`, which takes volumes and stores along.
#[test]
fn root_system_mount_8_and_fstab() {
    let sandbox = Sandbox::new();
    tier::root();
    sandbox.load(&image("app:1"));
    helpers(&sandbox);
    sandbox.mkdir("m");
    let store = sandbox.store();
    let store = store.display();
    let options = "nofail,x-systemd.requires=network.target,_netdev,nonsense";
    let refused = sandbox
        .sh(&format!("mount -t fuse.mica {store} m -o {options}"))
        .fails();
    assert!(
        refused.stderr().contains("nonsense"),
        "{}",
        refused.describe()
    );
    let options = "defaults,nofail,x-systemd.requires=network.target,_netdev,rm=off";
    sandbox.sh(&format!("mount -t fuse.mica {store} m -o {options} && test -d m/images/app/1 && test -d m/volumes")).ok();
    sandbox
        .sh("! rmdir m/images/app/1 2>&1 && umount m && ! mountpoint -q m")
        .ok();
    let line = format!(
        "{store} {} fuse.mica _netdev,nofail 0 0\n",
        sandbox.path("m").display()
    );
    fs::write(sandbox.path("fstab"), line).unwrap();
    sandbox.sh("mount --bind fstab /etc/fstab && mount m && cat m/images/app/1/data/old && mount -a && umount m").ok();
    // As at a shutdown.
    sandbox
        .sh("mount m && umount -a -t fuse.mica && ! mountpoint -q m")
        .ok();
    let broken = sandbox.sh("mount -t fuse.mica /etc m").fails();
    assert!(broken.stderr().contains("store"), "{}", broken.describe());
}

/// The units are right by systemd's own judgement, and begin before the engines; the program that is installed has no symbols.
#[test]
fn root_system_units_verify() {
    let sandbox = Sandbox::new();
    let root = installed(&sandbox);
    let units = root.join("units");
    for unit in ["mica@.service", "mica-volumes.socket"] {
        let text = fs::read_to_string(units.join("system").join(unit)).unwrap();
        let before = text.lines().find_map(|l| l.strip_prefix("Before="));
        assert_eq!(before, Some("docker.service podman.service"), "{unit}");
    }
    let symbols = sandbox.sh("nm root/bin/mica").ok().stderr();
    assert!(symbols.contains("no symbols"), "{symbols}");
    for unit in ["system/mica-volumes.socket", "system/mica-volumes.service"] {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(units.join(unit));
        command.env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:", units.join("system").display()),
        );
        let run = sandbox.run(command).ok();
        assert!(!run.stderr().contains("mica"), "{}", run.describe());
    }
    for (dir, user) in [("system", false), ("user", true)] {
        let instance = units.join(dir).join("mica@mnt-mica.service");
        std::os::unix::fs::symlink("mica@.service", &instance).unwrap();
        let mut command = Command::new("systemd-analyze");
        command
            .args(user.then_some("--user"))
            .args(["verify", "--man=no"])
            .arg(&instance);
        command.env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:", units.join(dir).display()),
        );
        command.env("XDG_RUNTIME_DIR", sandbox.dir());
        let run = sandbox.run(command).ok();
        assert!(!run.stderr().contains("mica@"), "{}", run.describe());
    }
    // Type=notify: it says when it is ready.
    let script = "python3 - \"$@\" <<'END'\nimport os, socket, subprocess, sys\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('notify'); s.settimeout(30)\n\
        os.environ['NOTIFY_SOCKET'] = os.path.abspath('notify')\n\
        p = subprocess.Popen(sys.argv[1:])\n\
        print(s.recv(4096).decode()); subprocess.run([sys.argv[1], 'umount', 'm'], check=True); p.wait(30)\nEND";
    fs::create_dir(sandbox.path("m")).unwrap();
    tier::root();
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_mica"));
    command
        .args(["mount", "--foreground", "m"])
        .env("MICA_STORE", sandbox.store())
        .current_dir(sandbox.dir());
    let said = sandbox.run(command).ok().stdout();
    assert!(said.contains("READY=1"), "{said}");
}

/// The package in a Debian that knows nothing of mica: installed, used, replaced under a live mount, purged.
#[test]
fn root_system_package_in_a_debian() {
    let sandbox = Sandbox::new();
    tier::root();
    sandbox.load_file(&crate::common::real::docker_archive("small"));
    image("app:1").docker_archive(&sandbox.path("app.tar"));
    let mount = sandbox.mount();
    let debian = mount.image("localhost/mica-test/small");
    let deb = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/deb");
    let mut command = Command::new(deb);
    command.arg(env!("CARGO_BIN_EXE_mica")).arg(sandbox.dir());
    sandbox.run(command).ok();
    sandbox
        .sh(&format!(
            "mkdir up r && mount -t tmpfs tmpfs up && mkdir up/u up/w && \
         mount -t overlay -o lowerdir={},upperdir=up/u,workdir=up/w overlay r && \
         mount -t proc proc r/proc && mount --rbind /dev r/dev && cp mica_*.deb app.tar r/root/",
            debian.display()
        ))
        .ok();
    // Without --force-depends it insists on fuse3, as it should; root does without.
    let script = "set -eu; cd /root; export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive\n\
        ! dpkg -i mica_*.deb >/dev/null 2>&1; dpkg --force-depends -i mica_*.deb >/dev/null 2>&1\n\
        mica load -qi app.tar; mkdir -p /mnt/m; mount -t fuse.mica /var/lib/mica /mnt/m -o _netdev; cat /mnt/m/images/app/1/data/old; echo\n\
        test -e /usr/lib/systemd/system/mica@.service; test -e /usr/share/man/man1/mica.1.gz; test $(stat -c %s /usr/bin/mica) -lt 60000000\n\
        exec 3</mnt/m/images/app/1/data/old; dpkg --force-depends -i mica_*.deb >/dev/null 2>&1; cat <&3; echo; ls /mnt/m/images/app\n\
        exec 3<&-; umount /mnt/m; dpkg --purge mica </dev/null 2>&1 | grep -c 'left in place'; test -d /var/lib/mica; test ! -e /usr/bin/mica";
    let mut command = Command::new("chroot");
    command.arg(sandbox.path("r")).args(["sh", "-c", script]);
    let run = sandbox.run(command).ok();
    assert_eq!(run.stdout().trim(), "Loaded image: app:1\nnew\nnew\n1\n1");
}
