//! Published attacks of the field, replayed: `doc/SECURITY.md` lists them with their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod bundle;
mod images;
mod run;

/// All names of functions below a directory.
fn functions(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("fn "));
            found.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

/// A row of the table names a test that there is, or says why there is none.
#[test]
fn the_attacks_of_the_document_have_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for dir in ["tests", "src"] {
        functions(&root.join(dir), &mut known);
    }
    let document = fs::read_to_string(root.join("doc/SECURITY.md")).unwrap();
    let rows = document.lines().filter(|line| {
        ["| CVE-", "| GHSA-", "| RUSTSEC-", "| class"]
            .iter()
            .any(|start| line.starts_with(start))
    });
    let mut count = 0;
    for row in rows {
        count += 1;
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [_, _, answer] = cells.as_slice() else {
            panic!("three cells: {row}");
        };
        assert!(answer.trim().len() > 10, "{row}");
        for name in answer.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "no test {name}: {row}");
        }
    }
    assert!(count > 50, "only {count} rows were read");
}
