//! The command line.

/// Parses the arguments, runs one verb, and returns its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
