//! Published attacks of the field, replayed: `doc/SECURITY.md` lists them with their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod bundle;
mod differential;
mod images;
mod memory;
mod output;
mod run;
mod sizes;

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

/// A row of the table names a test that there is, or says why there is none; and of what was published all has a row.
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
    let mut answered = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [ids, _, answer] = cells.as_slice() else {
            panic!("three cells: {row}");
        };
        let ids = ids.split([' ', ',', '(', ')', ':']);
        answered.extend(ids.filter(|id| !id.is_empty()));
        assert!(answer.trim().len() > 10, "{row}");
        for name in answer.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "no test {name}: {row}");
        }
    }
    // What was published, by number: not one of them is left out.
    let published = include_str!("fixtures/published-attacks.txt");
    let mut number = 0;
    for line in published.lines().filter(|line| !line.starts_with('#')) {
        number += 1;
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(number.to_string().as_str()), "{line}");
        let unanswered: Vec<&str> = words.filter(|id| !answered.contains(id)).collect();
        assert!(unanswered.is_empty(), "no row for {unanswered:?} of {line}");
        assert!(line.contains(' '), "{line}");
    }
    assert_eq!(number, 119);
}
