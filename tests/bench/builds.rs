//! `mica build` beside `buildah bud --layers`: the file of a tutorial, all of it done before, a large context with one file changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::commits::Buildah;
use super::table::{Table, verdict};
use super::timing::{median, ms, ratio};
use crate::common::real;
use crate::common::sandbox::Sandbox;

const BASE: &str = "localhost/mica-test:small";
/// nginx of packages that are in the context. What RUN itself takes it says; nobody's isolation has a network.
const TUTORIAL: &str = r#"FROM localhost/mica-test:small
LABEL maintainer="somebody@example.org"
ENV DEBIAN_FRONTEND noninteractive
COPY packages /packages
RUN begin=$(date +%s%N); dpkg --force-unsafe-io -i /packages/*.deb >/dev/null && rm -r /var/cache/debconf \
    && echo "RUN took $(($(date +%s%N) - begin))"
RUN begin=$(date +%s%N); ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log \
    && echo "RUN took $(($(date +%s%N) - begin))"
COPY index.html /var/www/html/
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
"#;
const FILES: usize = 20_000;

struct Bench {
    sandbox: Sandbox,
    buildah: Buildah,
}

/// One build: how long it took, how much of that its RUN took, and the most memory its process had.
struct Built {
    took: Duration,
    ran: Duration,
    memory: u64,
}

impl Bench {
    fn new() -> Bench {
        let sandbox = Sandbox::new();
        let archive = real::docker_archive("small");
        sandbox.load_file(&archive).ok();
        let buildah = Buildah::new(&sandbox);
        let from = format!("docker-archive:{}", archive.display());
        buildah.says(&["pull", "--quiet", &from]);
        Bench { sandbox, buildah }
    }

    fn mica(&self, more: &[&str], context: &Path) -> Built {
        let mut command = self.sandbox.command();
        command.arg("build").args(more).arg(context);
        built(command)
    }

    fn buildah(&self, more: &[&str], context: &Path) -> Built {
        let bud = ["bud", "--layers", "--isolation", "chroot", "--pull-never"];
        let mut command = self.buildah.command(&bud);
        command.args(["--network", "host"]).args(more).arg(context);
        built(command)
    }

    /// Packages of nginx, as apt gets them for this image.
    fn packages(&self, into: &Path) {
        let volume = format!("{}:/packages", into.display());
        let script = "apt-get -qq update && apt-get -qq -y --no-install-recommends --download-only install nginx >/dev/null \
            && cp /var/cache/apt/archives/*.deb /packages";
        let mut command = self.sandbox.command();
        command.args(["run", "--rm", "-v", &volume, BASE, "sh", "-c", script]);
        self.sandbox.run(command).ok();
    }
}

fn built(mut command: Command) -> Built {
    let out = tempfile::NamedTempFile::new().expect("a file");
    let output = || out.reopen().expect("a file");
    command
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output());
    let begin = Instant::now();
    let mut child = command.spawn().expect("a build");
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("wait") {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
        memory = peak.unwrap_or(memory);
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begin.elapsed();
    let text = fs::read_to_string(out.path()).expect("the output");
    assert!(ended.success(), "{command:?}: {text}");
    let ran = text
        .lines()
        .filter_map(|line| line.strip_prefix("RUN took "));
    let ran = ran
        .filter_map(|ns| ns.parse().ok())
        .map(Duration::from_nanos);
    Built {
        took,
        ran: ran.sum(),
        memory,
    }
}

pub fn run(quick: bool) {
    let bench = Bench::new();
    let rounds = if quick { 1 } else { 5 };
    let mut table = Table::new(&[
        "ms",
        "mica",
        "buildah bud --layers",
        "factor",
        "target",
        "reached",
    ]);
    let mut row = |what: &str, ours: Duration, theirs: Duration, target: &str, reached: bool| {
        let factor = ratio(theirs, ours);
        table.row(vec![
            what.into(),
            ms(ours),
            ms(theirs),
            format!("{factor:.1} faster"),
            target.into(),
            verdict(reached),
        ]);
    };

    eprintln!("bench: build, the tutorial's file");
    let tutorial = bench.sandbox.mkdir("tutorial");
    let packages = bench.sandbox.mkdir("tutorial/packages");
    bench.packages(&packages);
    fs::write(tutorial.join("Dockerfile"), TUTORIAL).expect("a file");
    fs::write(tutorial.join("index.html"), "<h1>hello</h1>\n").expect("a file");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut memory = 0;
    for _ in 0..rounds {
        rustix::fs::sync();
        let built = bench.mica(&["--no-cache", "-t", "tutorial:1"], &tutorial);
        memory = memory.max(built.memory);
        ours.push((built.took, built.took.saturating_sub(built.ran)));
        rustix::fs::sync();
        let built = bench.buildah(&["--no-cache", "-t", "tutorial:1"], &tutorial);
        theirs.push((built.took, built.took.saturating_sub(built.ran)));
    }
    let of = |times: &[(Duration, Duration)], outside: bool| {
        median(
            times
                .iter()
                .map(|t| if outside { t.1 } else { t.0 })
                .collect(),
        )
    };
    let (cold, other) = (of(&ours, false), of(&theirs, false));
    row(
        "build of the tutorial's file, cold",
        cold,
        other,
        "never slower",
        cold <= other,
    );
    let (outside, other) = (of(&ours, true), of(&theirs, true));
    row(
        "the same outside of RUN",
        outside,
        other,
        "3 x faster",
        ratio(other, outside) >= 3.0,
    );

    eprintln!("bench: build, 20 steps done before");
    let steps = bench.sandbox.mkdir("steps");
    steps_of(&steps);
    let (ours, theirs) = pairs(&bench, rounds * 3, &steps, |_| {});
    row(
        "20 steps, all done before",
        ours,
        theirs,
        "10 x faster, < 100 ms",
        ratio(theirs, ours) >= 10.0 && ours < Duration::from_millis(100),
    );

    eprintln!("bench: build, {FILES} files");
    let large = bench.sandbox.mkdir("large");
    let one = files_of(&large);
    let mut number = 0;
    let (ours, theirs) = pairs(&bench, rounds, &large, |half| {
        number += 1;
        fs::write(&one, format!("{number} {half}\n")).expect("a file");
    });
    row(
        "20,000 files, one changed",
        ours,
        theirs,
        "3 x faster",
        ratio(theirs, ours) >= 3.0,
    );
    memory = memory.max(bench.mica(&["--no-cache"], &large).memory);
    table.row(vec![
        "memory, MiB".into(),
        format!("{}", memory >> 10),
        String::new(),
        String::new(),
        "< 128".into(),
        verdict(memory >> 10 < 128),
    ]);
    table.print();
}

/// Medians of builds of one context, after a first one of each.
fn pairs(
    bench: &Bench,
    rounds: usize,
    context: &Path,
    mut change: impl FnMut(usize),
) -> (Duration, Duration) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        change(1);
        let mica = bench.mica(&["-t", "pair:1"], context).took;
        change(2);
        let buildah = bench.buildah(&["-t", "pair:1"], context).took;
        if round > 0 {
            ours.push(mica);
            theirs.push(buildah);
        }
    }
    (median(ours), median(theirs))
}

fn steps_of(context: &Path) {
    let mut file = format!("FROM {BASE}\n");
    for step in 0..19 {
        file += &match step % 4 {
            0 => format!("ENV STEP{step}={step}\n"),
            1 => format!("COPY f /t/{step}/\n"),
            2 => format!("RUN echo {step} > /t/{step}.txt\n"),
            _ => format!("LABEL step{step}={step}\n"),
        };
    }
    fs::write(context.join("Dockerfile"), file).expect("a file");
    fs::write(context.join("f"), "f\n").expect("a file");
}

/// Many small files; one of them.
fn files_of(context: &Path) -> PathBuf {
    fs::write(
        context.join("Dockerfile"),
        format!("FROM {BASE}\nCOPY . /src/\n"),
    )
    .expect("a file");
    for directory in 0..FILES / 100 {
        let at = context.join(format!("d{directory}"));
        fs::create_dir(&at).expect("a directory");
        for file in 0..100 {
            let content = format!("{directory} {file}\n").repeat(200);
            fs::write(at.join(format!("f{file}")), content).expect("a file");
        }
    }
    context.join("d7/f7")
}
