//! Networks of their own for nodes on this machine: a registry's, and one for each node with a wire to it.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::common::sandbox::Sandbox;

/// Where the registry is, from everywhere.
pub const REGISTRY: &str = "10.77.0.1";

/// A network namespace. It ends with the value and the processes in it.
pub struct Network(File);

fn here() -> File {
    File::open("/proc/thread-self/ns/net").expect("a network")
}

fn enter(network: &File) {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("this test needs CAP_SYS_ADMIN for networks of its own");
}

impl Network {
    /// A new one, with a loopback device.
    fn new(sandbox: &Sandbox) -> Network {
        let back = here();
        // SAFETY: only the network becomes this thread's own; no memory and no descriptor is concerned.
        #[allow(unsafe_code)]
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        unshared.expect("this test needs CAP_SYS_ADMIN for networks of its own");
        let network = Network(here());
        sandbox.sh("ip link set lo up").ok();
        enter(&back);
        network
    }

    /// The registry's.
    pub fn of_registry(sandbox: &Sandbox) -> Network {
        let network = Network::new(sandbox);
        network.at(|| {
            sandbox
                .sh(&format!("ip address add {REGISTRY}/32 dev lo"))
                .ok()
        });
        network
    }

    /// One of a node, 10.77.<number>.2, wired to this one and to nothing else.
    pub fn wired(&self, sandbox: &Sandbox, number: u8) -> Network {
        let node = Network::new(sandbox);
        let there = format!("/proc/{}/fd/{}", std::process::id(), node.0.as_raw_fd());
        let net = format!("10.77.{number}");
        self.at(|| {
            sandbox
                .sh(&format!(
                    "ip link add n{number} type veth peer name eth0 netns {there}; \
                     ip address add {net}.1/24 dev n{number}; ip link set n{number} up"
                ))
                .ok()
        });
        node.at(|| {
            sandbox
                .sh(&format!(
                    "ip address add {net}.2/24 dev eth0; ip link set eth0 up; ip route add default via {net}.1"
                ))
                .ok()
        });
        node
    }

    /// Does something there: whatever it starts stays there.
    pub fn at<T>(&self, work: impl FnOnce() -> T) -> T {
        let back = here();
        enter(&self.0);
        let done = work();
        enter(&back);
        done
    }
}
