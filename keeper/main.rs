//! The keeper of a mount (`mica mount -o survive=on`), which mica starts: see `src/daemon/keeper.rs`.
//!
//! A program of its own for its size alone: nothing but what it needs is linked in.

fn main() -> std::process::ExitCode {
    mica::daemon::keeper()
}
