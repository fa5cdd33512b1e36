//! `rename`: another name for a container.

use crate::ops::container::run::{RunError, is_valid_name};
use crate::store::Store;
use crate::store::containers::ContainerRecord;

/// Gives the container that `text` means another name. One that runs goes on running.
pub fn rename(store: &Store, text: &str, new: &str) -> Result<(), RunError> {
    let refused = |why: String| Err(RunError::Refused(why));
    let new = new.strip_prefix('/').unwrap_or(new);
    if !is_valid_name(new) {
        return refused(format!(
            "Invalid container name ({new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ));
    }
    // Names are given out under this lock, so nobody takes it meanwhile.
    let lock = store.lock()?;
    let mut container = crate::ops::container::find(store, text)?;
    if container.record.name == new {
        return refused("Renaming a container with the same name as its current name".to_owned());
    }
    if let Some(other) = store
        .containers()?
        .iter()
        .find(|other| other.record.name == new)
    {
        let taken = RunError::NameTaken {
            name: new.to_owned(),
            id: other.record.id.clone(),
        };
        return refused(format!("Error when allocating new name: {taken}"));
    }
    let record = ContainerRecord {
        name: new.to_owned(),
        ..container.record.clone()
    };
    container.write_record(record, &lock)?;
    Ok(())
}
