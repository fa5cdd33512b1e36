//! Which programs can be a keeper.

use std::path::{Path, PathBuf};

/// The small one.
const SMALL: &str = "mica-keeper";
/// Where it is installed, seen from the directory of this program; where it is built it lies beside.
const INSTALLED: &str = "../libexec/mica";

/// The small one where it may be found, and this program itself.
pub(super) fn keepers() -> (Vec<PathBuf>, PathBuf) {
    let own = std::env::current_exe();
    let dir = own.as_deref().ok().and_then(Path::parent);
    let small = dir
        .into_iter()
        .flat_map(beside)
        .filter(|path| path.is_file());
    (small.collect(), "/proc/self/exe".into())
}

fn beside(dir: &Path) -> [PathBuf; 2] {
    [dir.join(INSTALLED).join(SMALL), dir.join(SMALL)]
}
