//! A place between two steps at which a test can hold a process, so that what a race does is certain.
//!
//! In a release build there is nothing here.

/// With `MICA_PAUSE=NAME=DIRECTORY` in the environment and this `name`: writes to the pipe `DIRECTORY/at` and waits until
/// somebody has closed the pipe `DIRECTORY/go` again. Each time.
#[cfg(debug_assertions)]
pub fn pause(name: &str) {
    use std::io::Read as _;
    let Ok(wanted) = std::env::var("MICA_PAUSE") else {
        return;
    };
    let Some((wanted, directory)) = wanted.split_once('=') else {
        return;
    };
    if wanted != name {
        return;
    }
    let directory = std::path::Path::new(directory);
    // A test that has ended has taken them away.
    if let Ok(at) = std::fs::File::options()
        .write(true)
        .open(directory.join("at"))
    {
        drop(at);
        if let Ok(mut go) = std::fs::File::open(directory.join("go")) {
            let mut nothing = Vec::new();
            // Its end is all that is waited for.
            let _ = go.read_to_end(&mut nothing);
        }
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pause(_name: &str) {}
