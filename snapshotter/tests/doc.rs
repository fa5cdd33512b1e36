//! doc/KUBERNETES.md, typed; and what is installed for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Sandbox, program};
use crate::node::{Containerd, pushed};
use crate::work::{Running, image, start};

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("../doc/KUBERNETES.md")).expect("the document")
}

/// The commands of the document work in its order, with its names in another place.
#[test]
fn net_root_document_as_it_is_typed() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let name = pushed(&sandbox, &registry, &image("app:1"), "library/app:1");
    let mut mount = None;
    let mut snapshotter: Option<Running> = None;
    let mut containerd: Option<Containerd> = None;
    let conf = sandbox.path("containerd.toml");
    Containerd::configure(&sandbox, "localhost/pause:1");
    let text = document();
    let blocks = text.split("```\n").skip(1).step_by(2);
    let lines = blocks
        .filter(|block| !block.starts_with('['))
        .flat_map(str::lines);
    let mut typed = 0;
    for line in lines {
        let line = line.split(" # ").next().unwrap_or_default().trim();
        let line = line.replace("docker.io/library/app:1", &name);
        typed += 1;
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["mica", "mount", _] => mount = Some(sandbox.mount()),
            ["systemctl", "enable", ..] => snapshotter = Some(start(&sandbox)),
            ["mica", "system", "connect", rest @ ..] => {
                let mut command = sandbox.command();
                command.args(["system", "connect"]).args(rest);
                command.arg("--config").arg(&conf).arg("--socket");
                command.arg(sandbox.path("snapshotter.sock"));
                sandbox.run(command).ok();
            }
            ["systemctl", "restart", "containerd"] => {
                containerd = Some(Containerd::launch(&sandbox));
            }
            ["mica", rest @ ..] => {
                let run = sandbox.mica(rest).ok();
                if line.contains("users") {
                    assert!(
                        run.stdout().contains("containerd snapshot"),
                        "{}",
                        run.describe()
                    );
                }
            }
            ["ctr", rest @ ..] => {
                let containerd = containerd.as_ref().expect("it runs");
                // The test's registry has no certificate.
                let said = containerd.shown(&rest.join(" ").replace("pull ", "pull --plain-http "));
                match rest[0] {
                    "plugins" => assert!(
                        said.lines()
                            .any(|l| l.contains(" mica ") && l.trim_end().ends_with("ok")),
                        "{said}"
                    ),
                    "run" => assert_eq!(said, "new"),
                    "snapshots" => assert!(said.contains("Committed"), "{said}"),
                    _ => {}
                }
            }
            _ => panic!("not a command of the test's: {line}"),
        }
    }
    assert!(typed >= 10, "{typed} lines were typed");
    // The lines for pods are those that `connect` prints.
    let mut command = sandbox.command();
    command
        .args(["system", "connect", "containerd", "--config"])
        .arg(&conf);
    let printed = sandbox.run(command).ok().stdout();
    let blocks: Vec<_> = text
        .split("```\n")
        .filter(|block| block.starts_with('['))
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        assert!(printed.contains(block), "{printed}");
    }
    drop((containerd, snapshotter));
    mount.expect("a mount").unmount();
}

/// What gRPC brings along is this program's alone: nothing that the main one stands on, at any distance, is an async runtime.
#[test]
fn mica_itself_has_no_async_runtime() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let mut all = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let quoted = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
        let name = package
            .lines()
            .find(|l| l.starts_with("name = "))
            .map(quoted);
        let below: Vec<String> = package
            .lines()
            .filter(|line| line.starts_with(" \""))
            .map(|line| {
                quoted(line)
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        all.entry(name.unwrap())
            .or_insert_with(Vec::new)
            .extend(below);
    }
    let reaches = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from.to_owned()];
        while let Some(name) = todo.pop() {
            if seen.insert(name.clone()) {
                todo.extend(all.get(&name).into_iter().flatten().cloned());
            }
        }
        seen
    };
    let runtimes = ["tokio", "tonic", "async-std", "smol", "hyper"];
    let has = |names: &BTreeSet<String>| runtimes.iter().filter(|r| names.contains(**r)).count();
    assert_eq!(has(&reaches("mica")), 0);
    assert!(has(&reaches("mica-snapshotter")) > 1);
}

/// `connect` and `disconnect` leave what was there, and refuse what means nothing.
#[test]
fn root_document_connect() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let conf = sandbox.mkdir("etc").join("config.toml");
    let verb = |words: &[&str]| {
        let mut command = sandbox.command();
        command.arg("system").args(words).arg("--config").arg(&conf);
        sandbox.run(command)
    };
    let own = "version = 2\n[plugins]\n";
    fs::write(&conf, own).unwrap();
    let shown = verb(&["connect", "containerd"]).ok();
    assert!(
        shown.stdout().contains("[proxy_plugins.mica]"),
        "{}",
        shown.describe()
    );
    assert!(
        shown.stderr().contains("not mounted"),
        "{}",
        shown.describe()
    );
    // containerd is told of what the kernel can.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release
        .split('.')
        .take(2)
        .map(|n| n.parse().unwrap())
        .collect();
    let said = shown.stdout().contains("capabilities = [\"remap-ids\"]");
    assert_eq!(said, numbers >= vec![6, 12], "{release}");
    assert_eq!(fs::read_to_string(&conf).unwrap(), own);
    verb(&["disconnect", "containerd"]).fails();
    verb(&["connect", "containerd", "--write"]).ok();
    verb(&["connect", "containerd", "--write"]).ok();
    let written = fs::read_to_string(&conf).unwrap();
    assert_eq!(written.matches("proxy_plugins").count(), 1, "{written}");
    verb(&["disconnect", "containerd"]).ok();
    assert_eq!(fs::read_to_string(&conf).unwrap(), own);
    verb(&["connect", "podman"]).fails();
    verb(&["connect", "containerd", "--user"]).fails();
    fs::write(&conf, "[proxy_plugins.mica]\n").unwrap();
    let taken = verb(&["connect", "containerd", "--write"]).fails();
    assert!(taken.stderr().contains("already"), "{}", taken.describe());
}

/// The units are right by systemd's own judgement, and the socket that systemd hands down is answered on.
#[test]
fn root_document_units_and_activation() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    crate::common::tier::root();
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/system");
    let units = sandbox.mkdir("units");
    for name in ["mica-snapshotter.socket", "mica-snapshotter.service"] {
        let text = fs::read_to_string(contrib.join(name)).unwrap();
        let bin = program("mica").parent().unwrap().display().to_string();
        fs::write(units.join(name), text.replace("@bindir@", &bin)).unwrap();
    }
    for name in ["mica-snapshotter.socket", "mica-snapshotter.service"] {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(units.join(name));
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
        let run = sandbox.run(command).ok();
        assert!(!run.stderr().contains("mica"), "{}", run.describe());
    }
    let script = "python3 - \"$1\" <<'END'\nimport os, socket, subprocess, sys, time\n\
        s = socket.socket(socket.AF_UNIX); s.bind('activated.sock'); s.listen()\n\
        n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); n.bind('notify'); n.settimeout(60)\n\
        os.environ['NOTIFY_SOCKET'] = os.path.abspath('notify')\n\
        def child():\n  os.dup2(s.fileno(), 3); os.set_inheritable(3, True); os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[1], sys.argv[1:])\n\
        p = os.fork()\n\
        if p == 0: child()\n\
        print(n.recv(100).decode())\n\
        c = socket.socket(socket.AF_UNIX); c.settimeout(60); c.connect('activated.sock')\n\
        c.send(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes([0,0,0,4,0,0,0,0,0])); print(len(c.recv(9)))\n\
        os.kill(p, 15); print(os.waitpid(p, 0)[1])\nEND";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(program("mica-snapshotter"));
    command
        .env("MICA_STORE", sandbox.store())
        .current_dir(sandbox.dir());
    let said = sandbox.run(command).ok().stdout();
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["READY=1", "9", "0"]
    );
}
