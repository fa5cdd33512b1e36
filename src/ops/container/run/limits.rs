//! `--ulimit`: read as docker's client reads it, set before the container's program starts.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::ops::container::run::RunError;
use crate::store::containers::Ulimit;

/// docker's names.
const NAMES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// Reads `NAME=SOFT[:HARD]`; -1 is no limit.
pub fn parse(text: &str) -> Result<Ulimit, RunError> {
    let invalid = |why: String| {
        RunError::Usage(format!(
            "invalid argument {text:?} for \"--ulimit\" flag: {why}"
        ))
    };
    let Some((name, limits)) = text.split_once('=') else {
        return Err(invalid(format!("invalid ulimit argument: {text}")));
    };
    if !NAMES.iter().any(|(known, _)| *known == name) {
        return Err(invalid(format!("invalid ulimit type: {name}")));
    }
    let number = |text: &str| match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(number) => match u64::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(format!("invalid ulimit value: {text}"))),
        },
        Err(_) => Err(invalid(format!("invalid ulimit value: {text}"))),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    let shown = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |n| n.to_string());
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            shown(soft),
            shown(hard)
        )));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Sets the limits of this process.
pub fn set(limits: &[Ulimit]) -> Result<(), RunError> {
    for limit in limits {
        let Some((_, resource)) = NAMES.iter().find(|(name, _)| *name == limit.name) else {
            continue;
        };
        let new = Rlimit {
            current: limit.soft,
            maximum: limit.hard,
        };
        setrlimit(*resource, new).map_err(|error| {
            RunError::Refused(format!(
                "error setting rlimit {}: {error} (an ordinary user cannot go beyond his own: ulimit -H)",
                limit.name
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_dockers() {
        let limit = parse("nofile=10:20").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        let limit = parse("core=0").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(0), Some(0)));
        assert_eq!(parse("stack=-1").unwrap().hard, None);
        let table = [
            ("foo", "invalid ulimit argument: foo"),
            ("foo=1", "invalid ulimit type: foo"),
            ("nofile=x", "invalid ulimit value: x"),
            (
                "nofile=5:3",
                "ulimit soft limit must be less than or equal to hard limit: 5 > 3",
            ),
            (
                "nofile=-1:3",
                "ulimit soft limit must be less than or equal to hard limit: -1 > 3",
            ),
        ];
        for (text, why) in table {
            let error = parse(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid argument {text:?} for \"--ulimit\" flag: {why}")
            );
        }
    }
}
