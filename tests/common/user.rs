//! Programs run by somebody else than root.

use std::process::Command;

/// `program` as this user and group, to be completed. Needs root.
pub fn as_user(uid: u32, program: &str) -> Command {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]);
    command
}
