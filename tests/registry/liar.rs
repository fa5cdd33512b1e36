//! A registry for the tests that answers what it is told to, right or wrong.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::image::{ImageBuilder, digest};

/// One request, as far as the tests care.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sent in `Content-Length` in place of the truth; `None` sends none.
    pub length: Option<usize>,
    /// Bytes of the body that are sent before the connection is closed.
    pub cut: Option<usize>,
    /// Goes on with zeros for ever.
    pub endless: bool,
    /// Bytes of the body after which nothing more comes, and the connection stays.
    pub stall: Option<usize>,
    /// One byte in this time.
    pub trickle: Option<Duration>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        Answer {
            status,
            headers: Vec::new(),
            length: Some(body.len()),
            body,
            cut: None,
            endless: false,
            stall: None,
            trickle: None,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request, Answer) -> Answer + Send + Sync;

/// A server of one image that changes its answers as the test wants.
pub struct Liar {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

/// The honest answers: everything of one image, under any repository and the tag `1`.
fn honest(image: &ImageBuilder, request: &Request) -> Answer {
    let (blobs, descriptors) = image.oci_blobs();
    let manifest = descriptors[0]["digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let path = request.path.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let wanted = if name == "1" { manifest.as_str() } else { name };
    let found = blobs.iter().find(|(digest, _)| digest == wanted);
    match (path, found) {
        ("/v2/", _) => Answer::new(200, "{}"),
        (_, Some((digest, bytes))) if path.contains("/manifests/") => {
            Answer::new(200, bytes.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .header("Docker-Content-Digest", digest)
        }
        (_, Some((_, bytes))) => {
            let range = request.headers.get("range").and_then(|range| {
                let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
                start.parse::<usize>().ok()
            });
            match range {
                Some(start) => {
                    let total = bytes.len();
                    Answer::new(206, bytes[start..].to_vec()).header(
                        "Content-Range",
                        format!("bytes {start}-{}/{total}", total - 1),
                    )
                }
                None => Answer::new(200, bytes.clone()),
            }
        }
        _ => Answer::new(
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}"#,
        ),
    }
}

impl Liar {
    /// Serves `image`; every honest answer goes through `lie`.
    pub fn start(
        image: &ImageBuilder,
        lie: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (image, lie): (_, Arc<Handler>) = (Arc::new(image.clone()), Arc::new(lie));
        let log = seen.clone();
        // Ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (image, lie, log) = (image.clone(), lie.clone(), log.clone());
                thread::spawn(move || {
                    // A client that goes away is what several tests are about.
                    let _ = serve(stream, &image, &*lie, &log);
                });
            }
        });
        Liar { port, seen }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn name(&self) -> String {
        format!("{}/app:1", self.host())
    }

    /// How many requests had this in their path.
    pub fn count(&self, part: &str) -> usize {
        let seen = self.seen.lock().expect("the log");
        seen.iter().filter(|r| r.path.contains(part)).count()
    }
}

fn serve(
    stream: TcpStream,
    image: &ImageBuilder,
    lie: &Handler,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: HashMap::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => request
                .headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = request
        .headers
        .get("content-length")
        .and_then(|l| l.parse().ok());
    if matches!(request.method.as_str(), "POST" | "PUT") {
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        request.body = String::from_utf8_lossy(&body).into_owned();
    }
    if request.headers.contains_key("transfer-encoding") {
        let mut size = 1;
        while size > 0 {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            reader.read_exact(&mut vec![0; size + 2])?;
        }
    }
    log.lock().expect("the log").push(request.clone());
    let answer = lie(&request, honest(image, &request));
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = answer.length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    if let Some(pause) = answer.trickle {
        for byte in body {
            out.write_all(&[*byte])?;
            thread::sleep(pause);
        }
        return Ok(());
    }
    if let Some(stall) = answer.stall {
        out.write_all(&body[..stall])?;
        // Until the client goes away.
        thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    out.write_all(body)?;
    if !answer.endless {
        return Ok(());
    }
    loop {
        out.write_all(&[0; 65536])?;
    }
}

/// The digest of a layer of the image as it is served.
pub fn layer_digest(image: &ImageBuilder, number: usize) -> String {
    digest(&image.pack.apply(&image.layers[number]))
}
