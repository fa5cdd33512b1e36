//! What docker has and mica has not: why, and what to do instead, in one line.

use crate::ops::container::run::RunError;

/// Flags of `run` and `create` by what they are about.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &[
            "-m",
            "--memory",
            "--memory-swap",
            "--memory-reservation",
            "--memory-swappiness",
            "--kernel-memory",
            "--cpus",
            "-c",
            "--cpu-shares",
            "--cpu-period",
            "--cpu-quota",
            "--cpu-count",
            "--cpu-percent",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--cpuset-cpus",
            "--cpuset-mems",
            "--pids-limit",
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-read-iops",
            "--device-write-bps",
            "--device-write-iops",
            "--io-maxbandwidth",
            "--io-maxiops",
            "--oom-kill-disable",
            "--oom-score-adj",
            "--cgroup-parent",
        ],
        "mica sets no limits on memory, processors and devices: start it in a scope that has them (systemd-run --scope -p MemoryMax=512M mica run ..), or run the same image with podman",
    ),
    (
        &["--device", "--device-cgroup-rule", "--gpus", "--runtime"],
        "containers see no devices of the host: run the same image with podman (podman run --rootfs M/images/NAME/TAG:O)",
    ),
    (
        &[
            "--privileged",
            "--cap-add",
            "--security-opt",
            "--group-add",
            "--sysctl",
        ],
        "containers get no more privileges than they have: run the same image with podman (podman run --rootfs M/images/NAME/TAG:O)",
    ),
    (
        &[
            "--dns",
            "--dns-option",
            "--dns-opt",
            "--dns-search",
            "--ip",
            "--ip6",
            "--link",
            "--link-local-ip",
            "--mac-address",
            "--network-alias",
            "--net-alias",
            "--expose",
            "--domainname",
        ],
        "containers use the host's network, its addresses and its name servers: leave it out",
    ),
    (
        &["--pid", "--ipc", "--uts", "--userns", "--cgroupns"],
        "every container has namespaces of its own, and shares none with the host or another container",
    ),
    (
        &["--log-driver", "--log-opt"],
        "what a container prints is kept in the store, for mica logs: leave it out",
    ),
    (
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-start-period",
            "--health-start-interval",
            "--health-timeout",
            "--no-healthcheck",
        ],
        "nothing watches the health of containers: leave it out, or ask with mica exec",
    ),
    (
        &["-a", "--attach", "--sig-proxy"],
        "without -d all of a container's output comes here: leave it out",
    ),
    (
        &["--stop-timeout"],
        "no container has a time of its own: say it when it is stopped (mica stop -t SECONDS)",
    ),
    (
        &["--disable-content-trust"],
        "there are no signatures to trust, and digests are always verified: leave it out",
    ),
    (
        &[
            "--volume-driver",
            "--storage-opt",
            "--isolation",
            "--annotation",
            "--use-api-socket",
        ],
        "there is no such choice here: leave it out",
    ),
];

/// Verbs, docker's.
const VERBS: &[(&[&str], &str)] = &[
    (
        &[
            "compose", "stack", "service", "swarm", "node", "config", "secret", "deploy",
        ],
        "mica runs single containers: start each with mica run, and keep what belongs together in a script or in systemd units",
    ),
    (
        &["network"],
        "containers use the host's network: there is none to make, and nothing to connect",
    ),
    (
        &["buildx", "bake"],
        "images are built one at a time and without a builder to set up",
    ),
    (
        &["search"],
        "mica asks registries for names only, not for words: look on the registry's own pages, then mica pull",
    ),
    (
        &["stats"],
        "mica keeps no figures of running containers: mica top shows their processes, top and systemd-cgtop the rest",
    ),
    (
        &["update"],
        "mica sets no limits and no restart policy, so there is nothing to change while a container runs",
    ),
    (
        &[
            "plugin",
            "context",
            "checkpoint",
            "trust",
            "manifest",
            "scan",
            "scout",
            "sbom",
            "init",
            "debug",
            "extension",
            "model",
            "mcp",
            "ai",
            "offload",
            "sandbox",
            "desktop",
            "pass",
            "cloud",
            "dvp",
        ],
        "mica has nothing of the kind",
    ),
];

/// Why there is no such verb, if docker has it.
pub(super) fn verb(name: &str) -> Option<&'static str> {
    find(VERBS, name)
}

fn find(table: &[(&[&str], &'static str)], name: &str) -> Option<&'static str> {
    let found = table.iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, why)| *why)
}

/// What to say to a flag that `run` does not know.
pub(super) fn flag(text: &str) -> RunError {
    let long = text.split_once('=').map_or(text, |(name, _)| name);
    // `-m512m`
    let short = text.chars().take(2).collect::<String>();
    let name = match text.starts_with("--") {
        true => long,
        false => short.as_str(),
    };
    RunError::Usage(match find(FLAGS, name) {
        Some(why) => format!("{name}: {why}"),
        None if text.starts_with("--") => format!("unknown flag: {name}; see mica run --help"),
        None => format!("unknown shorthand flag: in {text}; see mica run --help"),
    })
}

/// Refuses every network but the host's, which can be named once.
pub(super) fn network(names: &[String]) -> Result<(), RunError> {
    match names {
        [] => Ok(()),
        [name] if name == "host" => Ok(()),
        [first, others @ ..] if !others.is_empty() && others.iter().all(|name| name == first) => Err(RunError::Usage(
            format!("network {first:?} is specified multiple times"),
        )),
        [_, _, ..] if names.iter().any(|name| name == "host") => Err(RunError::Usage(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                .to_owned(),
        )),
        [name, ..] => Err(RunError::Refused(format!(
            "network {name} not found: containers use the host's network"
        ))),
    }
}

/// Refuses every `--restart` but `no`.
pub(super) fn restart(policy: &str) -> Result<(), RunError> {
    let name = policy.split_once(':').map_or(policy, |(name, _)| name);
    match name {
        "" | "no" => Ok(()),
        "always" | "on-failure" | "unless-stopped" => Err(RunError::Usage(format!(
            "--restart {policy}: nothing starts containers again here: let systemd do it (a unit with ExecStart=mica run .. and Restart=always)"
        ))),
        _ => Err(RunError::Usage(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

/// Takes ports that are the same inside and outside, with one line on stderr; refuses others.
pub(super) fn publish(ports: &[String]) -> Result<(), RunError> {
    for text in ports {
        let (text_, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let parts: Vec<&str> = text_.rsplitn(3, ':').collect();
        let is_port = |text: &str| {
            let mut ends = text.split('-');
            ends.clone().count() <= 2 && ends.all(|port| port.parse::<u16>().is_ok_and(|n| n > 0))
        };
        let (inside, outside) = match parts.as_slice() {
            [port] => (*port, *port),
            [inside, outside, ..] => (*inside, *outside),
            [] => ("", ""),
        };
        if !is_port(inside)
            || !(outside.is_empty() || is_port(outside))
            || !["tcp", "udp", "sctp"].contains(&protocol)
        {
            return Err(RunError::Usage(format!(
                "invalid argument {text:?} for \"-p, --publish\" flag: invalid containerPort: {inside}"
            )));
        }
        if inside != outside && !outside.is_empty() {
            return Err(RunError::Usage(format!(
                "-p {text}: containers use the host's network, where the program's port is {inside} and cannot be {outside}: let the program listen on {outside}, or leave -p out"
            )));
        }
    }
    if !ports.is_empty() {
        eprintln!("mica: -p changes nothing: containers use the host's network");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_where_they_are() {
        let all = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            publish(&texts).map_err(|error| error.to_string())
        };
        for text in [
            "80:80",
            "80",
            "127.0.0.1:80:80/tcp",
            "53:53/udp",
            "80-82:80-82",
        ] {
            assert_eq!(all(&[text]), Ok(()), "{text}");
        }
        for text in [
            "8080:80",
            "x",
            "80:x",
            "0:0",
            "80:80/x",
            "80:80-81",
            "",
            "99999:99999",
        ] {
            assert!(all(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_and_verbs_have_a_reason() {
        for text in [
            "-m",
            "-m512m",
            "--memory=1g",
            "--gpus=all",
            "--pid",
            "--pid=host",
            "--dns=1.1.1.1",
        ] {
            assert!(!flag(text).to_string().contains("unknown"), "{text}");
        }
        assert_eq!(
            flag("--foo=1").to_string(),
            "unknown flag: --foo; see mica run --help"
        );
        assert!(verb("compose").is_some() && verb("nonsense").is_none());
    }
}
