//! The whole of a layer: hostile tars, damaged indexes, and a model.

mod damage;
mod hostile;
mod metadata;
mod model;
