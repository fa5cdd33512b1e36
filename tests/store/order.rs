//! The order in which an import reaches the disk, read from a log of its system calls.

use super::helper::{self, quick_dir};
use mica::store::{OpenMode, Store};

/// Every file is synced before it gets its name, every name before `index.json` tells of it, and the import
/// is acknowledged only when the directory that holds `index.json` is synced too.
#[test]
fn root_nothing_is_named_before_it_is_durable() {
    let dir = quick_dir();
    let path = dir.path().join("store");
    let store = Store::open(&path, OpenMode::Create).expect("a store");
    helper::import(&store, &[1], &["a:1"]).expect("an import");
    let log = dir.path().join("log");
    let trace = "--trace=openat,statx,fsync,rename,renameat2,write";
    let wrap = super::crash::strace(&log, &["-y".to_owned(), trace.to_owned()]);
    let run = helper::command("import", &path, &wrap)
        .output()
        .expect("strace");
    assert_eq!(run.status.code(), Some(helper::DONE), "{run:?}");

    let log = std::fs::read_to_string(log).expect("strace's log");
    let begin = log.find(helper::MARKER).expect("the helper's first call");
    let lines: Vec<&str> = log.get(begin..).expect("the rest").lines().collect();
    let root = path.display().to_string();
    let fsync = |of: &str| {
        let call = format!("<{of}>)");
        let all = lines.iter().enumerate();
        all.filter(|(_, line)| {
            line.contains("fsync(") && line.contains(&call) && line.ends_with("= 0")
        })
        .map(|(number, _)| number)
        .collect::<Vec<_>>()
    };
    let is_between = |of: &str, after: usize, before: usize| {
        let found = fsync(of).into_iter().any(|n| after < n && n < before);
        assert!(
            found,
            "{of} is not synced between {after} and {before}:\n{}",
            lines.join("\n")
        );
    };
    let commit = lines
        .iter()
        .position(|line| line.contains("renameat2(") && line.contains("index.json.new"))
        .expect("the commit");

    let mut placed = 0;
    let mut last = 0;
    for (number, line) in lines.iter().enumerate() {
        let Some((_, call)) = line.split_once(" rename(\"") else {
            continue;
        };
        let (from, rest) = call.split_once('"').expect("two paths");
        assert!(number < commit, "{line}");
        assert!(
            rest.contains("/blobs/sha256/") || rest.contains("/layers/"),
            "{line}"
        );
        is_between(from, 0, number);
        let file = format!("<{from}>");
        let late = lines
            .iter()
            .skip(number)
            .any(|l| l.contains("write(") && l.contains(&file));
        assert!(!late, "{from} is written after it is placed");
        (placed, last) = (placed + 1, number);
    }
    // Layers 2 and 3 with their indexes, config, manifest, origin.
    assert_eq!(placed, 7);
    is_between(&format!("{root}/blobs/sha256"), last, commit);
    is_between(&format!("{root}/layers"), last, commit);
    is_between(&format!("{root}/index.json.new"), last, commit);
    is_between(&root, commit, lines.len());
}
