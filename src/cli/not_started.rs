//! What is printed of a container that was not started, and the exit code.

use super::output::print_error;
use crate::ops::container::run::RunError;
use crate::runtime::NotStarted;

/// Prints why a container was not started; docker's exit code for it.
pub(super) fn failed(error: &anyhow::Error) -> u8 {
    print_error(error);
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(NotStarted { code, .. }), _) => *code,
        (None, Some(RunError::NotATty)) => 1,
        _ => 125,
    }
}
