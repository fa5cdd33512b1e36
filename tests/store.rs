//! The store against crashes, full and failing disks, concurrent changes and another OCI tool.

mod crash;
mod full;
mod helper;
mod made;
mod order;
mod race;
mod skopeo;
