//! The whole of a layer: hostile tars, damaged indexes, and a model.

mod damage;
mod ends;
mod links;
mod look;
mod metadata;
mod model;
mod names;
mod sparse;
mod whiteouts;
