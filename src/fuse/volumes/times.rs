//! Time stamps to be set.

use std::time::{SystemTime, UNIX_EPOCH};

use fuser::TimeOrNow;

use crate::sys::beneath::SetTime;

pub(super) fn set(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => at(time),
    }
}

/// Nanoseconds count forwards, before 1970 as well.
fn at(time: SystemTime) -> SetTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => SetTime::At(
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(error) => {
            let before = error.duration();
            let whole = i64::try_from(before.as_secs()).map_or(i64::MIN, |s| -s);
            match before.subsec_nanos() {
                0 => SetTime::At(whole, 0),
                part => SetTime::At(whole.saturating_sub(1), 1_000_000_000 - part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_1970() {
        let time = |sec: u64, nsec: u32| UNIX_EPOCH - Duration::new(sec, nsec);
        assert_eq!(at(time(0, 1)), SetTime::At(-1, 999_999_999));
        assert_eq!(at(time(5, 0)), SetTime::At(-5, 0));
        assert_eq!(at(UNIX_EPOCH + Duration::new(7, 9)), SetTime::At(7, 9));
    }
}
