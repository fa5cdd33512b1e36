//! What a registry answers: a server of ours that says anything.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mica::oci::{Reference, Repository};
use mica::registry::{Client, Options};

use crate::Target;

pub const TARGETS: &[Target] = &[Target {
    name: "registry",
    specimens,
    words: &[
        "Www-Authenticate: Bearer realm=\"",
        "Location: ",
        "Link: </v2/a/tags/list?n=1>; rel=\"next\"\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "\r\n\r\n",
        "HTTP/1.1 401 x\r\n",
        "HTTP/1.1 307 x\r\n",
    ],
    read,
}];

fn specimens() -> Vec<Vec<u8>> {
    let answer = |head: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes()
    };
    vec![
        answer(
            "200 OK\r\nContent-Type: application/json",
            r#"{"name":"a","tags":["1","2"]}"#,
        ),
        answer(
            "200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\nDocker-Content-Digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            r#"{"schemaVersion":2,"manifests":[]}"#,
        ),
        answer(
            "401 no\r\nWww-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\",service=\"s\",scope=\"repository:a:pull\"",
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"m"}]}"#,
        ),
        answer("307 there\r\nLocation: /v2/a/manifests/2", ""),
    ]
}

struct Server {
    domain: String,
    answer: Arc<Mutex<Vec<u8>>>,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let domain = listener.local_addr().unwrap().to_string();
        let answer = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let bytes = said.lock().unwrap().clone();
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Server { domain, answer }
    })
}

fn read(bytes: &[u8]) {
    let server = server();
    *server.answer.lock().unwrap() = bytes.to_vec();
    let options = Options {
        insecure: vec![server.domain.clone()],
        retry_for: Duration::ZERO,
        mirrors: Vec::new(),
    };
    let reference: Reference = format!("{}/a:1", server.domain).parse().unwrap();
    let repository: &Repository = &reference.repository;
    if let Ok(client) = Client::connect(repository, &options) {
        let _ = client.tags(repository);
        let _ = client.manifest(repository, reference.tag.as_ref(), None);
    }
}
