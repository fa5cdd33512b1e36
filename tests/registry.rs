//! Registries: pull and push against Debian's `docker-registry`, skopeo and podman, and against one that lies.

mod habits;
pub mod liar;
mod lying;
mod places;
mod proxies;
mod pulling;
mod pushing;
mod resized;
mod resuming;
mod settings;
mod together;
