//! Archives that say little and cost much: what mica takes of memory for them, by the kernel's own count of its peak.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::tarball::{TarEntry, header};

const MIB: usize = 1 << 20;
/// Far more than what is asserted.
const HUGE: u64 = 320 << 20;
/// Pages of the binary are among them.
const MOST: u64 = 200 << 10;

const MEASURE: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[2:], stdin=sys.stdin)
with open(sys.argv[1], 'w') as peak:
    peak.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)";

/// Loads a file, or what a shell command writes; the error is one, and the peak a small one.
fn refused(s: &Sandbox, what: &str, source: &str) {
    let mica = env!("CARGO_BIN_EXE_mica");
    fs::write(s.path("measure.py"), MEASURE).unwrap();
    for load in [
        format!("{source} >archive; /usr/bin/python3 measure.py peak {mica} load -i archive"),
        format!("{source} | /usr/bin/python3 measure.py peak {mica} load"),
    ] {
        let run: Run = s.sh(&load).code(1);
        assert!(
            run.stderr().starts_with("mica: "),
            "{what}: {}",
            run.describe()
        );
        let peak: u64 = fs::read_to_string(s.path("peak")).unwrap().parse().unwrap();
        assert!(peak < MOST, "{what}: {peak} KiB\n{}", run.describe());
    }
}

/// A member of an archive: its header and as many blanks as it says, or fewer; then what follows.
fn blanks(path: &Path, name: &str, size: u64, there: u64, rest: &[u8]) {
    let mut entry = TarEntry::new(b'0', name);
    entry.size = Some(size);
    let mut file = File::create(path).unwrap();
    file.write_all(&header(&entry)).unwrap();
    let piece = vec![b' '; MIB];
    let mut left = usize::try_from(there).unwrap();
    while left > 0 {
        let now = left.min(MIB);
        file.write_all(&piece[..now]).unwrap();
        left -= now;
    }
    file.write_all(rest).unwrap();
}

/// Documents of hundreds of megabytes, plain and in some kilobytes, and documents that only say so.
#[test]
fn cve_2023_25153_documents_without_end_take_no_memory() {
    let s = Sandbox::new();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": []}]).to_string();
    let after = {
        let mut entry = TarEntry::new(b'0', "manifest.json");
        entry.content = manifest.into_bytes();
        let mut bytes = [&header(&entry)[..], &entry.content].concat();
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    };
    let end = vec![0; 1024];
    for (name, rest) in [
        ("manifest.json", &end),
        ("index.json", &end),
        ("config.json", &after),
    ] {
        blanks(&s.path("plain"), name, HUGE, HUGE, rest);
        refused(&s, name, "cat plain");
        if name == "manifest.json" {
            s.sh("gzip -1 <plain >packed; zstd -q -f plain -o packed.zst")
                .ok();
            refused(&s, "gzip", "cat packed");
            refused(&s, "zstd", "cat packed.zst");
        }
    }
    for size in [1 << 62, u64::MAX >> 1, 8 << 30] {
        for name in ["manifest.json", "index.json"] {
            blanks(&s.path("plain"), name, size, 10, &[]);
            refused(&s, &format!("{name} of {size}"), "cat plain");
        }
    }
}

/// Extension headers that say they are gigabytes, in the archive and in a layer.
#[test]
fn cve_2025_58183_headers_without_end_take_no_memory() {
    let s = Sandbox::new();
    for kind in *b"xgLKS" {
        let mut entry = TarEntry::new(kind, "header");
        entry.size = Some(HUGE);
        let mut tar = header(&entry).to_vec();
        tar.resize(4 * MIB, b' ');
        fs::write(s.path("plain"), &tar).unwrap();
        refused(&s, "the archive", "cat plain");
        ImageBuilder::new("app:1")
            .layer_tar(tar)
            .docker_archive(&s.path("plain"));
        refused(&s, "a layer", "cat plain");
    }
}
