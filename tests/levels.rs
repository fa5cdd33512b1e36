//! The order of the modules: each imports strictly lower levels only; siblings never see each other. And the names of threads.
//!
//! Also where things may be named at all: `fuser` in `fuse`, `clap` in `cli`, `unsafe` in `sys`. The sources are read as
//! text without comments and string literals, which is exact enough for names that are written out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The levels of doc/ARCHITECTURE.md.
const LEVELS: &[(&str, u8)] = &[
    ("oci", 0),
    ("sys", 0),
    ("mount_paths", 0),
    ("text", 0),
    ("tree", 1),
    ("layer", 2),
    ("store", 3),
    ("archive", 3),
    ("registry", 3),
    ("ops", 4),
    ("fs", 5),
    ("fuse", 6),
    ("daemon", 7),
    ("runtime", 7),
    ("cli", 8),
];

/// A word and the only module that may use it.
const OWNED: &[(&str, &str)] = &[("fuser", "fuse"), ("clap", "cli"), ("unsafe", "sys")];

#[test]
fn levels_import_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut seen = 0;
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        seen += 1;
        let code = code_only(&fs::read_to_string(&file).unwrap());
        for fault in faults(module, &code) {
            found.push(format!("src/{}: {fault}", relative.display()));
        }
    }
    assert!(
        seen >= 8,
        "only {seen} source files found below {}",
        src.display()
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Inside a module, too, what stands above uses what stands below: its children form no circle.
#[test]
fn levels_inside_modules_have_no_circles() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap().with_extension("");
        let path: Vec<String> = relative
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        let is_test = path.iter().any(|part| part == "tests");
        if !is_test && !matches!(path[0].as_str(), "lib" | "main") {
            modules.insert(path, fs::read_to_string(&file).unwrap());
        }
    }
    let found = circles(&modules);
    assert!(
        found.is_empty(),
        "children that need each other: {found:#?}"
    );
}

#[test]
fn levels_test_sees_circles() {
    let module = |path: &str, code: &str| {
        let path = path.split("::").map(str::to_owned).collect::<Vec<_>>();
        (path, code.to_owned())
    };
    let found = circles(&BTreeMap::from([
        module("a", "mod one; mod two; mod three; use one::One;"),
        module("a::one", "use super::two::{self, Two};"),
        module("a::two", "fn f() { crate::a::three::g() }"),
        module("a::two::deep", "use super::super::one;"),
        module("a::three", "use super::{Item, one as first}; // super::two"),
        module(
            "a::four",
            "use super::one; #[cfg(test)]\nmod tests { use crate::a::five; }",
        ),
        module("a::five", "use crate::{a::four, b};"),
    ]));
    let circle = ["one", "three", "two"].map(str::to_owned).to_vec();
    assert_eq!(found, [("a".to_owned(), circle)]);
}

/// The sets of children that need each other, by their parent.
fn circles(modules: &BTreeMap<Vec<String>, String>) -> Vec<(String, Vec<String>)> {
    let mut uses: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, text) in modules {
        let code = code_only(text);
        let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
        for path in full_paths(module, code) {
            let same = module.iter().zip(&path).take_while(|(a, b)| a == b);
            let same = same.count();
            let (Some(child), Some(used)) = (module.get(same), path.get(same)) else {
                continue;
            };
            if modules.contains_key(&path[..=same]) {
                let parent = uses.entry(module[..same].to_vec()).or_default();
                let of_child = parent.entry(child.clone()).or_default();
                of_child.insert(used.clone());
            }
        }
    }
    let mut found = Vec::new();
    for (parent, uses) in &uses {
        let mut seen = BTreeSet::new();
        for child in uses.keys() {
            let around: Vec<String> = reached(uses, child)
                .into_iter()
                .filter(|other| reached(uses, other).contains(child))
                .collect();
            if !around.is_empty() && seen.insert(around.clone()) {
                found.push((parent.join("::"), around));
            }
        }
    }
    found
}

/// What is used by a child, by what that uses, and so on.
fn reached(uses: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(child) = next.pop() {
        for used in uses.get(&child).into_iter().flatten() {
            if found.insert(used.clone()) {
                next.push(used.clone());
            }
        }
    }
    found
}

/// Every path that begins with `crate`, `self` or `super`, from the root of the crate.
fn full_paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let packed: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let packed = packed.replace(" ::", "::").replace(":: ", "::");
    let mut found = Vec::new();
    for begin in ["crate::", "self::", "super::"] {
        for (at, _) in packed.match_indices(begin) {
            let before = packed[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            for path in expanded(&packed[at..]) {
                let mut rest = path.as_slice();
                let mut base = match begin {
                    "crate::" => Vec::new(),
                    _ => module.to_vec(),
                };
                while let Some((first, more)) = rest.split_first() {
                    match first.as_str() {
                        "crate" | "self" => {}
                        "super" => drop(base.pop()),
                        _ => break,
                    }
                    rest = more;
                }
                base.extend(rest.iter().cloned());
                found.push(base);
            }
        }
    }
    found
}

/// `a::{b, c::d}` gives a::b and a::c::d.
fn expanded(code: &str) -> Vec<Vec<String>> {
    let code = code.trim_start();
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = code.split_at(end.unwrap_or(code.len()));
    let Some(rest) = rest.strip_prefix("::") else {
        return vec![vec![name.to_owned()]];
    };
    let below = match rest.strip_prefix('{') {
        Some(group) => group_items(group)
            .iter()
            .flat_map(|item| expanded(item))
            .collect(),
        None => expanded(rest),
    };
    let with = |mut path: Vec<String>| {
        path.insert(0, name.to_owned());
        path
    };
    below.into_iter().map(with).collect()
}

/// Every module of the crate has a level.
#[test]
fn levels_are_complete() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            matches!(name, "lib" | "main") || level(name).is_some(),
            "{name} has no level in tests/levels.rs"
        );
    }
}

#[test]
fn levels_test_sees_what_it_should() {
    let fails = |module, code| !faults(module, &code_only(code)).is_empty();
    assert!(fails("store", "use crate::ops::load;"));
    assert!(fails("store", "use crate::registry::Client;"));
    assert!(fails(
        "ops",
        "use crate::{\n    oci::Digest,\n    fs::{inode, removal},\n};"
    ));
    assert!(fails("ops", "fn f() { crate::fs::boot() }"));
    assert!(fails("fs", "use fuser::FileAttr;"));
    assert!(fails("layer", "fn f() { unsafe { g() } }"));
    assert!(fails("tree", "use super::super::layer::index;"));
    assert!(!fails(
        "ops",
        "use crate::{oci::Digest, store::{Names, fs_usage}};"
    ));
    assert!(!fails(
        "layer",
        "// use crate::store; unsafe\nlet a = \"crate::cli unsafe\";"
    ));
    assert!(!fails(
        "sys",
        "let q = '\"'; unsafe { g() } let s = r#\"\"fuser\"#;"
    ));
    assert!(!fails(
        "fuse",
        "use fuser::FileAttr; use crate::fs::Superblock;"
    ));
    assert!(!fails("fs", "use crate::fs::inode; #![deny(unsafe_code)]"));
}

/// Every thread has a name, and the names are those of the table in doc/ARCHITECTURE.md.
#[test]
fn levels_threads_stand_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let src = root.join("src");
    let mut named = BTreeSet::new();
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        // Unit tests start threads of their own.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, _) in text.match_indices("thread::Builder::new()") {
            // The names of these are given by those who call.
            if file == src.join("sys/threads.rs") {
                continue;
            }
            let name = thread_name(&text[at..]);
            named.insert(
                name.unwrap_or_else(|| panic!("{}: a thread without a name", file.display())),
            );
        }
        for call in ["threads::share(", "threads::beside("] {
            for (at, _) in text.match_indices(call) {
                let name = text[at..].split('"').nth(1).unwrap();
                named.insert(format!("mica-{name}"));
            }
        }
    }
    let document = fs::read_to_string(root.join("doc/ARCHITECTURE.md")).unwrap();
    let table: BTreeSet<String> = document
        .lines()
        .filter(|line| line.starts_with("| `mica-"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert!(table.len() >= 10, "the table was not read");
    let difference: Vec<_> = named.symmetric_difference(&table).collect();
    assert!(
        difference.is_empty(),
        "in one of the two only: {difference:?}"
    );
}

/// The name that a builder's thread gets, in the next statement; a number in it is `N`.
fn thread_name(code: &str) -> Option<String> {
    let statement = code.split_once(';')?.0;
    let named = statement.split_once(".name(")?.1;
    let name = named.split('"').nth(1)?;
    Some(match name.split_once('{') {
        Some((stem, _)) => format!("{stem}N"),
        None => name.to_owned(),
    })
}

fn level(module: &str) -> Option<u8> {
    LEVELS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, level)| *level)
}

/// What is wrong with the code of a file of `module`.
fn faults(module: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let own = level(module).unwrap_or_default();
    for used in crate_paths(code) {
        // An item of the crate root that is no module has no level.
        if let Some(other) = level(&used)
            && used != module
            && other >= own
        {
            found.push(format!(
                "{module} (level {own}) uses {used} (level {other})"
            ));
        }
    }
    for (word, owner) in OWNED {
        if *owner != module && words(code).any(|found| found == *word) {
            found.push(format!("`{word}` belongs into {owner} only"));
        }
    }
    found
}

/// The first names after `crate::` and after chains of `super::`, groups in braces included.
fn crate_paths(code: &str) -> Vec<String> {
    let packed: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let packed = packed.replace(" ::", "::").replace(":: ", "::");
    let mut found = Vec::new();
    for marker in ["crate::", "super::super::"] {
        for (at, _) in packed.match_indices(marker) {
            let rest = packed[at + marker.len()..].trim_start_matches("super::");
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_names(group)),
                None => found.extend(words(rest).next().map(str::to_owned)),
            }
        }
    }
    found
}

/// `a::x, b::{c, d}, e}` gives a, b, e.
fn group_names(group: &str) -> Vec<String> {
    let items = group_items(group);
    let first = |item: &String| words(item).next().map(str::to_owned);
    items.iter().filter_map(first).collect()
}

/// What stands between the commas of a group.
fn group_items(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut item = String::new();
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(std::mem::take(&mut item)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    names.push(item);
    names
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The text without comments, string literals and the quotation marks that are characters.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2).max(3)
        } else if c == '"' {
            string_length(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
