//! The volume plugin, with podman and with docker's own engine.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use super::dockerd::Dockerd;
use super::*;

/// A process of the test's own, killed at the end.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn plugin(sandbox: &Sandbox, socket: &Path) -> Process {
    let mut command = sandbox.command();
    command.args(["volume", "plugin", "--socket"]).arg(socket);
    let process = Process(command.spawn().expect("mica"));
    wait_for("the plugin", || UnixStream::connect(socket).is_ok());
    process
}

/// Sends bytes as they are; the answer until the other side closes or there is a whole one.
pub(super) fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // It may have closed before it has read all of that.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn call(socket: &Path, call: &str, body: &str) -> Value {
    let head = format!(
        "POST /{call} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(socket, head.as_bytes());
    json(answer.split_once("\r\n\r\n").expect("an answer").1)
}

/// Every call, and what is wrong with it: an error with a reason, and the plugin goes on.
#[test]
fn root_plugin_answers_whatever_it_is_sent() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("p/mica.sock");
    let _plugin = plugin(&sandbox, &socket);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        call(&socket, "Plugin.Activate", "")["Implements"][0],
        "VolumeDriver"
    );
    assert_eq!(
        call(&socket, "VolumeDriver.Capabilities", "{}")["Capabilities"]["Scope"],
        "local"
    );
    assert_eq!(
        call(
            &socket,
            "VolumeDriver.Create",
            r#"{"Name":"data","Opts":null}"#
        )["Err"],
        ""
    );
    let bad = [
        ("VolumeDriver.Create", r#"{"Name":"../x"}"#),
        ("VolumeDriver.Create", r#"{"Name":"x/../../y"}"#),
        ("VolumeDriver.Create", r#"{"Name":""}"#),
        ("VolumeDriver.Create", r#"{"Name":"%2e%2e"}"#),
        ("VolumeDriver.Create", "{\"Name\":\"a\\u0000b\"}"),
        (
            "VolumeDriver.Create",
            r#"{"Name":"xy","Opts":{"device":"/../.."}}"#,
        ),
        (
            "VolumeDriver.Create",
            r#"{"Name":"xy","Opts":{"kind":"other"}}"#,
        ),
        (
            "VolumeDriver.Create",
            r#"{"Name":"xy","Opts":{"kind":"bind"}}"#,
        ),
        (
            "VolumeDriver.Create",
            r#"{"Name":"xy","Opts":{"kind":"bind","source":"relative"}}"#,
        ),
        (
            "VolumeDriver.Create",
            r#"{"Name":"xy","Opts":{"kind":"ephemeral","source":"/tmp"}}"#,
        ),
        (
            "VolumeDriver.Create",
            r#"{"Name":"data","Opts":{"kind":"ephemeral"}}"#,
        ),
        ("VolumeDriver.Create", r#"{"Name":1}"#),
        ("VolumeDriver.Create", r#"[]"#),
        ("VolumeDriver.Create", "{"),
        ("VolumeDriver.Mount", r#"{"Name":"missing","ID":"1"}"#),
        ("VolumeDriver.Get", r#"{"Name":"missing"}"#),
        ("VolumeDriver.Remove", r#"{"Name":"missing"}"#),
        ("VolumeDriver.Other", "{}"),
    ];
    for (what, body) in bad {
        let answer = call(&socket, what, body);
        assert!(
            answer["Err"].as_str().is_some_and(|e| !e.is_empty()),
            "{what} {body}: {answer}"
        );
    }
    let long = "x".repeat(300);
    assert_ne!(
        call(
            &socket,
            "VolumeDriver.Create",
            &format!(r#"{{"Name":"{long}"}}"#)
        )["Err"],
        ""
    );
    for text in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "POST /VolumeDriver.List HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n{}".to_owned(),
        "POST /VolumeDriver.List HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        "POST /VolumeDriver.List HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n".to_owned(),
        format!("POST /VolumeDriver.List HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(100_000)),
    ] {
        let answer = raw(&socket, text.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    // Some who say nothing, and many at once.
    let silent: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let socket = &socket;
            scope.spawn(move || {
                let body = format!(r#"{{"Name":"many{}"}}"#, n % 4);
                assert_eq!(call(socket, "VolumeDriver.Create", &body)["Err"], "");
            });
        }
    });
    drop(silent);
    // Who does not wait for the answer; fewer than are served at once, beside the silent ones that are just going.
    for _ in 0..30 {
        let mut hasty = UnixStream::connect(&socket).unwrap();
        let head = b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        hasty.write_all(head).unwrap();
    }
    let listed = call(&socket, "VolumeDriver.List", "{}");
    assert_eq!(listed["Volumes"].as_array().unwrap().len(), 5, "{listed}");
    // A second one is told so.
    let mut second = sandbox.command();
    second.args(["volume", "plugin", "--socket"]).arg(&socket);
    sandbox.run(second).fails();
}

/// What is mounted stays in use when the plugin is killed and started anew, until it is unmounted.
#[test]
fn root_plugin_holds_over_a_restart() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("mica.sock");
    let mount = sandbox.mount();
    let first = plugin(&sandbox, &socket);
    call(&socket, "VolumeDriver.Create", r#"{"Name":"data"}"#);
    // The mount keeps that there is nothing.
    let inside = mount.path("volumes/data/f");
    assert!(!inside.exists() && !inside.exists());
    let mounted = call(
        &socket,
        "VolumeDriver.Mount",
        r#"{"Name":"data","ID":"one"}"#,
    );
    let path = mounted["Mountpoint"].as_str().unwrap().to_owned();
    fs::write(Path::new(&path).join("f"), "as the engine writes").unwrap();
    assert_eq!(fs::read_to_string(&inside).unwrap(), "as the engine writes");
    assert_eq!(
        call(&socket, "VolumeDriver.Path", r#"{"Name":"data"}"#)["Mountpoint"],
        path
    );
    drop(first);
    // Nobody serves it, and the container is still there.
    sandbox.mica(["volume", "rm", "data"]).fails();
    assert!(!mount.path("volumes/data/g").exists());
    let _second = plugin(&sandbox, &socket);
    fs::write(Path::new(&path).join("g"), "").unwrap();
    assert!(mount.path("volumes/data/g").exists());
    sandbox.mica(["volume", "rm", "data"]).fails();
    let refused = call(&socket, "VolumeDriver.Remove", r#"{"Name":"data"}"#);
    assert_eq!(refused["Err"], "volume data is mounted by 1 container(s)");
    for _ in 0..2 {
        assert_eq!(
            call(
                &socket,
                "VolumeDriver.Unmount",
                r#"{"Name":"data","ID":"one"}"#
            )["Err"],
            ""
        );
    }
    assert_eq!(
        call(&socket, "VolumeDriver.Remove", r#"{"Name":"data"}"#)["Err"],
        ""
    );
}

/// A set-id program works on what an engine mounts, as on docker's own volumes.
#[test]
fn root_plugin_mounts_honour_set_id() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("mica.sock");
    let _plugin = plugin(&sandbox, &socket);
    call(&socket, "VolumeDriver.Create", r#"{"Name":"data"}"#);
    let mount = r#"{"Name":"data","ID":"one"}"#;
    let mounted = call(&socket, "VolumeDriver.Mount", mount);
    let place = mounted["Mountpoint"].as_str().expect("a place");
    let user = "setpriv --reuid 54321 --regid 54321 --clear-groups";
    let seen = sandbox.sh(&format!(
        "cp /usr/bin/id {place}/id; chmod 4755 {place}/id; \
         unshare --mount sh -euc 'mount --bind {place} /mnt; {user} /mnt/id -u; {user} /usr/bin/id -u'"
    ));
    assert_eq!(seen.ok().stdout(), "0\n54321\n");
    call(&socket, "VolumeDriver.Unmount", mount);
}

/// A bind whose place another user can take, or has taken with a link, is not given to an engine.
#[test]
fn root_regression_plugin_gives_no_bind_that_was_swapped() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("mica.sock");
    let _plugin = plugin(&sandbox, &socket);
    let theirs = sandbox.mkdir("theirs");
    fs::create_dir(theirs.join("d")).unwrap();
    let create = |name: &str, path: &Path| {
        let body = format!(r#"{{"Name":"{name}","Opts":{{"kind":"bind","source":{path:?}}}}}"#);
        assert_eq!(call(&socket, "VolumeDriver.Create", &body)["Err"], "");
    };
    create("link", &theirs.join("d"));
    let mount = |name: &str| {
        call(
            &socket,
            "VolumeDriver.Mount",
            &format!(r#"{{"Name":"{name}","ID":"1"}}"#),
        )
    };
    assert_eq!(mount("link")["Err"], "");
    call(
        &socket,
        "VolumeDriver.Unmount",
        r#"{"Name":"link","ID":"1"}"#,
    );
    fs::remove_dir(theirs.join("d")).unwrap();
    std::os::unix::fs::symlink("/etc", theirs.join("d")).unwrap();
    let refused = mount("link");
    assert!(
        refused["Err"].as_str().unwrap().contains("cannot be given"),
        "{refused}"
    );
    fs::remove_file(theirs.join("d")).unwrap();
    fs::create_dir(theirs.join("d")).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let refused = mount("link");
    assert!(
        refused["Err"].as_str().unwrap().contains("another user"),
        "{refused}"
    );
    create("all", Path::new("/"));
    assert!(
        mount("all")["Err"]
            .as_str()
            .unwrap()
            .contains("the store in it")
    );
}

/// podman: volumes that mica has made are there, containers share them, one in use is not removed, an ephemeral one goes.
#[test]
fn root_plugin_gives_podman_volumes() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let socket = sandbox.path("mica.sock");
    let _plugin = plugin(&sandbox, &socket);
    let conf = sandbox.path("containers.conf");
    fs::write(
        &conf,
        format!("[engine.volume_plugins]\nmica = {socket:?}\n"),
    )
    .unwrap();
    let podman = |line: &str| {
        let (words, script) = line.split_once(" -- ").unwrap_or((line, ""));
        let mut command = engines.command("podman");
        command
            .env("CONTAINERS_CONF", &conf)
            .args(words.split_whitespace());
        command.args(Some(script).filter(|script| !script.is_empty()));
        sandbox.run(command)
    };
    let run = "run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
    podman("volume create --driver mica data").ok();
    fs::create_dir(mount.path("volumes/made")).unwrap();
    podman("volume create --driver mica made").ok();
    podman(&format!(
        "{run} -v data:/d -v made:/m app:1 sh -c -- echo hello >/d/f; echo there >/m/f"
    ))
    .ok();
    let seen = podman(&format!("{run} -v data:/d app:1 sh -c -- cat /d/f"))
        .ok()
        .stdout();
    assert_eq!(seen, "hello\n");
    assert_eq!(
        fs::read_to_string(mount.path("volumes/made/f")).unwrap(),
        "there\n"
    );
    fs::write(mount.path("volumes/data/back"), "from M").unwrap();
    assert_eq!(
        podman(&format!("{run} -v data:/d app:1 sh -c -- cat /d/back"))
            .ok()
            .stdout(),
        "from M"
    );
    podman("volume create --driver mica -o kind=ephemeral once").ok();
    let limits = &run["run --rm".len()..];
    podman(&format!("run -d --name web {limits} -v once:/o -v data:/d app:1 sh -c -- while :; do cat /dev/null; done")).ok();
    sandbox.mica(["volume", "rm", "data"]).fails();
    podman("rm -f -t 0 web").ok();
    wait_for("the ephemeral volume to go", || {
        !sandbox
            .mica(["volume", "ls", "-q"])
            .ok()
            .stdout()
            .contains("once")
    });
    podman("volume rm data").ok();
    assert!(!mount.path("volumes/data").exists());
    mount.unmount();
}

/// docker's engine, as Debian has it: create, list, inspect, share, refuse, remove; the image's files are copied into a new one.
#[test]
fn root_plugin_gives_docker_volumes() {
    let sandbox = Sandbox::new();
    let dockerd = Dockerd::start(&sandbox);
    let docker = |line: &str| dockerd.docker(line);
    sandbox.mica(["volume", "create", "made"]).ok();
    docker("volume create -d mica -o labels=a=b data").ok();
    let listed = docker("volume ls --format {{.Driver}}:{{.Name}}")
        .ok()
        .stdout();
    assert!(
        listed.contains("mica:data") && listed.contains("mica:made"),
        "{listed}"
    );
    let run = "run --rm --network none --volume-driver mica";
    docker(&format!(
        "{run} -v data:/d -v made:/data app:1 sh -c -- echo hello >/d/f"
    ))
    .ok();
    let seen = docker(&format!(
        "{run} -v data:/d -v made:/m app:1 sh -c -- cat /d/f /m/old"
    ))
    .ok();
    assert_eq!(seen.stdout(), "hello\nnew");
    let users = docker("volume inspect -f {{.Status.kind}}:{{.Status.users}} data").ok();
    assert_eq!(users.stdout().trim(), "persistent:0");
    docker("run -d --name web --network none -v data:/d app:1 sh -c -- while :; do cat /dev/null; done").ok();
    docker("volume rm data").fails();
    let refused = sandbox.mica(["volume", "rm", "data"]).fails();
    assert!(
        refused.stderr().contains("in use"),
        "{}",
        refused.describe()
    );
    let users = sandbox.mica(["users", "data"]).ok().stdout();
    assert!(users.contains(" sh "), "{users}");
    docker("rm -f web").ok();
    docker("volume rm data").ok();
    assert_eq!(sandbox.mica(["volume", "ls", "-q"]).ok().stdout(), "made\n");
}
