//! Archives, by offset and as a stream.

use std::io::{Seek as _, Write as _};

use mica::archive::{self, Input, Opened};

use crate::Target;

pub const TARGETS: &[Target] = &[Target {
    name: "archive",
    specimens,
    words: &[
        "manifest.json",
        "index.json",
        "oci-layout",
        "\"Layers\":[",
        "blobs/sha256/",
        "../",
        "null",
        "[[[[",
    ],
    read,
}];

fn specimens() -> Vec<Vec<u8>> {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let docker = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]"#;
    let index = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}]}"#;
    let pack = |files: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(u64::try_from(bytes.len()).unwrap());
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    vec![
        pack(&[("manifest.json", docker), ("c.json", config)]),
        pack(&[
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", index),
            (
                "blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                b"",
            ),
        ]),
    ]
}

fn read(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.write_all(bytes).unwrap();
    let seekable = archive::open(Input::Path(file.path().to_owned()));
    if let Ok(Opened::Catalog(catalog)) = seekable {
        let _ = catalog.images(None);
    }
    let mut copy = file.reopen().unwrap();
    copy.rewind().unwrap();
    if let Ok(Opened::Catalog(catalog)) = archive::open(Input::Stream(copy.into())) {
        let _ = catalog.images(None);
    }
}
