//! One layer's bytes, from an archive or a registry, into an import: read, decompressed, hashed twice, indexed and written
//! in one pass.

mod pipeline;
mod produce;

use std::io::{self, Read, Write};

use crate::layer::{LayerError, LayerScanner, Limits};
use crate::oci::DiffId;
use crate::store::{Import, Store, StoreError};

use crate::ops::transfer::ingest::pipeline::{PumpError, pump};

pub(in crate::ops) use crate::ops::transfer::ingest::pipeline::Pumped;
pub(in crate::ops) use crate::ops::transfer::ingest::produce::{ProduceError, produce};

/// Hears of bytes read from the source, on another thread.
pub(in crate::ops) type Advance<'a> = &'a (dyn Fn(u64) + Sync);

/// Why a layer was not taken in.
#[derive(Debug)]
pub(in crate::ops) enum IntakeError {
    /// The source cannot be read or its compression is damaged.
    Read(io::Error),
    /// The tar is no layer.
    Layer(LayerError),
    /// It is longer than the layer it is said to be.
    TooLong(DiffId),
    /// The store cannot take it.
    Store(StoreError),
}

impl std::fmt::Display for IntakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IntakeError::Read(error) => error.fmt(f),
            IntakeError::Layer(error) => error.fmt(f),
            IntakeError::TooLong(id) => write!(f, "longer than the layer {id} it is"),
            IntakeError::Store(error) => error.fmt(f),
        }
    }
}

/// Why the consumer of a layer's bytes stops.
enum Stop {
    Layer(LayerError),
    TooLong(DiffId),
    Store(StoreError),
    Write(io::Error),
}

/// Indexes and writes a layer; the answer is what it was, and whether the store had it. What it is called is worked out
/// from its bytes, so it is right whoever lies.
pub(in crate::ops) fn write(
    import: &Import,
    limits: &Limits,
    advance: Advance<'_>,
    content: &mut (dyn Read + Send),
) -> Result<(Pumped, bool), IntakeError> {
    let mut scanner = LayerScanner::new(limits);
    let mut sink = import.new_layer().map_err(IntakeError::Store)?;
    let pumped = pump(content, true, advance, &mut |chunk| {
        scanner.push(chunk).map_err(Stop::Layer)?;
        import
            .take(chunk.len() as u64, limits)
            .map_err(Stop::Store)?;
        sink.write_all(chunk).map_err(Stop::Write)
    });
    let pumped = pumped.map_err(|error| stopped(import, error))?;
    let index = scanner
        .finish(pumped.diff_id, pumped.tar_size)
        .map_err(IntakeError::Layer)?;
    let existed = import
        .has_layer(&pumped.diff_id)
        .map_err(IntakeError::Store)?;
    if !existed {
        sink.commit(&pumped.diff_id, &index)
            .map_err(IntakeError::Store)?;
    }
    Ok((pumped, existed))
}

/// Hashes bytes that are said to be a layer of the store. With `blob_only` they are not decompressed.
pub(in crate::ops) fn verify(
    store: &Store,
    import: &Import,
    layer: DiffId,
    blob_only: bool,
    advance: Advance<'_>,
    content: &mut (dyn Read + Send),
) -> Result<Pumped, IntakeError> {
    let limit = match blob_only {
        true => u64::MAX,
        false => store
            .layer_index(&layer)
            .map_err(IntakeError::Store)?
            .tar_size(),
    };
    let mut total = 0u64;
    let pumped = pump(content, !blob_only, advance, &mut |chunk| {
        total = total.saturating_add(chunk.len() as u64);
        if total > limit {
            Err(Stop::TooLong(layer))
        } else {
            Ok(())
        }
    });
    pumped.map_err(|error| stopped(import, error))
}

fn stopped(import: &Import, error: PumpError<Stop>) -> IntakeError {
    match error {
        PumpError::Read(error) => IntakeError::Read(error),
        PumpError::Consume(Stop::Layer(error)) => IntakeError::Layer(error),
        PumpError::Consume(Stop::TooLong(layer)) => IntakeError::TooLong(layer),
        PumpError::Consume(Stop::Store(error)) => IntakeError::Store(error),
        PumpError::Consume(Stop::Write(source)) => IntakeError::Store(StoreError::Io {
            action: "write",
            path: import.dir().to_owned(),
            source,
        }),
    }
}
