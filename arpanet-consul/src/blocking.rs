//! The rules of blocking queries (<https://developer.hashicorp.com/consul/api-docs/features/blocking>), as functions.

use std::time::Duration;

/// The shortest and the longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// So many answers may come at once; after that one every [`REFILL`].
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_millis(50);

/// Which index to wait for next, after an answer to a query with `asked`.
///
/// One that went backwards (a restored snapshot, another leader with less) begins anew, which answers at once; and none is
/// ever 0 otherwise, since a query for 0 does not block.
pub(crate) const fn next_index(asked: u64, answered: u64) -> u64 {
    if answered < asked {
        0
    } else if answered == 0 {
        1
    } else {
        answered
    }
}

/// The same, for whoever knows whether the answer came before its time was over. With nothing new in it that is how consul
/// ends queries of a state that it has replaced by a snapshot; its next index is lower then, and would not be told for long.
pub(crate) const fn next_index_after(asked: u64, answered: u64, is_early: bool) -> u64 {
    if asked > 0 && answered == asked && is_early {
        0
    } else {
        next_index(asked, answered)
    }
}

/// How long to pause after so many failures in a row: twice as long each time, less a random part, so that those who lost
/// one leader do not all come back to the next in one moment. `random` is from 0 to 1.
pub(crate) fn pause(failures: u32, random: f64) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_PAUSE);
    longest.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

/// Keeps a query that is always answered at once from spinning.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    left: u32,
    /// When `left` was counted, on a clock of the caller's.
    at: Duration,
}

impl Pace {
    pub(crate) const fn new(now: Duration) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// How long to wait before the next query.
    pub(crate) fn next(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_millis() / REFILL.as_millis();
        if passed > 0 {
            let refilled = u32::try_from(passed).unwrap_or(BURST);
            self.left = self.left.saturating_add(refilled).min(BURST);
            self.at = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return Duration::ZERO;
        }
        (self.at + REFILL).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_backwards_begins_anew() {
        assert_eq!(next_index(0, 7), 7);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(7, 3), 0);
        assert_eq!(next_index(0, 0), 1);
    }

    #[test]
    fn an_answer_before_its_time_without_news_begins_anew() {
        assert_eq!(next_index_after(7, 7, true), 0);
        assert_eq!(next_index_after(7, 7, false), 7);
        assert_eq!(next_index_after(7, 9, true), 9);
        assert_eq!(next_index_after(0, 7, true), 7);
        assert_eq!(next_index_after(0, 0, true), 1);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut last = Duration::ZERO;
        for failures in 1..50 {
            let longest = pause(failures, 0.0);
            assert!(longest >= last && longest <= LONGEST_PAUSE);
            assert_eq!(pause(failures, 1.0), longest / 2);
            last = longest;
        }
        assert_eq!(last, LONGEST_PAUSE);
    }

    #[test]
    fn a_query_that_never_blocks_does_not_spin() {
        let mut pace = Pace::new(Duration::ZERO);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            let wait = pace.next(now);
            if wait.is_zero() {
                asked += 1;
                // An answer takes a moment.
                now += Duration::from_micros(200);
            }
            now += wait;
        }
        assert!((200..=240).contains(&asked), "{asked}");
    }
}
