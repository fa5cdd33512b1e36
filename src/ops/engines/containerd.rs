//! containerd's `config.toml`: the lines that make `mica-snapshotter` one of its snapshotters.
//!
//! Edited as podman's file is: what we add stands between two marks, and only that is ever taken away.

use std::path::{Path, PathBuf};

use super::podman::{self, BEGIN, END, disconnect};

/// Where the snapshotter listens.
pub const SOCKET: &str = "/run/mica/snapshotter.sock";

/// Why the file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Somebody has one of that name.
    #[error("proxy_plugins has mica, or is no table, already; set its address to {0:?} by hand")]
    Taken(PathBuf),
    /// What the marks or a parser say.
    #[error(transparent)]
    Text(#[from] podman::ConfError),
    /// A path that TOML cannot carry as it is.
    #[error(
        "{0}: a socket with quotes or backslashes in its path cannot be given to containerd; choose another"
    )]
    Path(PathBuf),
}

/// The lines.
pub fn lines(socket: &Path) -> Result<String, ConfError> {
    let fits = |text: &&str| !text.contains(['"', '\\', '\n']);
    let text = socket.to_str().filter(fits);
    let text = text.ok_or_else(|| ConfError::Path(socket.to_owned()))?;
    let shifts = match shows_other_owners() {
        true => "\n  capabilities = [\"remap-ids\"]",
        false => "",
    };
    Ok(format!(
        "[proxy_plugins.mica]\n  type = \"snapshot\"\n  address = \"{text}\"{shifts}"
    ))
}

/// Whether the kernel maps ids of FUSE file systems: Linux 6.12. Where it does not containerd copies layers, unless it is told that
/// it need not.
fn shows_other_owners() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse().ok());
    let version: (u32, u32) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    version >= (6, 12)
}

/// What the kubelet's containerd needs besides, to be written by hand: it is a choice for all images of the node.
pub const FOR_THE_KUBELET: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]
  snapshotter = \"mica\"
  disable_snapshot_annotations = false";

/// The same for containerd 2, where the second half is for its own pulls (`ctr`): what is listed there is all that they can use.
pub const FOR_THE_KUBELET_2: &str = "[plugins.\"io.containerd.cri.v1.images\"]
  snapshotter = \"mica\"
  disable_snapshot_annotations = false
[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]
  platform = \"linux/amd64\"
  snapshotter = \"mica\"
[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]
  platform = \"linux/amd64\"
  snapshotter = \"overlayfs\"";

/// The text of the file with the snapshotter added; of one that has it already, the same.
pub fn connect(text: &str, socket: &Path) -> Result<String, ConfError> {
    let lines = lines(socket)?;
    let text = disconnect(text)?;
    let document = podman::document(&text)?;
    let plugins = document.get("proxy_plugins");
    if plugins.is_some_and(|plugins| !plugins.is_table() || plugins.get("mica").is_some()) {
        return Err(ConfError::Taken(socket.to_owned()));
    }
    let version = match text.trim().is_empty() {
        true => "version = 2\n",
        false => "",
    };
    let end = match text.is_empty() || text.ends_with('\n') {
        true => "",
        false => "\n",
    };
    let text = format!("{text}{end}{BEGIN}\n{version}{lines}\n{END}\n");
    podman::document(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_can_be_taken_away() {
        let socket = Path::new(SOCKET);
        for text in [
            "",
            "version = 2\n",
            "version = 2\n[proxy_plugins]\n[proxy_plugins.other]\n  type = \"snapshot\"\n",
        ] {
            let with = connect(text, socket).unwrap();
            assert!(with.contains("address = \"/run/mica/snapshotter.sock\""));
            assert_eq!(with.matches("version").count(), 1, "{with}");
            assert_eq!(connect(&with, socket).unwrap(), with);
            assert_eq!(disconnect(&with).unwrap(), text);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "[proxy_plugins.mica]\n",
            " [ proxy_plugins . \"mica\" ]\n",
            "proxy_plugins = {}\n",
        ] {
            let refused = connect(text, Path::new(SOCKET));
            assert!(matches!(refused, Err(ConfError::Taken(_))), "{text}");
        }
        for text in ["[proxy_plugins\n", "# mica begin\n"] {
            let refused = connect(text, Path::new(SOCKET));
            assert!(matches!(refused, Err(ConfError::Text(_))), "{text}");
        }
        let refused = connect("", Path::new("/a\"b"));
        assert!(matches!(refused, Err(ConfError::Path(_))));
    }
}
