//! What the answers to one check come to, and when it is asked next. Pure: time and chance come in.

use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::Check;

/// How often a check is asked while its answers leave it in doubt, at the least.
const IN_DOUBT: Duration = Duration::from_secs(1);

/// How far from its interval a check is asked, so that those of many containers drift apart.
const JITTER: f64 = 0.1;

/// What the answers so far come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not passed yet.
    Starting,
    Passing,
    Failing,
}

/// One check of one run of a container.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    began: Instant,
    verdict: Verdict,
    /// In a row.
    passes: u32,
    /// In a row; those of the start do not count.
    failures: u32,
    last_failure: Option<String>,
    /// It has just come to another verdict.
    has_turned: bool,
}

impl Judge {
    pub(crate) const fn new(began: Instant) -> Self {
        Self {
            began,
            verdict: Verdict::Starting,
            passes: 0,
            failures: 0,
            last_failure: None,
            has_turned: false,
        }
    }

    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why it does not pass, or did not the last time.
    pub(crate) fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Takes an answer: a pass, or why it is none.
    pub(crate) fn hear(&mut self, check: &Check, now: Instant, answer: Result<(), String>) {
        match answer {
            Ok(()) => {
                self.passes = self.passes.saturating_add(1);
                self.failures = 0;
            }
            Err(why) => {
                self.passes = 0;
                if !self.is_young(check, now) {
                    self.failures = self.failures.saturating_add(1);
                }
                self.last_failure = Some(why);
            }
        }
        let verdict = match self.verdict {
            Verdict::Passing if self.failures >= check.fall() => Verdict::Failing,
            Verdict::Starting if self.failures >= check.fall() => Verdict::Failing,
            Verdict::Starting | Verdict::Failing if self.passes >= check.rise() => Verdict::Passing,
            same => same,
        };
        self.has_turned = verdict != self.verdict;
        self.verdict = verdict;
    }

    /// How long to wait until it is asked again; `chance` is from 0 up to 1.
    pub(crate) fn wait(&self, check: &Check, chance: f64) -> Duration {
        if self.is_in_doubt() {
            return around(check.interval().min(IN_DOUBT), chance);
        }
        if self.has_turned {
            // What turned together, as when a host starts, is not asked together for ever.
            return check.interval().mul_f64(chance.max(JITTER));
        }
        around(check.interval(), chance)
    }

    /// Whether the container may still be starting.
    fn is_young(&self, check: &Check, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.began);
        self.verdict == Verdict::Starting && age < check.start_period()
    }

    const fn is_in_doubt(&self) -> bool {
        match self.verdict {
            Verdict::Starting => true,
            Verdict::Passing => self.failures > 0,
            Verdict::Failing => self.passes > 0,
        }
    }
}

fn around(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn check() -> Check {
        Check::new("tcp:80".parse().unwrap())
    }

    fn thresholds(rise: u32, fall: u32) -> Check {
        let count = |number| NonZeroU32::new(number).unwrap();
        let check = check().rising_after(count(rise)).falling_after(count(fall));
        check.starting_within(Duration::ZERO)
    }

    fn failure() -> Result<(), String> {
        Err("no".to_owned())
    }

    /// What answers come to one after another; `+` is a pass, `-` a failure.
    fn verdicts(check: &Check, answers: &str) -> Vec<Verdict> {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let answers = answers.chars().map(|answer| match answer {
            '+' => Ok(()),
            _ => failure(),
        });
        answers
            .map(|answer| {
                judge.hear(check, now, answer);
                judge.verdict()
            })
            .collect()
    }

    #[test]
    fn turns_after_as_many_in_a_row_and_not_before() {
        use Verdict::{Failing, Passing, Starting};
        let check = thresholds(2, 3);
        assert_eq!(
            verdicts(&check, "+++---+-++"),
            [
                Starting, Passing, Passing, Passing, Passing, Failing, Failing, Failing, Failing,
                Passing
            ]
        );
        // What comes and goes does not flap.
        let verdicts = verdicts(&check, "++-+--+-+--+");
        assert!(verdicts[1..].iter().all(|verdict| *verdict == Passing));
    }

    #[test]
    fn failures_of_the_start_do_not_count_and_a_pass_ends_it() {
        let check = check();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut judge = Judge::new(began);
        for second in 0..30 {
            judge.hear(&check, after(second), failure());
            assert_eq!(judge.verdict(), Verdict::Starting);
            assert_eq!(judge.last_failure(), Some("no"));
        }
        for (second, verdict) in [
            (30, Verdict::Starting),
            (31, Verdict::Starting),
            (32, Verdict::Failing),
        ] {
            judge.hear(&check, after(second), failure());
            assert_eq!(judge.verdict(), verdict);
        }

        let mut judge = Judge::new(began);
        judge.hear(&check, after(1), Ok(()));
        for second in 2..5 {
            assert_eq!(judge.verdict(), Verdict::Passing);
            judge.hear(&check, after(second), failure());
        }
        assert_eq!(judge.verdict(), Verdict::Failing);
    }

    #[test]
    fn it_is_asked_sooner_in_doubt() {
        let check = check();
        let now = Instant::now();
        let seconds = |judge: &Judge, chance| judge.wait(&check, chance).as_secs_f64();
        let mut judge = Judge::new(now);
        assert!((0.9..=1.1).contains(&seconds(&judge, 0.7)));
        judge.hear(&check, now, Ok(()));
        // A part of the interval, by chance, and the whole of it from then on.
        assert!((seconds(&judge, 0.5) - 5.0).abs() < 0.01);
        assert!(seconds(&judge, 0.0) >= 1.0);
        judge.hear(&check, now, Ok(()));
        assert!((9.0..=11.0).contains(&seconds(&judge, 0.3)));
        judge.hear(&check, now, failure());
        assert!((0.9..=1.1).contains(&seconds(&judge, 0.3)));
        // A check that is asked more often anyway goes on so.
        let often = check.clone().every(Duration::from_millis(200));
        assert!(judge.wait(&often, 0.5) <= Duration::from_millis(220));
    }

    proptest! {
        #[test]
        fn a_verdict_stands_until_as_many_answers_in_a_row_contradict_it(
            answers in "[+-]{0,60}",
            rise in 1..5u32,
            fall in 1..5u32,
        ) {
            let check = thresholds(rise, fall);
            let verdicts = verdicts(&check, &answers);
            let row = |end: usize, answer: char, count: u32| {
                let last = &answers[..=end];
                last.len() >= count as usize && last.chars().rev().take(count as usize).all(|one| one == answer)
            };
            let mut before = Verdict::Starting;
            for (at, verdict) in verdicts.into_iter().enumerate() {
                match verdict {
                    Verdict::Passing if before != Verdict::Passing => prop_assert!(row(at, '+', rise)),
                    Verdict::Failing if before != Verdict::Failing => prop_assert!(row(at, '-', fall)),
                    Verdict::Starting => prop_assert_eq!(before, Verdict::Starting),
                    Verdict::Passing => prop_assert!(!row(at, '-', fall)),
                    Verdict::Failing => prop_assert!(!row(at, '+', rise)),
                }
                before = verdict;
            }
        }

        #[test]
        fn the_wait_is_never_far_from_the_interval(millis in 100..60_000u64, chance in 0.0..1.0f64, passed: bool) {
            let check = check().every(Duration::from_millis(millis));
            let mut judge = Judge::new(Instant::now());
            for _ in 0..2 * usize::from(passed) {
                judge.hear(&check, Instant::now(), Ok(()));
            }
            let wait = judge.wait(&check, chance);
            let interval = if passed { check.interval() } else { check.interval().min(IN_DOUBT) };
            prop_assert!(wait >= interval.mul_f64(0.89) && wait <= interval.mul_f64(1.11));
        }
    }
}
