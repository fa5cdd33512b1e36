//! Moments of the host's clock as time stamps of files.

use std::time::{Duration, SystemTime};

use super::api::Timestamp;

impl Timestamp {
    /// This moment.
    pub(super) fn now() -> Self {
        SystemTime::now().into()
    }

    /// The earliest time after `self` that is not before this moment: a time stamp that has to move.
    pub(super) fn next(self) -> Self {
        let after = match self.nsec {
            999_999_999 => Timestamp {
                sec: self.sec.saturating_add(1),
                nsec: 0,
            },
            nsec => Timestamp {
                sec: self.sec,
                nsec: nsec.saturating_add(1),
            },
        };
        after.max(Timestamp::now())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timestamp {
                sec: seconds(since),
                nsec: since.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Timestamp {
                        sec: seconds(before).saturating_neg(),
                        nsec: 0,
                    },
                    nsec => Timestamp {
                        sec: seconds(before).saturating_neg().saturating_sub(1),
                        nsec: 1_000_000_000u32.saturating_sub(nsec),
                    },
                }
            }
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        SystemTime::from(time).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_forwards() {
        let time = SystemTime::UNIX_EPOCH - Duration::new(4, 500_000_000);
        let expected = Timestamp {
            sec: -5,
            nsec: 500_000_000,
        };
        assert_eq!(Timestamp::from(time), expected);
        let whole = SystemTime::UNIX_EPOCH - Duration::from_secs(4);
        assert_eq!(Timestamp::from(whole), Timestamp { sec: -4, nsec: 0 });
    }

    #[test]
    fn the_next_time_is_later() {
        for (sec, nsec) in [(0, 5), (0, 999_999_999), (i64::from(u32::MAX), 7)] {
            let time = Timestamp { sec, nsec };
            assert!(time.next() > time);
        }
    }
}
