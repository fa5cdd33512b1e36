//! Who we are to a registry: found in docker's and podman's files and their helpers, written by `login`.
//!
//! A secret is in no `Debug`, no error and no log line. Helpers' output is never repeated.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::{Map, Value, json};

use super::{RegistryError, docker_config};
use crate::oci::Repository;
use crate::sys::lock::{self, LockMode};
use crate::sys::new_file::NewFile;

/// Docker Hub's name in files of credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A user name and password, or a token that stands for both.
#[derive(Clone)]
pub enum Credential {
    /// Sent as basic authentication.
    Password {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// A refresh token of OAuth2.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Password { user, .. } => write!(f, "Password({user:?}, ..)"),
            Credential::IdentityToken(_) => f.write_str("IdentityToken(..)"),
        }
    }
}

impl Credential {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Credential::Password { user, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            Credential::IdentityToken(_) => None,
        }
    }
}

/// The key of a registry in files of credentials.
pub fn key(domain: &str) -> &str {
    match domain {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB_KEY,
        other => other,
    }
}

/// The credential for a repository, if any file has one: docker's has one for each registry, podman's also for a repository or
/// the namespaces above it, of which the closest counts.
pub fn find(repository: &Repository) -> Result<Option<Credential>, RegistryError> {
    let domain = repository.domain();
    if let Some(path) = docker_config::path()
        && let Some(found) = read(&path).map(|file| file.look(key(domain), domain))
        && let Some(found) = found?
    {
        return Ok(Some(found));
    }
    for path in podman_paths() {
        let Some(file) = read(&path) else { continue };
        let mut name = format!("{domain}/{}", repository.path());
        loop {
            // Above a registry's own name there is none, and helpers are asked for registries only.
            if (name == domain || file.names(&name))
                && let Some(found) = file.look(&name, domain)?
            {
                return Ok(Some(found));
            }
            match name.rsplit_once('/') {
                Some((above, _)) => name.truncate(above.len()),
                None => break,
            }
        }
    }
    Ok(None)
}

/// A file of credentials.
struct Credentials {
    path: PathBuf,
    bytes: Vec<u8>,
    content: Value,
}

/// `None`: it is missing, unreadable for this user, or no JSON or far too large, which is said.
fn read(path: &Path) -> Option<Credentials> {
    let bytes = match docker_config::bytes(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::Other => {
            log::warn!("{}: {error}; its credentials are not used", path.display());
            return None;
        }
        Err(_) => return None,
    };
    match serde_json::from_slice(&bytes) {
        Ok(content) => Some(Credentials {
            path: path.to_owned(),
            bytes,
            content,
        }),
        // serde_json's errors tell a position, never the text.
        Err(error) => {
            let path = path.display();
            log::warn!("{path} is not valid JSON, its credentials are not used: {error}");
            None
        }
    }
}

impl Credentials {
    fn names(&self, name: &str) -> bool {
        let auths = self.content.get("auths");
        auths.is_some_and(|auths| auths.get(name).is_some())
    }

    /// What it has for this name, itself or by a helper.
    fn look(&self, name: &str, domain: &str) -> Result<Option<Credential>, RegistryError> {
        let found = docker_credential::get_credential_from_reader(self.bytes.as_slice(), name);
        let reason = match found {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(Credential::Password { user, password }));
            }
            Ok(DockerCredential::IdentityToken(token)) => {
                return Ok(Some(Credential::IdentityToken(token)));
            }
            Err(CredentialRetrievalError::ConfigReadError) => {
                let path = self.path.display();
                log::warn!("{path} is no file of credentials, none of it is used");
                return Ok(None);
            }
            Err(
                CredentialRetrievalError::NoCredentialConfigured
                | CredentialRetrievalError::ConfigNotFound,
            ) => return Ok(None),
            // This is how a helper says that it has none.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                return Ok(None);
            }
            Err(CredentialRetrievalError::HelperFailure { .. }) => "it ended with an error",
            Err(CredentialRetrievalError::HelperCommunicationError) => "it cannot be run",
            Err(CredentialRetrievalError::MalformedHelperResponse) => "its answer makes no sense",
            Err(CredentialRetrievalError::CredentialDecodingError) => {
                "the stored credential cannot be decoded; log in again"
            }
            Err(CredentialRetrievalError::CredentialMismatchError) => {
                "the stored credential contradicts itself; log in again"
            }
        };
        Err(RegistryError::Helper {
            host: domain.to_owned(),
            reason,
        })
    }
}

/// Where podman has its credentials: where it is told to, else those of this session, then those that last.
fn podman_paths() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path];
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let dirs = variable("XDG_RUNTIME_DIR").into_iter().chain(home);
    dirs.map(|dir| dir.join("containers/auth.json")).collect()
}

/// Keeps a credential in docker's `config.json` or with the helper that it names. The answer is the file, if the secret
/// itself is in it.
pub fn keep(domain: &str, credential: &Credential) -> Result<Option<PathBuf>, RegistryError> {
    let _lock = lock_config()?;
    let (path, mut config) = read_config()?;
    let (user, secret) = match credential {
        Credential::Password { user, password } => (user.as_str(), password.as_str()),
        Credential::IdentityToken(token) => ("<token>", token.as_str()),
    };
    if let Some(helper) = helper(&config, domain) {
        let request = json!({"ServerURL": key(domain), "Username": user, "Secret": secret});
        run_helper(domain, &helper, "store", &request.to_string())?;
        return Ok(None);
    }
    let entry = match credential {
        Credential::Password { user, password } => {
            json!({"auth": STANDARD.encode(format!("{user}:{password}"))})
        }
        Credential::IdentityToken(token) => json!({"auth": "", "identitytoken": token}),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut().ok_or_else(|| RegistryError::File {
        path: path.clone(),
        reason: "\"auths\" is no object".to_owned(),
    })?;
    auths.insert(key(domain).to_owned(), entry);
    write_config(&path, &config)?;
    Ok(Some(path))
}

/// Forgets a registry's credential; whether there was one in the file or with its helper.
pub fn forget(domain: &str) -> Result<bool, RegistryError> {
    if docker_config::path().is_some_and(|path| !path.exists()) {
        return Ok(false);
    }
    let _lock = lock_config()?;
    let (path, mut config) = read_config()?;
    if let Some(helper) = helper(&config, domain) {
        run_helper(domain, &helper, "erase", key(domain))?;
        return Ok(true);
    }
    let auths = config.get_mut("auths").and_then(Value::as_object_mut);
    let there = auths.is_some_and(|auths| auths.remove(key(domain)).is_some());
    if there {
        write_config(&path, &config)?;
    }
    Ok(there)
}

/// Keeps two logins at the same time from losing one of the credentials; other programs know nothing of it. The lock is the
/// directory's, so there is no file to leave behind. `None`: there is no directory, or no such locks.
fn lock_config() -> Result<Option<File>, RegistryError> {
    let Some(path) = docker_config::path() else {
        return Ok(None);
    };
    let path = path.canonicalize().unwrap_or(path);
    let dir = path.parent().unwrap_or(Path::new("."));
    make_private(dir).map_err(|error| RegistryError::File {
        path: dir.to_owned(),
        reason: error.to_string(),
    })?;
    let Ok(file) = File::open(dir) else {
        return Ok(None);
    };
    match lock::lock(&file, LockMode::Exclusive) {
        Ok(()) => Ok(Some(file)),
        // Better without than not at all.
        Err(_) => Ok(None),
    }
}

/// Makes the directory, for its owner only, if it is not there.
fn make_private(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn read_config() -> Result<(PathBuf, Map<String, Value>), RegistryError> {
    let path = docker_config::path().ok_or_else(|| RegistryError::File {
        path: PathBuf::from("config.json"),
        reason: "neither DOCKER_CONFIG nor HOME is set".to_owned(),
    })?;
    let fail = |reason: String| RegistryError::File {
        path: path.clone(),
        reason,
    };
    let bytes = match docker_config::bytes(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((path, Map::new()));
        }
        Err(error) => return Err(fail(error.to_string())),
    };
    // serde_json's errors tell a position, never the text.
    let config = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
    Ok((path, config))
}

/// Replaces the file, readable by its owner only from the beginning. A symlink keeps leading to it.
fn write_config(path: &Path, config: &Map<String, Value>) -> Result<(), RegistryError> {
    let write = || {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let dir = path.parent().unwrap_or(Path::new("."));
        make_private(dir)?;
        let mut text = serde_json::to_vec_pretty(config)?;
        text.push(b'\n');
        let new = NewFile::create(&path)?;
        new.file().write_all(&text)?;
        new.persist()
    };
    write().map_err(|error: std::io::Error| RegistryError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The helper that docker's configuration names for this registry.
fn helper(config: &Map<String, Value>, domain: &str) -> Option<String> {
    let own = config
        .get("credHelpers")
        .and_then(|helpers| helpers.get(key(domain)));
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn run_helper(domain: &str, helper: &str, verb: &str, input: &str) -> Result<(), RegistryError> {
    let fail = |reason| RegistryError::Helper {
        host: domain.to_owned(),
        reason,
    };
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| fail("it cannot be run"))?;
    let mut stdin = child.stdin.take();
    // What it did not read shows in how it ends.
    let _ = stdin.as_mut().map(|pipe| pipe.write_all(input.as_bytes()));
    drop(stdin);
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(fail("it ended with an error")),
    }
}
