//! Volumes: the one implementation behind `mica volume` and what a mount offers under `volumes/`.

pub mod activity;
