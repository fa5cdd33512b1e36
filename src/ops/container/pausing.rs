//! `pause` and `unpause`: all processes of a container stand still, or go on.

use crate::ops::container::run::RunError;
use crate::store::containers::{Container, Pause};
use crate::store::{Event, Store};
use crate::sys::freeze;

/// Stops all processes of the container that `text` means, until [`unpause`], or until something ends it.
pub fn pause(store: &Store, text: &str) -> Result<(), RunError> {
    // Of two at once the second finds it paused.
    let _lock = store.lock()?;
    let mut container = crate::ops::container::find(store, text)?;
    let id = container.record.id.clone();
    let Some(pid) = container.state.status.pid() else {
        return Err(RunError::Refused(format!("Container {id} is not running")));
    };
    if container.is_paused() {
        return Err(RunError::Refused(format!(
            "Container {id} is already paused"
        )));
    }
    // Written down first: whoever is killed between the two leaves something that can be unpaused.
    container.write_pause(Some(Pause { pid, held: None }))?;
    let userns = container.record.ids.is_some();
    match freeze::hold(pid, userns) {
        Ok(held) => {
            let held = Some(held);
            container.write_pause(Some(Pause { pid, held }))?;
        }
        Err(error) => {
            freeze::release(pid, userns, None).map_err(RunError::io("waking the container"))?;
            container.write_pause(None)?;
            return Err(RunError::io(format!("pausing container {text}"))(error));
        }
    }
    note(store, &container, "pause");
    Ok(())
}

/// Lets them go on; what had been stopped before stays so.
pub fn unpause(store: &Store, text: &str) -> Result<(), RunError> {
    let _lock = store.lock()?;
    let mut container = crate::ops::container::find(store, text)?;
    if !container.is_running() {
        let id = &container.record.id;
        return Err(RunError::Refused(format!("Container {id} is not running")));
    }
    if !wake(&mut container)? {
        let id = &container.record.id;
        return Err(RunError::Refused(format!("Container {id} is not paused")));
    }
    note(store, &container, "unpause");
    Ok(())
}

/// What a signal is for that ends a container: it has to be able to take it. False: it was not paused.
pub(super) fn wake(container: &mut Container) -> Result<bool, RunError> {
    let Some(pause) = container.pause.clone() else {
        return Ok(false);
    };
    let userns = container.record.ids.is_some();
    let woken = freeze::release(pause.pid, userns, pause.held.as_deref());
    match woken {
        // It has ended.
        Err(_) if container.is_gone()? => {}
        woken => woken.map_err(RunError::io("waking the container"))?,
    }
    container.write_pause(None)?;
    Ok(true)
}

fn note(store: &Store, container: &Container, action: &'static str) {
    let record = &container.record;
    let event = Event::now("container", action, record.id.as_str())
        .with("image", &record.image_name)
        .with("name", &record.name);
    store.note(&[event]);
}
