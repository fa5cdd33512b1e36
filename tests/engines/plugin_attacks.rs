//! The volume plugin's socket and its record: who may ask, what stands in the way, and what a kill or a full disk leaves.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::plugin::{Process, call, plugin, raw, wait_for};
use super::*;

/// The socket is root's alone; whoever gets at it all the same gets no answer, and who sends slowly is left, with others served
/// meanwhile.
#[test]
fn root_plugin_is_root_s_alone_and_waits_for_nobody() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("p/mica.sock");
    let _plugin = plugin(&sandbox, &socket);
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX); s.settimeout(30)\n\
        try: s.connect(sys.argv[1])\n\
        except PermissionError: sys.exit('refused')\n\
        try: s.sendall(b'POST /VolumeDriver.List HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n{}'); print(s.recv(4096))\n\
        except OSError: print(b'')\n";
    let other = || {
        let mut command = crate::common::user::as_user(65_534, "/usr/bin/python3");
        command.args(["-c", script]).arg(&socket);
        sandbox.run(command)
    };
    assert_eq!(other().fails().stderr(), "refused\n");
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(other().ok().stdout(), "b''\n");
    // A byte now and then, for ever.
    let mut slow = UnixStream::connect(&socket).unwrap();
    let cut = std::thread::spawn(move || {
        let text = b"POST /VolumeDriver.List HTTP/1.1\r\n".iter();
        for byte in text.chain(std::iter::repeat(&b'x')).take(600) {
            if slow.write_all(&[*byte]).is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    });
    for n in 0..10 {
        let body = format!(r#"{{"Name":"quick{n}"}}"#);
        assert_eq!(call(&socket, "VolumeDriver.Create", &body)["Err"], "");
    }
    assert!(cut.join().unwrap(), "a slow request is waited for");
}

/// What is in the place of the socket is not taken away, unless it is the socket of a plugin that has died.
#[test]
fn root_plugin_takes_the_place_of_a_dead_socket_only() {
    let sandbox = Sandbox::new();
    let place = |socket: &Path| {
        let mut command = sandbox.command();
        command.args(["volume", "plugin", "--socket"]).arg(socket);
        sandbox.run(command).fails()
    };
    let dir = sandbox.mkdir("p");
    let names = || {
        let names = fs::read_dir(&dir).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let socket = dir.join("mica.sock");
    fs::write(&socket, "a file").unwrap();
    place(&socket);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
    fs::remove_file(&socket).unwrap();
    for target in ["/etc/passwd", "/nowhere"] {
        std::os::unix::fs::symlink(target, &socket).unwrap();
        place(&socket);
        assert_eq!(fs::read_link(&socket).unwrap(), Path::new(target));
        fs::remove_file(&socket).unwrap();
    }
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &socket, fifo, 0o600.into(), 0).unwrap();
    place(&socket);
    fs::remove_file(&socket).unwrap();
    place(&dir.join("x".repeat(120)));
    assert!(names().is_empty(), "{:?}", names());
    // Of one that was killed.
    let mut first = plugin(&sandbox, &socket);
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert!(socket.exists());
    let _second = plugin(&sandbox, &socket);
    assert_eq!(call(&socket, "VolumeDriver.List", "{}")["Err"], "");
    assert_eq!(names(), ["mica.sock"]);
}

/// `Mount` and `Unmount` on a full disk, and the plugin killed at each step of them: what it has told is held, and what it has
/// released is free.
#[test]
fn root_plugin_killed_and_on_a_full_disk() {
    let sandbox = Sandbox::new();
    crate::common::tier::root();
    sandbox
        .sh("mkdir -m 700 store && mount -t tmpfs -o size=4m,mode=700 tmpfs store")
        .ok();
    let socket = sandbox.path("mica.sock");
    let body = r#"{"Name":"data","ID":"one"}"#;
    {
        let _plugin = plugin(&sandbox, &socket);
        call(&socket, "VolumeDriver.Create", r#"{"Name":"data"}"#);
        sandbox.sh("! cat /dev/zero >store/fill 2>/dev/null").ok();
        let refused = call(&socket, "VolumeDriver.Mount", body);
        assert!(
            refused["Err"].as_str().unwrap().contains("No space left"),
            "{refused}"
        );
        fs::remove_file(sandbox.path("store/fill")).unwrap();
        // Refused is not held.
        sandbox.mica(["volume", "rm", "data"]).ok();
        call(&socket, "VolumeDriver.Create", r#"{"Name":"data"}"#);
    }
    let answered = |what: &str| {
        let head = format!(
            "POST /VolumeDriver.{what} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(&socket, head.as_bytes()).starts_with("HTTP/1.1 200")
    };
    for calls in ["fsync", "rename,renameat2", "sendto,write"] {
        for (what, number) in [("Mount", 1), ("Unmount", 1), ("Mount", 2), ("Unmount", 2)] {
            {
                let _plugin = plugin(&sandbox, &socket);
                let before = if what == "Mount" { "Unmount" } else { "Mount" };
                assert!(answered(before));
            }
            let mut strace = Command::new("strace");
            let inject = format!("inject={calls}:signal=KILL:when={number}");
            strace.args(["-f", "-o", "/dev/null", "-e", &inject]);
            strace.arg(env!("CARGO_BIN_EXE_mica"));
            strace.args(["volume", "plugin", "--socket"]).arg(&socket);
            strace.env("MICA_STORE", sandbox.store());
            let mut tracer = Process(strace.spawn().unwrap());
            let mut done = false;
            wait_for("the plugin, or its end", || {
                done = UnixStream::connect(&socket).is_ok();
                done || tracer.0.try_wait().unwrap().is_some()
            });
            let told = done && answered(what);
            // Not the tracer: the plugin would go on without it.
            let own = socket.display().to_string();
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let is_plugin = line.windows(own.len()).any(|at| at == own.as_bytes());
                let name = entry.file_name();
                if is_plugin && let Some(Ok(pid)) = name.to_str().map(str::parse) {
                    let pid = rustix::process::Pid::from_raw(pid).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = tracer.0.wait();
            wait_for("the plugin's end", || UnixStream::connect(&socket).is_err());
            let _plugin = plugin(&sandbox, &socket);
            let held = call(&socket, "VolumeDriver.Path", body)["Mountpoint"] != "";
            let wanted = what == "Mount";
            assert!(!told || held == wanted, "{calls} {what} {number}");
            // And it can be said again.
            assert!(answered(what));
            let held = call(&socket, "VolumeDriver.Path", body)["Mountpoint"] != "";
            assert_eq!(held, wanted, "{calls} {what} {number}");
            let refused = !sandbox.mica(["volume", "rm", "data"]).status.success();
            assert_eq!(refused, wanted);
            if !refused {
                call(&socket, "VolumeDriver.Create", r#"{"Name":"data"}"#);
            }
        }
    }
    sandbox.mica(["check"]).ok();
}

/// Who removes what an engine has is told so, not of a process 0.
#[test]
fn root_regression_plugin_is_named_as_the_user() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("p/mica.sock");
    let plugin = plugin(&sandbox, &socket);
    let body = r#"{"Name":"data","ID":"one"}"#;
    call(&socket, "VolumeDriver.Create", body);
    assert_eq!(call(&socket, "VolumeDriver.Mount", body)["Err"], "");
    drop(plugin);
    let refused = sandbox.mica(["volume", "rm", "data"]).fails();
    let wanted = "remove data: volume is in use - [engine (volume plugin)]";
    assert!(refused.stderr().contains(wanted), "{}", refused.describe());
    let users = sandbox.mica(["users", "data"]).ok().stdout();
    assert!(users.contains("engine (volume plugin)"), "{users}");
}
