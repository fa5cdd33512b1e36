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

/// fuser makes (-5 s, 3 ns) of the kernel's, where nanoseconds count forwards, into 5 s and 3 ns before 1970: undone here.
fn at(time: SystemTime) -> SetTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => SetTime::At(
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(error) => {
            let before = error.duration();
            let whole = i64::try_from(before.as_secs()).map_or(i64::MIN, |s| -s);
            SetTime::At(whole, before.subsec_nanos())
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
        assert_eq!(at(time(1, 999_999_999)), SetTime::At(-1, 999_999_999));
        assert_eq!(at(time(5, 0)), SetTime::At(-5, 0));
        assert_eq!(at(UNIX_EPOCH + Duration::new(7, 9)), SetTime::At(7, 9));
    }
}
