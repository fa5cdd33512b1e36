//! Small images made in memory, for the tests of the store inside the library and outside.

use std::io::Write as _;

use mica::layer::{LayerScanner, Limits};
use mica::oci::{DiffId, Digest, ImageConfig, ImageId, TagRef};
use mica::store::{Import, NewImage, NewOrigin, Store, StoreError};

pub fn tag(text: &str) -> TagRef {
    TagRef::parse(text).expect("a tag")
}

/// The tar of layer `number`: one file.
pub fn layer_tar(number: u32) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let text = format!("layer {number}\n").repeat(1000);
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, format!("file-{number}"), text.as_bytes())
        .expect("writing to memory");
    builder.into_inner().expect("writing to memory")
}

/// Its digest.
pub fn diff_id(number: u32) -> DiffId {
    DiffId(Digest::of(&layer_tar(number)))
}

pub fn config(layers: &[u32]) -> ImageConfig {
    let ids: Vec<String> = layers.iter().map(|n| diff_id(*n).to_string()).collect();
    let json = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    ImageConfig::parse(json.to_string().as_bytes()).expect("a config")
}

/// Puts a layer into an import, unless it is there.
pub fn write_layer(import: &Import, number: u32) -> Result<(), StoreError> {
    if import.has_layer(&diff_id(number))? {
        return Ok(());
    }
    put_layer(import, number)
}

/// The same, whether it is there or not.
pub fn put_layer(import: &Import, number: u32) -> Result<(), StoreError> {
    let bytes = layer_tar(number);
    let mut scanner = LayerScanner::new(&Limits::default());
    scanner.push(&bytes).expect("a good tar");
    let index = scanner
        .finish(diff_id(number), bytes.len() as u64)
        .expect("a good tar");
    let mut sink = import.new_layer()?;
    let written = sink.write_all(&bytes).and_then(|()| sink.flush());
    written.map_err(|source| StoreError::Io {
        action: "write",
        path: import.dir().to_owned(),
        source,
    })?;
    sink.commit(&diff_id(number), &index)
}

pub fn import(store: &Store, layers: &[u32], tags: &[&str]) -> Result<ImageId, StoreError> {
    let import = store.begin_import()?;
    for number in layers {
        write_layer(&import, *number)?;
    }
    let image = NewImage {
        config: config(layers),
        layers: layers.iter().map(|n| diff_id(*n)).collect(),
        tags: tags.iter().map(|text| tag(text)).collect(),
        origins: vec![NewOrigin {
            unproved: Vec::new(),
            repository: None,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes: format!("the manifest of {layers:?}").into_bytes(),
        }],
    };
    let done = import.commit(vec![image])?;
    Ok(done.images.first().expect("one image").id)
}
