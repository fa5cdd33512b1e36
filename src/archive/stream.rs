//! One pass over an archive that cannot be read twice.
//!
//! What a member is for is known only when the documents have been seen, and those may come last. So documents are kept
//! (bounded), and whatever begins like a layer goes to the caller, who takes it in on trial.

use std::fs::File;
use std::io::{self, Read};

use crate::layer::compress::{self, Compression};

use crate::archive::catalog::{Catalog, Content};
use crate::archive::error::{ArchiveError, Problem};
use crate::archive::walk::{Forward, MemberKind, Walker};
use crate::archive::{MAX_DOCUMENT, fill};
use crate::text::shown;

/// Members up to this size are kept without looking at them: configs, manifests, docker's `VERSION` files, tiny layers.
const SMALL: u64 = 128 << 10;
/// All kept members together. Real archives keep less than 2 MiB.
const MAX_KEPT: u64 = 32 << 20;

/// An archive that can be read once.
pub struct Stream {
    label: String,
    file: File,
}

/// A member that may be a layer.
#[derive(Debug)]
pub struct Streamed<'a> {
    /// Its normalised name.
    pub member: &'a str,
    /// Bytes in the archive.
    pub size: u64,
}

impl Stream {
    pub(super) fn new(label: String, file: File) -> Self {
        Stream { label, file }
    }

    /// The archive as the user named it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Reads the whole archive. `layer` is called for each member that may be a layer, in order; it need not read to the
    /// end. Its error ends the pass. A failure of the archive itself is reported even when `layer` took it for something else.
    pub fn catalog<E: From<ArchiveError>>(
        self,
        layer: &mut dyn FnMut(Streamed<'_>, &mut (dyn Read + Send)) -> Result<(), E>,
    ) -> Result<Catalog, E> {
        let label = self.label;
        let source = outer(&label, self.file)?;
        let mut walker = Walker::new(&label, Forward(source));
        let mut catalog = Catalog::empty(label);
        let (mut kept, mut calls) = (0u64, 0usize);
        while let Some(member) = walker.next()? {
            let size = member.size;
            if member.kind != MemberKind::File {
                catalog.insert(member, Content::Skipped { length: size })?;
                continue;
            }
            let mut content = walker.content();
            let fits = kept.saturating_add(size) <= MAX_KEPT;
            if size <= SMALL && fits {
                let bytes = keep(&mut content, size);
                walker.take_broken()?;
                kept += size;
                catalog.insert(member, Content::Memory(bytes.into()))?;
                continue;
            }
            let mut head = [0u8; 512];
            // A failure of the source shows in take_broken.
            let got = fill(&mut content, &mut head).unwrap_or_default();
            let head = head.get(..got).unwrap_or_default();
            if looks_like_layer(head) {
                let name = member.name.clone().unwrap_or_default();
                let name = crate::archive::path::normalise(&name).unwrap_or(name);
                let mut whole = head.chain(content);
                let result = layer(
                    Streamed {
                        member: &name,
                        size,
                    },
                    &mut whole,
                );
                walker.take_broken()?;
                result?;
                catalog.insert(
                    member,
                    Content::Streamed {
                        call: calls,
                        length: size,
                    },
                )?;
                calls += 1;
            } else if size > MAX_DOCUMENT {
                catalog.insert(member, Content::Skipped { length: size })?;
            } else if fits {
                let bytes = keep(&mut head.chain(content), size);
                walker.take_broken()?;
                kept += size;
                catalog.insert(member, Content::Memory(bytes.into()))?;
            } else {
                let name = shown(&member.name.unwrap_or_default());
                return Err(catalog
                    .fail(Problem::Documents {
                        name,
                        limit: MAX_KEPT,
                    })
                    .into());
            }
        }
        // What follows the end marker is nobody's, but the writer of a pipe wants to be rid of it, and a compressed
        // archive is only whole when its checksum at the very end is right.
        let mut source = walker.into_source().0;
        io::copy(&mut source, &mut io::sink()).map_err(|e| catalog.fail(Problem::Read(e)))?;
        Ok(catalog)
    }
}

/// Removes the outer compression.
fn outer(label: &str, mut file: File) -> Result<Box<dyn Read + Send>, ArchiveError> {
    // Fewer, larger reads from a pipe; anything else than a pipe, or a refusal, changes nothing.
    let _ = rustix::pipe::fcntl_setpipe_size(&file, 1 << 20);
    let fail = |e: io::Error| ArchiveError::new(label, Problem::Read(e));
    let mut head = vec![0u8; 512];
    let got = fill(&mut file, &mut head).map_err(fail)?;
    head.truncate(got);
    if head.is_empty() {
        let problem = if label == "stdin" {
            Problem::EmptyStdin
        } else {
            Problem::Empty
        };
        return Err(ArchiveError::new(label, problem));
    }
    let compression = compress::sniff(&head);
    let whole: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(file));
    match compression {
        Compression::None => Ok(whole),
        other => Ok(compress::reader(whole, other)),
    }
}

/// Reads a small member; a failure of the source shows in `take_broken`.
fn keep(content: &mut dyn Read, size: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; usize::try_from(size).unwrap_or_default()];
    let got = fill(content, &mut bytes).unwrap_or_default();
    bytes.truncate(got);
    bytes
}

/// Whether content may be a layer: compressed, or a tar header, or a tar's end marker.
fn looks_like_layer(head: &[u8]) -> bool {
    if compress::sniff(head) != Compression::None {
        return true;
    }
    match <&[u8; 512]>::try_from(head) {
        Ok(block) => {
            block.iter().all(|b| *b == 0)
                || tar_core::Header::from_bytes(block)
                    .verify_checksum()
                    .is_ok()
        }
        Err(_) => false,
    }
}
