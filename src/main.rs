//! The `mica` command.

fn main() -> std::process::ExitCode {
    mica::cli::main()
}
