//! The store against crashes, full and failing disks, concurrent changes and another OCI tool.

mod afterwards;
mod crash;
mod fair;
mod full;
mod helper;
mod indexes;
mod killed;
mod made;
mod no_store;
mod of_before;
mod of_today;
mod order;
mod race;
mod skopeo;
