//! Who uses what: images, volumes, paths.

pub mod images;
pub mod list;
pub mod volumes;
