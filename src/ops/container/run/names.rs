//! Names of containers: an adjective and the surname of somebody who knew something.

use std::io;

const ADJECTIVES: [&str; 64] = [
    "able",
    "admiring",
    "amiable",
    "ardent",
    "awake",
    "bold",
    "brave",
    "bright",
    "calm",
    "careful",
    "charming",
    "cheerful",
    "clever",
    "cool",
    "cosy",
    "curious",
    "daring",
    "dazzling",
    "eager",
    "earnest",
    "elegant",
    "epic",
    "exciting",
    "fair",
    "fervent",
    "festive",
    "focused",
    "friendly",
    "frosty",
    "funny",
    "gallant",
    "gentle",
    "gracious",
    "happy",
    "hopeful",
    "hungry",
    "infallible",
    "inspiring",
    "jolly",
    "keen",
    "kind",
    "laughing",
    "lively",
    "loving",
    "lucid",
    "magical",
    "modest",
    "musing",
    "nifty",
    "nimble",
    "optimistic",
    "patient",
    "peaceful",
    "quirky",
    "relaxed",
    "serene",
    "sharp",
    "stoic",
    "sweet",
    "tender",
    "trusting",
    "upbeat",
    "vibrant",
    "wizardly",
];

const SURNAMES: [&str; 96] = [
    "agnesi",
    "archimedes",
    "babbage",
    "banach",
    "bardeen",
    "bassi",
    "bell",
    "bhabha",
    "blackwell",
    "bohr",
    "boyd",
    "brahmagupta",
    "brown",
    "carson",
    "cerf",
    "chandrasekhar",
    "chatelet",
    "cohen",
    "cori",
    "curie",
    "darwin",
    "diffie",
    "dijkstra",
    "easley",
    "edison",
    "einstein",
    "elion",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goldberg",
    "goldwasser",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hellman",
    "hermann",
    "hodgkin",
    "hopper",
    "hypatia",
    "jackson",
    "jang",
    "jemison",
    "johnson",
    "joliot",
    "jones",
    "kalam",
    "keller",
    "kepler",
    "khayyam",
    "khorana",
    "kilby",
    "knuth",
    "kowalevski",
    "lalande",
    "lamarr",
    "lamport",
    "leakey",
    "leavitt",
    "liskov",
    "lovelace",
    "mayer",
    "mccarthy",
    "mcclintock",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "nightingale",
    "noether",
    "pare",
    "pascal",
    "pasteur",
    "perlman",
    "pike",
    "poincare",
    "ramanujan",
    "ritchie",
    "rubin",
    "shannon",
    "sinoussi",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "wozniak",
];

/// A name that `taken` does not know.
pub(super) fn random(taken: impl Fn(&str) -> bool) -> io::Result<String> {
    use std::io::Read as _;
    let mut source = std::fs::File::open("/dev/urandom")?;
    for attempt in 0.. {
        let mut bytes = [0u8; 4];
        source.read_exact(&mut bytes)?;
        let [a, b, c, d] = bytes.map(usize::from);
        let pick = |list: &[&'static str], n: usize| list.get(n % list.len()).copied();
        let adjective = pick(&ADJECTIVES, a).unwrap_or_default();
        let surname = pick(&SURNAMES, b << 8 | c).unwrap_or_default();
        let name = match attempt {
            0..100 => format!("{adjective}_{surname}"),
            _ => format!("{adjective}_{surname}{}", d << 8 | attempt & 0xff),
        };
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(io::ErrorKind::Other.into())
}

/// docker's grammar: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_free() {
        let first = random(|_| false).unwrap();
        assert!(is_valid(&first), "{first}");
        let mut left = 150;
        let left = std::cell::RefCell::new(&mut left);
        let busy = |_: &str| {
            let mut left = left.borrow_mut();
            **left -= 1;
            **left > 0
        };
        assert!(is_valid(&random(busy).unwrap()));
        for bad in ["", "a", "-a", "_ab", "a b", "a/b", "ä1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
