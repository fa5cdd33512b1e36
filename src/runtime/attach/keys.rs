//! The keys that detach: `ctrl-p,ctrl-q`.

/// A sequence of bytes, and how much of it has been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys {
            keys: vec![16, 17],
            typed: 0,
        }
    }
}

/// More is no sequence that anybody types; it would be held back for ever while it is typed.
const MAX_KEYS: usize = 64;

impl DetachKeys {
    /// Reads docker's form: single characters and `ctrl-` with a letter or one of `@ [ \ ] ^ _`, with commas between; empty: the
    /// usual ones.
    pub fn parse(text: &str) -> Result<DetachKeys, String> {
        if text.is_empty() {
            return Ok(DetachKeys::default());
        }
        if text.split(',').count() > MAX_KEYS {
            return Err(format!(
                "invalid detach keys provided: more than {MAX_KEYS} of them"
            ));
        }
        let key = |word: &str| -> Option<u8> {
            match (word.as_bytes(), word.strip_prefix("ctrl-")) {
                ([byte], _) if byte.is_ascii() => Some(*byte),
                (_, Some(rest)) => match rest.as_bytes() {
                    [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                    [b'@'] => Some(0),
                    [sign @ b'['..=b'_'] => Some(sign - b'@'),
                    _ => None,
                },
                (b"DEL", _) => Some(127),
                _ => None,
            }
        };
        let keys = text.split(',').map(|word| {
            key(word).ok_or_else(|| {
                let word: String = word.chars().take(16).collect();
                let text: String = text.chars().take(MAX_KEYS).collect();
                format!("invalid detach keys ({text}) provided: Unknown character: '{word}'")
            })
        });
        Ok(DetachKeys {
            keys: keys.collect::<Result<_, _>>()?,
            typed: 0,
        })
    }

    /// Takes what was typed and gives what is for the program; true: the sequence is complete, what was typed after it is nobody's.
    pub(in crate::runtime) fn feed(&mut self, input: &[u8], pass: &mut Vec<u8>) -> bool {
        for byte in input {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return true;
                }
                continue;
            }
            // It was not the sequence after all.
            pass.extend(self.keys.iter().take(self.typed));
            self.typed = 0;
            match self.keys.first() == Some(byte) {
                true => self.typed = 1,
                false => pass.push(*byte),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        for (text, keys) in [
            ("", vec![16, 17]),
            ("ctrl-p,ctrl-q", vec![16, 17]),
            ("a", vec![b'a']),
            (
                "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_",
                vec![0, 27, 28, 29, 30, 31],
            ),
            ("DEL", vec![127]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        assert!(DetachKeys::parse(&["a"; MAX_KEYS].join(",")).is_ok());
        assert!(DetachKeys::parse(&["a"; MAX_KEYS + 1].join(",")).is_err());
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-pq"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_sequence_is_for_the_program() {
        for (typed, passed, detaches) in [
            (&[b"ab".as_slice(), b"c"][..], &b"abc"[..], false),
            (&[b"a\x10", b"\x11b"], b"a", true),
            (&[b"\x10", b"x\x10\x11"], b"\x10x", true),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10"], b"\x11", false),
        ] {
            let mut keys = DetachKeys::default();
            let mut pass = Vec::new();
            let done = typed.iter().any(|piece| keys.feed(piece, &mut pass));
            assert_eq!((pass.as_slice(), done), (passed, detaches), "{typed:?}");
        }
    }
}
