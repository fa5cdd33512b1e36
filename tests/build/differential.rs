//! The same contexts by `buildah bud --layers --isolation chroot` and by mica: the same trees, the same configurations.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use mica::oci::dockerfile::ignore::Ignore;

use super::*;

/// Where the two differ, by path, and why mica does what it does.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "dev/",
        "a mount point that buildah leaves in the layer of a RUN",
    ),
    ("proc/", "the same"),
    ("sys/", "the same"),
    ("run/", "the same"),
    ("etc/hostname", "the same: an empty file with the mode 0755"),
    ("etc/hosts", "the same"),
    ("etc/resolv.conf", "the same"),
    (
        "made/",
        "WORKDIR makes its directory, as BuildKit; buildah leaves it to the next RUN",
    ),
    ("made/by/", "the same"),
    ("made/by/workdir/", "the same"),
    ("made/by/workdir/relative/", "the same"),
    (
        "t/06/sub/",
        "a directory that is copied to a new place has its own mode there, as BuildKit; buildah's has 0755",
    ),
    (
        "t/19/",
        "the same of its owner, which is kept for what comes from a stage",
    ),
];

/// The same for configurations.
const CONFIG_DIFFERENCES: &[(&str, &str)] = &[(
    "Cmd",
    "CMD's shell form uses SHELL, as docker; buildah 1.28 keeps /bin/sh -c",
)];

const STEPS: &str = r#"
ARG NAME=arg
ENV ONE=1 TWO="two words" THREE=${NAME}x
ENV OLD style value
LABEL a=b "c d"="e f"
COPY a.txt /t/01/
COPY a.txt /t/02/new
COPY *.txt /t/03/
COPY d /t/04/
COPY d/ /t/05
COPY d/sub /t/06/sub
COPY --chown=7:8 d/one /t/07/
COPY --chown=bob:wheel d/one /t/08/
COPY --chmod=600 a.txt /t/09/
COPY ["with space", "/t/10/"]
WORKDIR /t/11
COPY a.txt .
COPY a.txt b.txt ./deep/er/
ADD p.tar /t/12/
ADD p.tar.gz /t/13
ADD a.txt /t/14/
COPY a.txt /t/15/x
COPY b.txt /t/15/x
COPY d /t/16
COPY e /t/16
RUN mkdir -p /t/17/real && busybox ln -s real /t/17/link
COPY a.txt /t/17/link/
COPY --from=stage /made/deep /t/18/
COPY --from=stage /made/own /t/19
COPY d/o?e d/[s]ub /t/20/
RUN rm -r /t/04/sub && echo x > /t/04/one && mkdir /t/21 && chown 5:6 /t/21 && chmod 1777 /t/21
WORKDIR /made/by/workdir
WORKDIR relative
USER bob
EXPOSE 80 53/udp
VOLUME /vol ["/json"]
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["/bin/echo", "$NAME"]
CMD echo "$ONE"
"#;

fn buildah(s: &Sandbox, args: &[&str]) -> Run {
    let conf = s.path("storage.conf");
    if !exists(&conf) {
        let (root, run) = (s.path("bs"), s.path("br"));
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            root.display().to_string(),
            run.display().to_string()
        );
        fs::write(&conf, text).unwrap();
    }
    let mut command = Command::new("buildah");
    command.args(args).env("CONTAINERS_STORAGE_CONF", &conf);
    s.run(command)
}

#[test]
fn root_build_makes_the_trees_and_configurations_that_buildah_makes() {
    let s = sandbox();
    let root = context(
        &s,
        "c",
        &[
            ("a.txt", "a"),
            ("b.txt", "bb"),
            ("with space", "s"),
            ("d/one", "1"),
            ("d/sub/two", "22"),
            ("e/one", "other"),
            ("e/sub/three", "333"),
        ],
    );
    fs::set_permissions(root.join("d/one"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("d/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(root.join("e/sub"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("one", root.join("d/link")).unwrap();
    symlink("/nowhere", root.join("d/dangling")).unwrap();
    for (flag, name) in [("", "p.tar"), ("z", "p.tar.gz")] {
        let mut tar = Command::new("tar");
        tar.arg(format!("-c{flag}f"))
            .arg(root.join(name))
            .args(["--owner=3", "--group=4", "-C"]);
        assert!(
            tar.arg(root.join("d"))
                .args(["one", "sub", "link"])
                .status()
                .unwrap()
                .success()
        );
    }
    let file = format!(
        "FROM localhost/app:1 AS stage\nRUN mkdir -p /made/deep/er /made/own && echo x > /made/deep/er/x && echo y > /made/own/y && chown -R 9:10 /made/own\nFROM localhost/app:1\n{STEPS}"
    );
    fs::write(root.join("Dockerfile"), file).unwrap();
    let archive = s.path("app.tar");
    shown(&s, "tag app:1 localhost/app:1");
    s.mica(["save", "-o", archive.to_str().unwrap(), "localhost/app:1"])
        .ok();
    buildah(
        &s,
        &["pull", &format!("docker-archive:{}", archive.display())],
    )
    .ok();
    let c = root.to_str().unwrap();
    let flags = [
        "bud",
        "--layers",
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--format",
        "docker",
        "-t",
        "theirs:1",
        c,
    ];
    buildah(&s, &flags).ok();
    let theirs = s.path("theirs.tar");
    buildah(
        &s,
        &[
            "push",
            "localhost/theirs:1",
            &format!("docker-archive:{}:theirs:1", theirs.display()),
        ],
    )
    .ok();
    s.load_file(&theirs).ok();
    build(&s, "c", &["-t", "ours:1"]).ok();
    let tree = |image: &str| -> BTreeMap<String, String> {
        let lines = listing(&s, image, "").into_iter();
        let pair = |line: String| {
            let path = line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
            (path, line)
        };
        lines.map(pair).collect()
    };
    let (ours, theirs) = (tree("ours:1"), tree("theirs:1"));
    let mut found = Vec::new();
    for path in ours
        .keys()
        .chain(theirs.keys())
        .collect::<std::collections::BTreeSet<_>>()
    {
        let (a, b) = (ours.get(path), theirs.get(path));
        let known = DIFFERENCES.iter().any(|(known, _)| known == path);
        if known {
            assert_ne!(a, b, "{path} is no difference any more");
        }
        if a != b && !known {
            found.push(format!("{path}: ours {a:?}, theirs {b:?}"));
        }
    }
    let (ours, mut theirs) = (config(&s, "ours:1"), config(&s, "theirs:1"));
    if let Some(labels) = theirs["Labels"].as_object_mut() {
        // It signs what it makes.
        labels.remove("io.buildah.version");
    }
    for key in [
        "Env",
        "Cmd",
        "Entrypoint",
        "Labels",
        "WorkingDir",
        "User",
        "ExposedPorts",
        "Volumes",
        "StopSignal",
        "Shell",
    ] {
        let known = CONFIG_DIFFERENCES.iter().any(|(known, _)| *known == key);
        if ours[key] != theirs[key] && !known {
            found.push(format!("{key}: ours {}, theirs {}", ours[key], theirs[key]));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Patterns by chance, beside a port of docker's matcher where that is installed (`pip install e2b-dockerfile-utils`).
#[test]
fn dockerignore_matches_as_dockers_matcher() {
    const PORT: &str = "import json, sys
from e2b_dockerfile_utils import PatternMatcher
for line in sys.stdin:
    patterns, paths = json.loads(line)
    try:
        matcher = PatternMatcher(patterns)
        print(json.dumps([matcher.matches(path) for path in paths]))
    except ValueError:
        print('null')
";
    let python = |script: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        command
    };
    let installed = python("import e2b_dockerfile_utils").status();
    if !installed.is_ok_and(|status| status.success()) {
        eprintln!("!! e2b-dockerfile-utils is not installed here and was not compared with");
        return;
    }
    let mut random = crate::common::random::Random(13);
    let mut one = |from: &[&str]| from[random.below(from.len())].to_owned();
    let pieces = [
        "a", "b", "ab", "*", "**", "?", "[ab]", "[^b]", "a*", "*b", "**b", "a**", "[", "\\a",
    ];
    let mut cases = Vec::new();
    for _ in 0..3000 {
        let mut patterns = Vec::new();
        for _ in 0..one(&["1", "2", "3", "4"]).parse().unwrap() {
            let depth: usize = one(&["1", "1", "2", "3"]).parse().unwrap();
            let parts: Vec<String> = (0..depth).map(|_| one(&pieces)).collect();
            let sign = one(&["", "", "!"]);
            let slash = one(&["", "", "", "/"]);
            patterns.push(format!("{sign}{}{slash}", parts.join("/")));
        }
        cases.push(patterns);
    }
    let names = ["a", "b", "ab", "ba"];
    let mut paths: Vec<String> = names.map(str::to_owned).into();
    for first in names {
        for second in names {
            paths.push(format!("{first}/{second}"));
            paths.extend(names.map(|third| format!("{first}/{second}/{third}")));
        }
    }
    let lines = cases
        .iter()
        .map(|patterns| serde_json::json!([patterns, paths]).to_string() + "\n");
    let input: String = lines.collect();
    let mut port = python(PORT).spawn().unwrap();
    let mut stdin = port.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = port.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), cases.len());
    for (patterns, line) in cases.iter().zip(output.lines()) {
        let expected: Option<Vec<bool>> = serde_json::from_str(line).unwrap();
        let ours = Ignore::parse(patterns.join("\n").as_bytes())
            .ok()
            .map(|ignore| {
                let excludes = |path: &String| ignore.excludes(path.as_bytes());
                paths.iter().map(excludes).collect::<Vec<bool>>()
            });
        let differ = |(ours, theirs): (&Vec<bool>, &Vec<bool>)| {
            let pairs = paths.iter().zip(ours.iter().zip(theirs));
            let differing = pairs.filter(|(_, (ours, theirs))| ours != theirs);
            differing.map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        let differing = ours.as_ref().zip(expected.as_ref()).map(differ);
        assert_eq!(ours.is_some(), expected.is_some(), "{patterns:?}");
        assert_eq!(differing.unwrap_or_default(), [""; 0], "{patterns:?}");
    }
}
