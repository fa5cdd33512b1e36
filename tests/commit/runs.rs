//! Containers that `mica run` has made.

use std::fs;

use super::inspect;
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::tier;
use crate::running::wait_until;

/// An image that runs.
fn busybox(name: &str) -> ImageBuilder {
    let program = fs::read("/bin/busybox").expect("busybox-static is installed");
    ImageBuilder::new(name)
        .config(|config| config["config"] = serde_json::json!({"Cmd": ["/bin/sh"]}))
        .layer(|l| {
            let l = l
                .dir("bin", 0o755)
                .file("bin/busybox", &program)
                .mode(0o755);
            let l = l.dir("etc", 0o755).file("etc/old", "old").dir("srv", 0o755);
            let applets = [
                "sh", "rm", "mkdir", "chown", "chmod", "true", "date", "echo", "head",
            ];
            applets
                .iter()
                .fold(l, |l, applet| l.symlink(format!("bin/{applet}"), "busybox"))
        })
}

/// What volumes and pseudo file systems hold is no part of the image, nor are the mount points that `run` has made.
#[test]
fn root_commit_of_a_run() {
    let sandbox = Sandbox::new();
    sandbox.load(&busybox("box:1"));
    let mount = sandbox.mount();
    let host = sandbox.mkdir("host");
    fs::write(host.join("file"), "host").expect("a file");
    let bind = format!("{}:/bound", host.display());
    sandbox
        .mica([
            "run", "--name", "one", "-v", "named:/data", "-v", "/anonymous", "-v", &bind, "--tmpfs", "/run",
            "box:1", "sh", "-c",
            "echo v >/data/v; echo v >/anonymous/v; echo v >/run/v; echo v >/bound/v; echo x >/srv/x; rm /etc/old",
        ])
        .ok();
    let expected = "C /etc\nD /etc/old\nC /srv\nA /srv/x\n";
    assert_eq!(sandbox.mica(["diff", "one"]).ok().stdout(), expected);
    sandbox.mica(["container", "commit", "one", "box:2"]).ok();
    assert_eq!(
        sandbox.mica(["diff", "box:1", "box:2"]).ok().stdout(),
        expected
    );
    let mut names: Vec<_> = fs::read_dir(mount.image("box/2"))
        .expect("the image")
        .collect();
    names.sort_by_key(|entry| entry.as_ref().expect("an entry").file_name());
    let names: Vec<String> = names
        .into_iter()
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names, ["bin", "etc", "srv"]);
    // A volume without a name is part of the configuration, as docker's.
    let volumes = &inspect(&sandbox, "box:2")["Config"]["Volumes"];
    assert_eq!(*volumes, serde_json::json!({"/anonymous": {}}));
    sandbox
        .mica([
            "run",
            "--rm",
            "box:2",
            "/bin/busybox",
            "test",
            "-f",
            "/srv/x",
        ])
        .ok();
}

/// A container that runs is stopped while it is read, and goes on afterwards.
#[test]
fn root_commit_of_a_busy_container() {
    let sandbox = Sandbox::new();
    sandbox.load(&busybox("box:1"));
    let script = "while :; do echo line; done >>/srv/log";
    sandbox
        .mica(["run", "-d", "--name", "busy", "box:1", "sh", "-c", script])
        .ok();
    let id = sandbox.mica(["ps", "-q", "--no-trunc"]).ok().stdout();
    let log = sandbox
        .store()
        .join("containers")
        .join(id.trim())
        .join("upper/srv/log");
    let size = || fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let grows = || {
        let before = size();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while size() <= before {
            assert!(
                std::time::Instant::now() < end,
                "the container stands still"
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    for _ in 0..3 {
        grows();
        sandbox.mica(["commit", "busy", "box:live"]).ok();
    }
    grows();
    // Left running, it is read as it is or refused by name, never half.
    let run = sandbox.mica(["commit", "--pause=false", "busy", "box:live"]);
    let text = run.stderr();
    assert!(
        run.status.success() || text.contains("\"/srv/log\" changed while it was read"),
        "{}",
        run.describe()
    );
    sandbox.mica(["rm", "-f", "busy"]).ok();
}

/// Nobody is left standing still by a commit that is killed.
#[test]
fn root_commit_killed_lets_the_container_go_on() {
    const USER: u32 = 4321;
    let users = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    for sandbox in [Sandbox::new(), users] {
        let archive = sandbox.path("box.tar");
        busybox("box:1").docker_archive(&archive);
        sandbox.load_file(&archive).ok();
        let script =
            "head -c 50000000 /dev/urandom >/srv/big; echo >/srv/done; while :; do true; done";
        sandbox
            .mica(["run", "-d", "--name", "busy", "box:1", "sh", "-c", script])
            .ok();
        let id = sandbox.mica(["ps", "-q", "--no-trunc"]).ok().stdout();
        let directory = sandbox.store().join("containers").join(id.trim());
        let done = directory.join("upper/srv/done");
        wait_until("it has written", || done.exists());
        let state = fs::read(directory.join("state.json")).expect("its state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        let stat = format!("/proc/{}/stat", state["pid"]);
        let stands = || {
            fs::read_to_string(&stat)
                .expect("it lives")
                .contains(") T ")
        };
        for _ in 0..3 {
            let mut command = sandbox.command();
            command.args(["commit", "busy", "box:2"]);
            command.stdout(std::process::Stdio::null());
            let mut commit = command.spawn().expect("mica");
            wait_until("it stands still", stands);
            commit.kill().expect("kill");
            commit.wait().expect("wait");
            wait_until("it goes on", || !stands());
        }
        sandbox.mica(["rm", "-f", "busy"]).ok();
    }
}

/// An ordinary user's container: its files have ids of the host, the image has those inside.
#[test]
fn root_commit_without_root() {
    const USER: u32 = 4321;
    let sandbox = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    let archive = sandbox.path("box.tar");
    busybox("box:1").docker_archive(&archive);
    sandbox.load_file(&archive).ok();
    sandbox
        .mica([
            "run", "--name", "one", "box:1", "sh", "-c",
            "echo s >/srv/s; chown 33:44 /srv/s; chmod 0 /srv/s; rm -r /etc; mkdir /etc; rm -r /bin/date",
        ])
        .ok();
    let expected = "C /bin\nD /bin/date\nC /etc\nD /etc/old\nC /srv\nA /srv/s\n";
    assert_eq!(sandbox.mica(["diff", "one"]).ok().stdout(), expected);
    sandbox.mica(["commit", "one", "box:2"]).ok();
    assert_eq!(sandbox.mica(["diff", "box:2"]).ok().stdout(), expected);
    let list = "ls -ln /srv/s; ls -a /etc";
    let run = sandbox.mica(["run", "--rm", "box:2", "/bin/busybox", "sh", "-c", list]);
    let text = run.ok().stdout();
    let line = text.lines().next().expect("a line");
    assert!(
        line.starts_with("----------") && line.contains(" 33 ") && line.contains(" 44 "),
        "{line}"
    );
    let refused = sandbox.mica(["commit", "one", "box:3", "--change", "NONSENSE"]);
    assert!(
        refused
            .fails()
            .stderr()
            .contains("NONSENSE is not a valid change command")
    );
}

/// What only one run had (its host name, its terminal, the path it was searched by) is no configuration: an unchanged container
/// makes an image of its parent's. What `-e` said is.
#[test]
fn root_regression_a_commit_holds_configuration_only() {
    let sandbox = Sandbox::new();
    let configs = [
        serde_json::json!({"Cmd": ["/bin/true"]}),
        serde_json::json!({
            "Cmd": ["true"], "Env": ["PATH=/bin", "A=1", "B="], "User": "0:0", "WorkingDir": "/srv", "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGINT", "Shell": ["/bin/sh", "-c"],
            "Healthcheck": {"Test": ["CMD", "true"]}, "OnBuild": ["RUN true"],
        }),
        serde_json::json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true"], "Env": ["HOSTNAME=own", "TERM=dumb"]}),
    ];
    for (n, config) in configs.into_iter().enumerate() {
        let parent = format!("box:{n}");
        sandbox.load(&busybox(&parent).config(|all| all["config"] = config));
        for (tty, name) in [(&[][..], "plain"), (&["-t"][..], "terminal")] {
            let (name, child) = (format!("{name}{n}"), format!("{name}:{n}"));
            let run = [
                &["run", "--name", &name, "-h", "web1"][..],
                tty,
                &[parent.as_str()],
            ]
            .concat();
            sandbox.mica(run).ok();
            sandbox.mica(["commit", &name, &child]).ok();
            assert_eq!(
                inspect(&sandbox, &child)["Config"],
                inspect(&sandbox, &parent)["Config"],
                "{child}"
            );
        }
    }
    fs::write(sandbox.path("vars"), "F=file\n").expect("a file");
    sandbox
        .mica([
            "run",
            "--name",
            "more",
            "-e",
            "E=given",
            "-e",
            "A",
            "--env-file",
            "vars",
            "box:1",
        ])
        .ok();
    sandbox
        .mica(["commit", "-c", "ENV C=change", "more", "more:1"])
        .ok();
    let env = &inspect(&sandbox, "more:1")["Config"]["Env"];
    let expected = ["PATH=/bin", "B=", "F=file", "E=given", "C=change"];
    assert_eq!(*env, serde_json::json!(expected));
    // The process has both, and its own host name whatever image it is of.
    let run = sandbox
        .mica([
            "run",
            "--rm",
            "-h",
            "web2",
            "more:1",
            "sh",
            "-c",
            "echo $HOSTNAME $E $C",
        ])
        .ok();
    assert_eq!(run.stdout(), "web2 given change\n");
}
