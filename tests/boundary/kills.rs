//! `run` killed while it starts.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use super::*;
use crate::common::random;

/// The processes of a sandbox: by their environment, or by a command that nobody else runs.
fn processes(s: &Sandbox, mark: &str) -> Vec<String> {
    let store = format!("MICA_STORE={}", s.store().display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let dir = entry.path();
        let has = |file: &str, text: &str| {
            let bytes = fs::read(dir.join(file)).unwrap_or_default();
            bytes.split(|b| *b == 0).any(|part| part == text.as_bytes())
        };
        if has("environ", &store) || has("cmdline", mark) {
            let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
            let stat = read("stat");
            if !stat.contains(") Z ") && !stat.is_empty() {
                found.push(format!("{} {} {}", dir.display(), stat, read("wchan")));
            }
        }
    }
    found
}

/// `MICA_KILLS` more than a few for a soak.
#[test]
fn root_a_run_killed_at_any_moment_of_its_start_leaves_nothing() {
    let kills = std::env::var("MICA_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60u32);
    let s = sandbox();
    let mark = format!("6{}", std::process::id());
    let mut random = random::Random(u64::from(std::process::id()));
    // How long a start takes here.
    let begin = std::time::Instant::now();
    shown(&s, "run --rm app:1 true");
    let whole = begin.elapsed().as_micros();
    let mut options = ["", "-v /data", "-t", "--init"].iter().cycle();
    for number in 0..kills {
        let mut command = s.command();
        command.args(["run", "--rm"]);
        command.args(options.next().unwrap().split_whitespace());
        command
            .args(["app:1", "sleep", &mark])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let after = random.below(usize::try_from(whole).unwrap().max(1000));
        std::thread::sleep(Duration::from_micros(after as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut last = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let now = processes(&s, &mark);
            if now.is_empty() {
                break;
            }
            last = now;
            assert!(
                std::time::Instant::now() < end,
                "kill {number} after {after} us left {last:#?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(last);
    }
    println!("{kills} kills of run, no process left");
    // The next verb takes what was left of files.
    shown(&s, "ps -a");
    assert!(left(&s).is_empty(), "{:?}", left(&s));
    shown(&s, "rmi app:1");
}
