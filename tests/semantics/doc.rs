//! The document and the tests say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_promise_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("doc/SEMANTICS.md")).expect("the document");
    let promised: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_owned)
        .collect();
    let mut tested = BTreeSet::new();
    let here = fs::read_dir(root.join("tests/semantics")).expect("the tests");
    let here = here.map(|entry| entry.expect("readdir").path());
    // Those of snapshots need the package that makes them.
    for path in here.chain([root.join("snapshotter/tests/semantics.rs")]) {
        let source = fs::read_to_string(path).expect("a test file");
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if let [comment, "#[test]"] = pair
                && let Some(sentence) = comment.strip_prefix("/// ")
            {
                tested.insert(sentence.to_owned());
            }
        }
    }
    assert!(promised.len() > 40, "the document was not read");
    let untested: Vec<_> = promised.difference(&tested).collect();
    let lost: Vec<_> = tested.difference(&promised).collect();
    assert!(
        untested.is_empty(),
        "promises without a test: {untested:#?}"
    );
    assert!(lost.is_empty(), "tests without a promise: {lost:#?}");
}
