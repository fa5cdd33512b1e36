//! The files of `/etc` that every container has of its own, as docker makes them for a container on the host's network.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::containers::ContainerRecord;

/// Their names; they are in the container's directory.
pub(super) const FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// Writes them, unless they are there from an earlier start.
pub(super) fn write(directory: &Path, record: &ContainerRecord) -> io::Result<()> {
    let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
    let mut hosts = fs::read("/etc/hosts").unwrap_or_else(|_| {
        b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_vec()
    });
    if !hosts.ends_with(b"\n") {
        hosts.push(b'\n');
    }
    for line in &record.extra_hosts {
        hosts.extend_from_slice(format!("{line}\n").as_bytes());
    }
    hosts.extend_from_slice(format!("127.0.1.1\t{}\n", record.hostname).as_bytes());
    let hostname = format!("{}\n", record.hostname).into_bytes();
    for (name, content) in FILES.into_iter().zip([resolv, hosts, hostname]) {
        let path = directory.join(name);
        if !path.try_exists()? {
            fs::write(&path, content)?;
            // Whatever our umask is.
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::chmodat(rustix::fs::CWD, &path, mode, rustix::fs::AtFlags::empty())?;
        }
    }
    Ok(())
}
