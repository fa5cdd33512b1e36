//! The proof that a container cannot get at the binary of the process that becomes it.

use super::NotStarted;
use crate::sys::own_binary::run_out_of_reach;

/// This process runs a file that nobody can change through it. Whatever starts a program in a container asks for one.
#[derive(Debug, Clone, Copy)]
pub struct OutOfReach(());

impl OutOfReach {
    /// Starts this program again if need be, with the same arguments: the first thing that a verb does. Only while the process
    /// has one thread.
    pub fn ensure() -> Result<OutOfReach, NotStarted> {
        match run_out_of_reach() {
            Ok(()) => Ok(OutOfReach(())),
            Err(error) => Err(NotStarted::because("hiding this program")(error)),
        }
    }
}
