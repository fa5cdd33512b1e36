//! A systemd of the test's own: process 1 of a pid namespace, in a copy of this system that forgets.
//!
//! It starts a target with our units, an fstab, and a service in docker's place; what a script sees in there is compared. Everything
//! that concerns the machine and not the units is masked, and its control groups are a branch of their own.

use super::system::installed;
use super::*;
use crate::common::tier;

/// The system: what is read comes from this one's root, what is written is lost.
const OUTSIDE: &str = r#"
here=$PWD; root=$here/s/r
mkdir s; mount -t tmpfs tmpfs s; mkdir s/u s/w s/r
mount -t overlay overlay -o lowerdir=/,upperdir=s/u,workdir=s/w s/r
groups=/sys/fs/cgroup; inside=$root/sys/fs/cgroup
if [ -d $groups/systemd ]; then groups=$groups/systemd; inside=$inside/systemd; fi
branch=$groups/mica-test-$$; mkdir $branch
trap 'find $branch -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
mount --bind -o ro /sys $root/sys
mount -t tmpfs tmpfs $root/sys/fs/cgroup; mkdir -p $inside; mount --bind $branch $inside
for at in run mnt var/lib dev; do mount -t tmpfs -o mode=755 tmpfs $root/$at; done
mkdir -p $root/dev/pts $root/dev/shm $root$here; mount --bind $here $root$here
while read name major minor; do mknod -m 666 $root/dev/$name c $major $minor; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
END
etc=$root/etc/systemd/system; rm -rf $etc/*
for unit in sysctl.service udevd.service udev-trigger.service udevd-control.socket udevd-kernel.socket modules-load.service \
	remount-fs.service tmpfiles-setup.service tmpfiles-setup-dev.service random-seed.service journald.service journald.socket \
	journald-dev-log.socket journald-audit.socket journal-flush.service update-utmp.service binfmt.service sysusers.service \
	machine-id-commit.service firstboot.service hwdb-update.service pcrphase.service; do ln -s /dev/null $etc/systemd-$unit; done
for unit in kmod-static-nodes.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
	sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount; do
	ln -s /dev/null $etc/$unit; done
cp root/units/system/* $etc/; cp root/sbin/* $root/usr/sbin/
: >$root/etc/fstab
printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "ls /mnt/mica/images >%s/docker"\n' $here >$etc/docker.service
printf '[Unit]\nWants=mica@mnt-mica.service docker.service inside.service\n' >$etc/t.target
printf '[Unit]\nAfter=docker.service mica@mnt-mica.service\n[Service]\nType=oneshot\nExecStart=/bin/sh %s/inside.sh\n' $here >$etc/inside.service
printf '[Manager]\nDefaultEnvironment=MICA_STORE=%s/store\n' $here >$root/etc/systemd/system.conf
sh -c "echo \$\$ >$branch/cgroup.procs; exec timeout -s KILL 80 unshare --kill-child=KILL -C -p -f -m --propagation private sh -c \
	'mount -t proc proc $root/proc; exec chroot $root /usr/bin/env -i container=mica PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=t.target --log-target=console --show-status=0'" >console 2>&1 && code=0 || code=$?
cat seen; echo ended $code
"#;

/// What is done in there. At last it is shut down, with M mounted.
const INSIDE: &str = r#"
cd $(dirname $0); exec >seen 2>&1
is() { systemctl is-active $1; }
there() { if [ -e /mnt/mica/images/app/1/data/old ]; then echo images; else echo none; fi; }
echo docker saw $(cat docker)
is mica@mnt-mica; there
systemctl stop mica@mnt-mica; is mica@mnt-mica; there
echo "$PWD/store /mnt/mica fuse.mica _netdev,nofail 0 0" >/etc/fstab
systemctl daemon-reload
systemctl start mnt-mica.mount; is mnt-mica.mount; there
systemctl stop mnt-mica.mount; is mnt-mica.mount; there
systemctl start mica-volumes.socket; is mica-volumes.service
python3 - <<'END'
import socket
s = socket.socket(socket.AF_UNIX); s.connect('/run/docker/plugins/mica.sock')
s.sendall(b'POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 0\r\n\r\n')
print(s.recv(4096).split(b'\r\n\r\n')[-1].decode())
END
is mica-volumes.service
systemctl start mnt-mica.mount; there
systemctl exit --no-block
"#;

/// At boot M is there before docker; units, a line of fstab and the socket do what they say under a systemd that runs, and a shutdown
/// with M mounted ends by itself.
#[test]
fn root_regression_system_under_a_real_systemd() {
    let sandbox = Sandbox::new();
    tier::root();
    sandbox.load(&image("app:1"));
    installed(&sandbox);
    fs::write(sandbox.path("inside.sh"), INSIDE).unwrap();
    let seen = sandbox.sh(OUTSIDE).ok().stdout();
    let console = fs::read_to_string(sandbox.path("console")).unwrap_or_default();
    let wanted = "docker saw app\nactive\nimages\ninactive\nnone\nactive\nimages\ninactive\nnone\n\
        inactive\n{\"Implements\":[\"VolumeDriver\"]}\nactive\nimages\nended 0\n";
    assert_eq!(seen, wanted, "{console}");
}

/// A mount inside M is gone when its `umount` returns, and back in a while: systemd takes the inner ones first.
#[test]
fn root_regression_system_umount_of_what_is_inside_returns() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    let is_mounted = || {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.contains(&format!(" {} ", volumes.display()))
    };
    // On a machine that stands still for half a second it is back already.
    let gone = (0..5).any(|_| {
        sandbox.mica(["umount".as_ref(), volumes.as_os_str()]).ok();
        let gone = !is_mounted();
        let end = Instant::now() + Duration::from_secs(30);
        while !is_mounted() {
            assert!(Instant::now() < end, "the volumes are not back");
            std::thread::sleep(Duration::from_millis(20));
        }
        gone
    });
    assert!(gone);
    mount.unmount();
}
