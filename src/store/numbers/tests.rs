use super::*;
use crate::store::OpenMode;

const LIMITS: NumberLimits = NumberLimits {
    layers: 1 << 30,
    trees: 1 << 18,
};

fn layer(n: u32) -> Numbered {
    Numbered::Layer(DiffId(Digest::of(&n.to_le_bytes())))
}

fn tree(n: u32) -> Numbered {
    Numbered::ById(ImageId(Digest::of(&n.to_le_bytes())))
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), OpenMode::Create).unwrap();
    (dir, store)
}

#[test]
fn a_number_is_given_once_and_kept() {
    let (_dir, store) = store();
    let open = || Numbers::new(store.clone(), LIMITS, true);
    let (one, two) = (open(), open());
    let first: Vec<_> = (0..50)
        .map(|n| one.get(&layer(n), Vec::new).unwrap())
        .collect();
    let trees: Vec<_> = (0..50)
        .map(|n| two.get(&tree(n), || vec![tree(n + 1)]).unwrap())
        .collect();
    let unique: HashSet<_> = first.iter().collect();
    assert_eq!(unique.len(), 50);
    for numbers in [one, two, open(), Numbers::new(store.clone(), LIMITS, false)] {
        // In another order.
        for n in (0..50).rev() {
            assert_eq!(numbers.get(&layer(n), Vec::new), Some(first[n as usize]));
            assert_eq!(numbers.get(&tree(n), Vec::new), Some(trees[n as usize]));
        }
    }
    let reader = Numbers::new(store.clone(), LIMITS, false);
    assert_eq!(reader.get(&layer(99), Vec::new), None);
    assert!(first.iter().chain(&trees).all(|number| *number > 0));
}

#[test]
fn a_renamed_tag_keeps_its_number() {
    let (_dir, store) = store();
    let numbers = Numbers::new(store.clone(), LIMITS, true);
    let number = numbers.get(&tree(1), Vec::new).unwrap();
    numbers.rename(&tree(1), &tree(2));
    let again = Numbers::new(store, LIMITS, true);
    assert_eq!(again.get(&tree(2), Vec::new), Some(number));
    assert_eq!(numbers.get(&tree(2), Vec::new), Some(number));
}

/// What a power cut tears or a disk changes costs that line, and gives no two things one number.
#[test]
fn a_damaged_file_gives_no_number_twice() {
    let (_dir, store) = store();
    let path = store.path().join(crate::store::files::NUMBERS);
    let numbers = Numbers::new(store.clone(), LIMITS, true);
    for n in 0..20 {
        numbers.get(&layer(n), Vec::new).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        match at % 2 {
            0 => damaged.truncate(at),
            _ => damaged[at] ^= 1 << (at % 7),
        }
        fs::write(&path, &damaged).unwrap();
        let numbers = Numbers::new(store.clone(), LIMITS, true);
        let found: HashSet<_> = (0..25)
            .map(|n| numbers.get(&layer(n), Vec::new).unwrap())
            .collect();
        assert_eq!(found.len(), 25, "byte {at}");
        let again = Numbers::new(store.clone(), LIMITS, true);
        for n in 0..25 {
            assert_eq!(
                numbers.get(&layer(n), Vec::new),
                again.get(&layer(n), Vec::new),
                "byte {at}"
            );
        }
    }
}

#[test]
fn the_file_does_not_grow_without_end_and_numbers_run_out_kindly() {
    let (_dir, store) = store();
    let limits = NumberLimits {
        layers: 10,
        trees: 5000,
    };
    let numbers = Numbers::new(store.clone(), limits, true);
    let other = Numbers::new(store.clone(), limits, true);
    let kept = numbers.get(&tree(0), Vec::new).unwrap();
    for round in 1..8u32 {
        let all: Vec<_> = (0..2000)
            .map(|n| tree(round * 10_000 + n))
            .chain([tree(0)])
            .collect();
        assert!(numbers.get(&all[5], || all.clone()).is_some());
        assert_eq!(other.get(&all[5], Vec::new), numbers.get(&all[5], Vec::new));
        assert_eq!(other.get(&tree(0), Vec::new), Some(kept));
    }
    assert!(
        fs::metadata(store.path().join(crate::store::files::NUMBERS))
            .unwrap()
            .len()
            < 1_500_000
    );
    let all = || (0..12).map(layer).collect();
    let given: Vec<_> = (0..12).map(|n| numbers.get(&layer(n), all)).collect();
    assert_eq!(given.iter().flatten().count(), 9);
}
