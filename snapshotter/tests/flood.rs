//! More than anybody sends: crowds that wait, labels without end, filters without end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::Duration;

use mica_snapshotter::proto::{Info, MountsResponse};
use tonic::Code;

use crate::client::{Client, code, create, labels};
use crate::common::sandbox::Sandbox;
use crate::layers::unpack;
use crate::work::{Running, chains, command, image, start, wait_until};

/// Asks on another thread; whether there was an answer.
fn answers(running: &Running) -> bool {
    let (send, receive) = mpsc::channel();
    let socket = running.socket.clone();
    std::thread::spawn(move || {
        let client = Client::connect(&socket);
        client.prepare("beside", "").unwrap();
        client.remove("beside").unwrap();
        // Nobody may wait any more.
        let _ = send.send(client.names(&[]).len());
    });
    receive.recv_timeout(Duration::from_secs(20)).is_ok()
}

/// More requests than there are threads wait for a mount that does not answer: others are answered, and these when it goes on.
#[test]
fn regression_root_flood_of_requests_that_wait() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    unpack(&running, &app, &labels(&[]));
    let top = chains(&app)[2].clone();
    running.client.prepare("own", "").unwrap();
    let daemon = m.daemon().unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    let (answered, done) = std::thread::scope(|scope| {
        let (socket, top) = (&running.socket, &top);
        let crowd = scope.spawn(move || {
            let requests = (0..600).map(|n| create(&format!("key-{n}"), top, labels(&[])));
            Client::connect(socket).together::<_, MountsResponse>("Prepare", requests.collect())
        });
        // Until they are waiting.
        std::thread::sleep(Duration::from_secs(2));
        let (send, receive) = mpsc::channel();
        std::thread::spawn({
            let socket = running.socket.clone();
            move || {
                let client = Client::connect(&socket);
                client.commit("committed", "own").unwrap();
                // Nobody may wait any more.
                let _ = send.send(client.names(&[]).len());
            }
        });
        let answered = receive.recv_timeout(Duration::from_secs(20));
        let answered = answered == Ok(4) && !crowd.is_finished();
        rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
        (answered, crowd.join().unwrap())
    });
    assert!(answered);
    assert!(done.into_iter().all(|answer| answer.is_ok()));
    assert!(answers(&running));
    drop(running);
    m.unmount();
}

/// Snapshots with all the labels they may have are listed in messages that clients take.
#[test]
fn regression_root_flood_of_labels() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let value = "v".repeat(4000);
    let pairs: Vec<(String, String)> = (0..60).map(|n| (format!("l{n}"), value.clone())).collect();
    for n in 0..40 {
        let given = pairs.iter().cloned().collect();
        running
            .client
            .create("Prepare", &format!("key-{n}"), "", given)
            .unwrap();
    }
    assert_eq!(running.client.names(&[]).len(), 40);
    // All of them, named a hundred thousand times.
    let info = Info {
        name: "key-0".into(),
        labels: pairs.iter().take(50).cloned().collect(),
        ..Info::default()
    };
    let fields = vec!["labels"; 100_000];
    let updated = running.client.update(info, &fields).unwrap();
    assert_eq!(updated.labels.len(), 50);
    assert!(answers(&running));
}

/// Regular expressions that take a megabyte each, more than there is memory for.
#[test]
fn regression_root_flood_of_regular_expressions() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.client.prepare("one", "").unwrap();
    let filter = r"name~=/\w{20}|one/";
    assert_eq!(running.client.names(&[filter; 10]), ["one"]);
    let many = running.client.list(&vec![filter; 5000]);
    assert_eq!(code(many), Code::InvalidArgument);
    let one = vec![filter; 5000].join(",");
    assert_eq!(code(running.client.list(&[&one])), Code::InvalidArgument);
    assert!(answers(&running));
}

/// Half a thousand connections that say nothing, or half of something: who has one is answered on it, and others are when they have gone.
#[test]
fn root_flood_of_connections() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.client.prepare("one", "").unwrap();
    let own = rustix::process::Pid::from_raw(running.pid().try_into().unwrap());
    let few = rustix::process::Rlimit {
        current: Some(200),
        maximum: Some(200),
    };
    rustix::process::prlimit(own, rustix::process::Resource::Nofile, few).unwrap();
    let connections: Vec<_> = (0..500)
        .filter_map(|n| {
            let mut stream = std::os::unix::net::UnixStream::connect(&running.socket).ok()?;
            let text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x10\x04\0\0\0\0\0";
            stream.set_nonblocking(true).unwrap();
            // Hung up on, or not taken yet.
            let _ = std::io::Write::write_all(&mut stream, &text[..n % text.len()]);
            Some(stream)
        })
        .collect();
    assert_eq!(running.client.names(&[]), ["one"]);
    assert_eq!(running.client.stat("one").unwrap().name, "one");
    drop(connections);
    wait_until("it answers others", || answers(&running));
    running.end();
    sandbox.mica(["check"]).ok();
}

/// Whatever its umask is, nobody else can put a socket in the place of its own.
#[test]
fn regression_root_flood_umask() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("made/here/snapshotter.sock");
    let mut shell = std::process::Command::new("sh");
    let program = command(&sandbox).get_program().to_owned();
    shell
        .args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(program);
    shell
        .arg("--socket")
        .arg(&socket)
        .env("MICA_STORE", sandbox.store());
    let mut child = shell.spawn().unwrap();
    wait_until("it listens", || socket.exists());
    for dir in ["made", "made/here"] {
        let mode = fs::metadata(sandbox.path(dir))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
