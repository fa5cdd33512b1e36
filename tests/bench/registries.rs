//! Pulling and pushing a whole image, beside podman, skopeo, and what the bytes alone cost. The registry is Debian's
//! docker-registry on this machine, the same for all in a round.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::table::{Table, verdict};
use super::timing::{median, ms, ratio, timed};
use crate::common::podman::Podman;
use crate::common::real;
use crate::common::registry::{Kind, Registry, skopeo};
use crate::common::sandbox::Sandbox;

const IMAGE: &str = "localhost/mica-test:real";

#[derive(Default)]
struct Times {
    mica_pull: Vec<Duration>,
    mica_again: Vec<Duration>,
    podman_pull: Vec<Duration>,
    podman_again: Vec<Duration>,
    skopeo_copy: Vec<Duration>,
    plain: Vec<Duration>,
    mica_push: Vec<Duration>,
    mica_zstd: Vec<Duration>,
    podman_push: Vec<Duration>,
}

pub fn run(quick: bool) {
    let mut times = Times::default();
    for round in 0..if quick { 1 } else { 3 } {
        eprintln!("bench: pull and push, round {}", round + 1);
        pulls(&mut times);
        pushes(&mut times);
    }
    let size = fs::metadata(real::oci_archive("real")).map_or(0, |m| m.len() / 1_000_000);
    let name = format!("ms, {size} MB compressed");
    let mut table = Table::new(&[&name, "mica", "beside", "", "factor", "target", "reached"]);
    let mut faster = |name: &str, mica, beside: &str, other, target: f64| {
        let factor = ratio(other, mica);
        table.row(vec![
            name.into(),
            ms(mica),
            beside.into(),
            ms(other),
            format!("{factor:.1} faster"),
            format!("{target} x faster"),
            verdict(factor >= target),
        ]);
    };
    let pull = median(times.mica_pull);
    faster("pull", pull, "podman pull", median(times.podman_pull), 3.0);
    let push = median(times.mica_push);
    faster("push", push, "podman push", median(times.podman_push), 1.5);
    let copy = median(times.skopeo_copy);
    table.row(vec![
        "pull".into(),
        ms(pull),
        "skopeo copy .. oci:".into(),
        ms(copy),
        format!("{:.1} faster", ratio(copy, pull)),
    ]);
    let plain = median(times.plain);
    let factor = ratio(pull, plain);
    table.row(vec![
        "pull".into(),
        ms(pull),
        "curl | gunzip | sha256sum, two at a time".into(),
        ms(plain),
        format!("{factor:.2}"),
        "<= 1.30".into(),
        verdict(factor <= 1.3),
    ]);
    let again = median(times.mica_again);
    table.row(vec![
        "pull, up to date".into(),
        ms(again),
        "podman pull".into(),
        ms(median(times.podman_again)),
        "".into(),
        "< 100 ms".into(),
        verdict(again < Duration::from_millis(100)),
    ]);
    table.row(vec![
        "push --compression zstd".into(),
        ms(median(times.mica_zstd)),
    ]);
    table.print();
}

/// All from one registry, into empty stores.
fn pulls(times: &mut Times) {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let name = registry.name("team/real:1");
    let archive = format!("oci-archive:{}", real::oci_archive("real").display());
    let target = format!("docker://{name}");
    skopeo(
        &sandbox,
        &["copy", "-q", "--dest-tls-verify=false", &archive, &target],
    );
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    let podman = |args: &[&str]| {
        rustix::fs::sync();
        timed(&mut podman.command(args))
    };
    let mica = || {
        rustix::fs::sync();
        timed(sandbox.command().args(["pull", "-q", &name]))
    };
    times.plain.push(plain(&sandbox, &registry));
    times.mica_pull.push(mica());
    times.mica_again.push(mica());
    let pull = ["pull", "-q", "--tls-verify=false", &name];
    times.podman_pull.push(podman(&pull));
    times.podman_again.push(podman(&pull));
    rustix::fs::sync();
    let copy = format!("oci:{}:1", sandbox.path("copy").display());
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
    times.skopeo_copy.push(timed(skopeo.args([&target, &copy])));
}

/// What a pull cannot do without: download, decompress and hash every layer, on both cores.
fn plain(sandbox: &Sandbox, registry: &Registry) -> Duration {
    let raw = format!("docker://{}", registry.name("team/real:1"));
    let manifest = skopeo(sandbox, &["inspect", "--raw", "--tls-verify=false", &raw]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let digests = layers.iter().filter_map(|layer| layer["digest"].as_str());
    let list = digests.collect::<Vec<_>>().join("\n");
    fs::write(sandbox.path("digests"), list).expect("the list");
    let url = format!("http://{}/v2/team/real/blobs/", registry.host());
    let script = format!(
        "xargs -P 2 -I @ sh -c 'curl -sSf {url}@ | gunzip | sha256sum' < {}",
        sandbox.path("digests").display()
    );
    timed(Command::new("sh").args(["-euc", &script]))
}

/// Each into a registry that has nothing yet.
fn pushes(times: &mut Times) {
    let sandbox = Sandbox::new();
    let archive = real::docker_archive("real");
    sandbox.load_file(&archive).ok();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    let loaded = ["load", "-q", "-i", path(&archive)];
    sandbox.run(podman.command(&loaded)).ok();
    let mica = |more: &[&str]| {
        let registry = Registry::start(&sandbox, Kind::Plain);
        let name = registry.name("team/real:1");
        sandbox.mica(["tag", IMAGE, &name]).ok();
        rustix::fs::sync();
        timed(sandbox.command().args(["push", "-q"]).args(more).arg(&name))
    };
    times.mica_push.push(mica(&[]));
    times.mica_zstd.push(mica(&["--compression", "zstd"]));
    let registry = Registry::start(&sandbox, Kind::Plain);
    let name = registry.name("team/real:1");
    let push = ["push", "-q", "--tls-verify=false", IMAGE, &name];
    rustix::fs::sync();
    times.podman_push.push(timed(&mut podman.command(&push)));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
