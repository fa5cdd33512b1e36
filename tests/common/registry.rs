//! Debian's `docker-registry` on 127.0.0.1, for one test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::image::ImageBuilder;
use super::sandbox::Sandbox;

/// How a registry is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// With a certificate of a CA that nobody knows yet: [`Registry::trust`].
    Tls,
    /// The same, for clients with a certificate of that CA: [`Registry::give_client_certificate`].
    ClientTls,
    /// Plain, a cache of the one on this port.
    CacheOf(u16),
    /// Plain, for `tester` with the password `s3cr3t-w0rd` only.
    Password,
}

pub const USER: &str = "tester";
pub const PASSWORD: &str = "s3cr3t-w0rd";

/// A running registry; it ends with the value.
pub struct Registry {
    child: Child,
    pub port: u16,
    address: String,
    dir: std::path::PathBuf,
}

impl Registry {
    pub fn start(sandbox: &Sandbox, kind: Kind) -> Registry {
        Registry::start_at(sandbox, kind, "127.0.0.1")
    }

    /// At another address of this machine's.
    pub fn start_at(sandbox: &Sandbox, kind: Kind, address: &str) -> Registry {
        let port = free_port();
        let dir = sandbox.mkdir(&format!("registry-{port}"));
        let at = dir.display();
        let mut extra = String::new();
        if matches!(kind, Kind::Tls | Kind::ClientTls) {
            certificates(sandbox, &dir);
            extra = format!("  tls:\n    certificate: {at}/server.crt\n    key: {at}/server.key\n");
        }
        if kind == Kind::ClientTls {
            extra.push_str(&format!("    clientcas:\n      - {at}/ca.crt\n"));
        }
        if let Kind::CacheOf(port) = kind {
            extra = format!("proxy:\n  remoteurl: http://127.0.0.1:{port}\n");
        }
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {address}:{port}\n{extra}"
        );
        if kind == Kind::Password {
            let script = format!("htpasswd -Bbn -C 4 {USER} {PASSWORD} > {at}/htpasswd");
            sandbox.sh(&script).ok();
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n"
            ));
        }
        fs::write(dir.join("config.yml"), config).expect("the configuration");
        let log = fs::File::create(dir.join("registry.log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry: is the package docker-registry installed?");
        let registry = Registry {
            child,
            port,
            address: address.to_owned(),
            dir,
        };
        let start = Instant::now();
        while TcpStream::connect((address, port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no registry:\n{}",
                registry.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
        registry
    }

    /// `127.0.0.1:port`, or where else it is.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// `host/name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("registry.log")).unwrap_or_default()
    }

    /// Lets whoever runs in this sandbox trust the registry's certificate.
    pub fn trust(&self, sandbox: &Sandbox) {
        let dir = sandbox.mkdir(&format!(".config/docker/certs.d/{}", self.host()));
        fs::copy(self.dir.join("ca.crt"), dir.join("ca.crt")).expect("the CA");
    }

    /// Gives whoever runs in this sandbox a certificate of the registry's CA.
    pub fn give_client_certificate(&self, sandbox: &Sandbox) {
        let dir = sandbox.mkdir(&format!(".config/docker/certs.d/{}", self.host()));
        for (from, to) in [("client.crt", "client.cert"), ("client.key", "client.key")] {
            fs::copy(self.dir.join(from), dir.join(to)).expect("the client's certificate");
        }
    }

    /// Takes a blob's bytes away behind the registry's back.
    pub fn lose_blob(&self, digest: &str) {
        let hex = digest.replace("sha256:", "");
        let blobs = self.dir.join("data/docker/registry/v2/blobs/sha256");
        fs::remove_dir_all(blobs.join(&hex[..2]).join(&hex)).expect("the blob");
    }

    /// Puts an image there with skopeo; the digest of its manifest.
    #[track_caller]
    pub fn push_with_skopeo(&self, sandbox: &Sandbox, image: &ImageBuilder, name: &str) -> String {
        let layout = sandbox.mkdir(&format!("layout-{}", name.replace(['/', ':'], "-")));
        image.oci_dir(&layout);
        let digest = sandbox.path("digest");
        skopeo(
            sandbox,
            &[
                "copy",
                "-q",
                "--dest-tls-verify=false",
                "--digestfile",
                &digest.display().to_string(),
                &format!("oci:{}:{}", layout.display(), image.tags[0]),
                &format!("docker://{}", self.name(name)),
            ],
        );
        fs::read_to_string(digest)
            .expect("a digest")
            .trim()
            .to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- the registry ----\n{}", self.log());
        }
    }
}

/// Runs skopeo to its success.
#[track_caller]
pub fn skopeo(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("--insecure-policy").args(args);
    sandbox.run(skopeo).ok().stdout()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn certificates(sandbox: &Sandbox, dir: &Path) {
    let script = format!(
        "cd {}\n\
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mica-test-ca \
           -keyout ca.key -out ca.crt 2>/dev/null\n\
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1 \
           -keyout server.key -out server.csr 2>/dev/null\n\
         printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > ext\n\
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
           -out server.crt 2>/dev/null\n\
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tester \
           -keyout client.key -out client.csr 2>/dev/null\n\
         printf 'extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n' > ext\n\
         openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
           -out client.crt 2>/dev/null\n",
        dir.display()
    );
    sandbox.sh(&script).ok();
}
