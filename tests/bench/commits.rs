//! A change of 5,000 files made into an image, beside buildah; and what two images differ in, beside `diff -rq` of both trees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::table::{Table, verdict};
use super::timing::{median, ms, ratio, script, timed};
use crate::common::container::ByHand;
use crate::common::real;
use crate::common::sandbox::Sandbox;

const IMAGE: &str = "localhost/mica-test:small";
/// 5,000 files of 8 KiB in 100 directories, each with other bytes, and 100 of the image's deleted.
const CHANGE: &str = r#"
    cd "$ROOT"
    mkdir change; cd change
    head -c 40960000 /dev/urandom | split -a 4 -b 8192 -
    for d in $(seq 100); do mkdir d$d; ls -f | grep '^x' | head -50 | xargs mv -t d$d; done
    cd ../usr; find . -name '*.so*' -type f | head -100 | xargs rm -f
"#;

/// buildah with storage of its own.
pub struct Buildah {
    storage: PathBuf,
}

impl Buildah {
    pub fn new(sandbox: &Sandbox) -> Buildah {
        let storage = sandbox.mkdir("buildah");
        let conf = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            storage.join("root"),
            storage.join("run")
        );
        fs::write(storage.join("storage.conf"), conf).expect("the configuration");
        Buildah { storage }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(self.storage.join("root"));
        buildah.arg("--runroot").arg(self.storage.join("run"));
        buildah.args(["--storage-driver", "overlay"]).args(args);
        buildah
            .env("CONTAINERS_STORAGE_CONF", self.storage.join("storage.conf"))
            .env("HOME", &self.storage);
        buildah
    }

    pub fn says(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("buildah");
        assert!(output.status.success(), "buildah {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[derive(Default)]
struct Times {
    mica: Vec<Duration>,
    buildah: Vec<Duration>,
    mica_diff: Vec<Duration>,
    diff: Vec<Duration>,
}

pub fn run(quick: bool) {
    let mut times = Times::default();
    for round in 0..if quick { 1 } else { 3 } {
        eprintln!("bench: commit and diff, round {}", round + 1);
        once(&mut times);
    }
    let mut table = Table::new(&["ms", "mica", "beside", "", "factor", "target", "reached"]);
    for (name, mica, beside, other) in [
        (
            "commit of 5,000 files, 41 MB",
            times.mica,
            "buildah commit",
            times.buildah,
        ),
        (
            "diff of the two images",
            times.mica_diff,
            "diff -rq",
            times.diff,
        ),
    ] {
        let (mica, other) = (median(mica), median(other));
        let factor = ratio(other, mica);
        table.row(vec![
            name.into(),
            ms(mica),
            beside.into(),
            ms(other),
            format!("{factor:.1} faster"),
            "2 x faster".into(),
            verdict(factor >= 2.0),
        ]);
    }
    table.print();
}

fn once(times: &mut Times) {
    let sandbox = Sandbox::new();
    let archive = real::docker_archive("small");
    let path = archive.to_str().expect("a UTF-8 path");
    timed(sandbox.command().args(["load", "-i", path]));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, IMAGE, "bench");
    change(&container.root);
    times.mica.push(timed(sandbox.command().args([
        "commit",
        "bench",
        "mica-test:changed",
    ])));
    times.mica_diff.push(timed(sandbox.command().args([
        "diff",
        IMAGE,
        "mica-test:changed",
    ])));
    let trees = [
        mount.image("localhost/mica-test/small"),
        mount.image("mica-test/changed"),
    ];
    let mut diff = Command::new("sh");
    diff.args([
        "-c",
        "diff -rq --no-dereference \"$0\" \"$1\" >/dev/null; test $? -le 1",
    ]);
    times.diff.push(timed(diff.args(&trees)));
    drop(container);

    let buildah = Buildah::new(&sandbox);
    buildah.says(&["pull", "--quiet", &format!("docker-archive:{path}")]);
    let working = buildah.says(&["from", IMAGE]);
    change(Path::new(&buildah.says(&["mount", &working])));
    times.buildah.push(timed(
        &mut buildah.command(&["commit", "--quiet", &working, "changed"]),
    ));
    buildah.says(&["rm", &working]);
}

fn change(root: &Path) {
    timed(&mut script(CHANGE, root));
    rustix::fs::sync();
}
