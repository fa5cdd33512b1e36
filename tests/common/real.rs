//! The images that `contrib/test-images` builds from Debian's packages.

use std::path::PathBuf;

/// Where they are: `MICA_TEST_IMAGES`, or `target/test-images`.
pub fn directory() -> PathBuf {
    match std::env::var_os("MICA_TEST_IMAGES") {
        Some(dir) => dir.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "target", "test-images"]
            .iter()
            .collect(),
    }
}

/// `localhost/mica-test:NAME` as a docker-archive; NAME is `small` or `real`.
pub fn docker_archive(name: &str) -> PathBuf {
    existing(directory().join(format!("{name}.docker.tar")))
}

/// The same as an oci-archive with compressed layers.
pub fn oci_archive(name: &str) -> PathBuf {
    existing(directory().join(format!("{name}.oci.tar")))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: `make test` builds it, or contrib/test-images",
        path.display()
    );
    path
}
