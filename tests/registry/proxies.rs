//! Proxies from the environment: a small real one stands between mica and a registry whose name only it knows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::pulling::app;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Run, Sandbox};

/// What `registry.test` stands for nowhere but in the proxy.
const NAME: &str = "registry.test:5000";

/// The targets that were asked for, and who asked.
type Seen = Mutex<Vec<(String, Option<String>)>>;

/// A proxy that tunnels everything to one port of this machine.
struct Proxy {
    port: u16,
    seen: Arc<Seen>,
}

impl Proxy {
    fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Seen> = Arc::default();
        let log = seen.clone();
        // Ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                // A client that goes away is its own affair.
                thread::spawn(move || drop(tunnel(stream, target, &log)));
            }
        });
        Proxy { port, seen }
    }

    fn url(&self) -> String {
        format!("http://me:pr0xy-w0rd@127.0.0.1:{}", self.port)
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("the log").len()
    }
}

fn tunnel(stream: TcpStream, target: u16, log: &Seen) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, name) = (words.next(), words.next().unwrap_or_default().to_owned());
    let mut who = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim().split_once(": ") {
            Some((key, value)) if key.eq_ignore_ascii_case("proxy-authorization") => {
                who = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut out = stream.try_clone()?;
    log.lock().expect("the log").push((name, who));
    if method != Some("CONNECT") {
        return out.write_all(b"HTTP/1.1 405 no\r\nContent-Length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(("127.0.0.1", target))?;
    out.write_all(b"HTTP/1.1 200 here you are\r\n\r\n")?;
    let (mut up, mut down) = (server.try_clone()?, server);
    let forth = thread::spawn(move || {
        // What is in the buffer already is the tunnel's too.
        let _ = copy(&mut reader, &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let result = copy(&mut down, &mut out);
    let _ = out.shutdown(Shutdown::Both);
    let _ = forth.join();
    result
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = [0; 65536];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}

fn mica(sandbox: &Sandbox, variables: &[(&str, &str)], args: &[&str]) -> Run {
    let mut command = sandbox.command();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(variables.iter().copied()).args(args);
    sandbox.run(command)
}

#[test]
fn net_pull_and_push_through_a_proxy() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = app("app:1");
    registry.push_with_skopeo(&sandbox, &image, "app:1");
    let proxy = Proxy::start(registry.port);
    let name = format!("{NAME}/app:1");
    let pull = [
        "pull",
        "--retry-for",
        "1",
        "--insecure-registry",
        NAME,
        &name,
    ];
    let both = [("HTTP_PROXY", proxy.url()), ("https_proxy", proxy.url())];
    let both: Vec<_> = both.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let run = mica(&sandbox, &both, &pull).ok();
    assert!(
        run.stdout().contains("Downloaded newer image"),
        "{}",
        run.stdout()
    );
    let seen = proxy.seen.lock().expect("the log").clone();
    // base64 of me:pr0xy-w0rd
    let who = Some("Basic bWU6cHIweHktdzByZA==".to_owned());
    assert!(
        !seen.is_empty() && seen.iter().all(|s| *s == (NAME.to_owned(), who.clone())),
        "{seen:?}"
    );
    let other = format!("{NAME}/pushed:1");
    mica(&sandbox, &both, &["tag", &name, &other]).ok();
    mica(
        &sandbox,
        &both,
        &["push", "--insecure-registry", NAME, &other],
    )
    .ok();
    sandbox
        .mica(["pull", "-q", &registry.name("pushed:1")])
        .ok();

    // Without it, or with this host excepted, nobody knows the name.
    let before = proxy.count();
    let run = mica(&sandbox, &[], &pull).code(1);
    assert!(
        run.stderr().contains("cannot reach registry.test:5000"),
        "{}",
        run.stderr()
    );
    for except in [
        "registry.test",
        ".test",
        "other.org, registry.test:5000",
        "*",
    ] {
        let mut variables = both.clone();
        variables.push(("NO_PROXY", except));
        mica(&sandbox, &variables, &pull).code(1);
    }
    assert_eq!(proxy.count(), before);
    // This machine is never reached through a proxy.
    mica(&sandbox, &both, &["pull", "-q", &registry.name("app:1")]).ok();
    assert_eq!(proxy.count(), before);
    // A proxy that is none, and one that is not there: an error that keeps the password to itself.
    for broken in [
        "http://me:pr0xy-w0rd@:x/",
        "http://me:pr0xy-w0rd@127.0.0.1:1",
    ] {
        let variables = [
            ("HTTPS_PROXY", broken),
            ("HTTP_PROXY", broken),
            ("MICA_LOG", "trace"),
        ];
        let run = mica(&sandbox, &variables, &pull).code(1);
        assert!(!run.describe().contains("pr0xy-w0rd"), "{}", run.describe());
    }
}

#[test]
fn net_tls_through_a_proxy_is_the_registry_s() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Tls);
    registry.push_with_skopeo(&sandbox, &app("app:1"), "app:1");
    let proxy = Proxy::start(registry.port);
    // The certificate is for localhost and 127.0.0.1: through the proxy it is another host's.
    let name = format!("{NAME}/app:1");
    let url = proxy.url();
    let variables = [("HTTPS_PROXY", url.as_str())];
    let run = mica(&sandbox, &variables, &["pull", "--retry-for", "1", &name]).code(1);
    assert!(run.stderr().contains("certificate"), "{}", run.stderr());
    assert!(proxy.count() > 0);
    mica(
        &sandbox,
        &variables,
        &["pull", "--insecure-registry", NAME, &name],
    )
    .ok();
}
