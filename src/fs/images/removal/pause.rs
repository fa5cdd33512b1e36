//! Places where tests hold a removal, to do something just then. Nothing at all in a release build.

/// Where `MICA_TEST_PAUSE` names a directory with a file `step` in it, waits until that is gone; `step.reached` says so.
#[cfg(debug_assertions)]
pub(super) fn at(step: &str) {
    let Some(dir) = std::env::var_os("MICA_TEST_PAUSE").map(std::path::PathBuf::from) else {
        return;
    };
    let file = dir.join(step);
    if !file.exists() {
        return;
    }
    if let Err(error) = std::fs::write(file.with_extension("reached"), "") {
        log::warn!("pausing at {step}: {error}");
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while file.exists() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn at(_step: &str) {}
