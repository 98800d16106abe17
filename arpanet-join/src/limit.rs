//! How often a password may be guessed: pure, with the time as an argument.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Wrong guesses that one source may make in [`WINDOW`].
const PER_SOURCE: usize = 5;
/// Wrong guesses that all sources together may make in [`WINDOW`].
const OVERALL: usize = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Sources remembered at once. More of them than that are only held to [`OVERALL`].
const SOURCES: usize = 4096;

/// Why a guess may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Too many were wrong: the next may be made after this.
    TooMany(Duration),
    /// As many as might all be wrong are being made at this moment.
    Busy,
}

/// Counts wrong guesses by source and overall. A guess that is being made counts until it is known to be right.
#[derive(Debug, Default)]
pub(crate) struct GuessLimiter {
    sources: HashMap<IpAddr, Guesses>,
    overall: Guesses,
}

#[derive(Debug, Default)]
struct Guesses {
    wrong: VecDeque<Instant>,
    pending: usize,
}

impl Guesses {
    fn check(&mut self, limit: usize, now: Instant) -> Result<(), Wait> {
        while self
            .wrong
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.wrong.pop_front();
        }
        match self.wrong.front() {
            Some(oldest) if self.wrong.len() >= limit => Err(Wait::TooMany(
                WINDOW.saturating_sub(now.saturating_duration_since(*oldest)),
            )),
            _ if self.wrong.len() + self.pending >= limit => Err(Wait::Busy),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, wrong: Option<Instant>) {
        self.pending = self.pending.saturating_sub(1);
        self.wrong.extend(wrong);
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.pending == 0
            && self
                .wrong
                .back()
                .is_none_or(|at| now.saturating_duration_since(*at) >= WINDOW)
    }
}

impl GuessLimiter {
    /// Asks for a guess; each that is granted is [`settle`](Self::settle)d once.
    pub(crate) fn begin(&mut self, source: IpAddr, now: Instant) -> Result<(), Wait> {
        let source = site(source);
        self.overall.check(OVERALL, now)?;
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, guesses| !guesses.is_idle(now));
        }
        if self.sources.len() < SOURCES || self.sources.contains_key(&source) {
            let guesses = self.sources.entry(source).or_default();
            guesses.check(PER_SOURCE, now)?;
            guesses.pending += 1;
        }
        self.overall.pending += 1;
        Ok(())
    }

    /// Says how a guess ended: wrong at this time, or right or never made.
    pub(crate) fn settle(&mut self, source: IpAddr, wrong: Option<Instant>) {
        self.overall.settle(wrong);
        if let Some(guesses) = self.sources.get_mut(&site(source)) {
            guesses.settle(wrong);
        }
    }
}

/// Whoever has one address of an IPv6 /64 has them all.
fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 8, last])
    }

    #[test]
    fn the_sixth_wrong_guess_in_a_minute_waits_for_the_first_to_be_a_minute_old() {
        let mut limiter = GuessLimiter::default();
        let start = Instant::now();
        for second in 0..5 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.begin(source(1), now), Ok(()));
            limiter.settle(source(1), Some(now));
        }
        let now = start + Duration::from_secs(20);
        assert_eq!(
            limiter.begin(source(1), now),
            Err(Wait::TooMany(Duration::from_secs(40)))
        );
        assert_eq!(limiter.begin(source(2), now), Ok(()));
        assert_eq!(limiter.begin(source(1), start + WINDOW), Ok(()));
        assert_eq!(limiter.begin(source(1), start + WINDOW), Err(Wait::Busy));
    }

    #[test]
    fn right_guesses_cost_nothing_and_parallel_ones_can_t_outrun_the_limit() {
        let mut limiter = GuessLimiter::default();
        let now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(limiter.begin(source(1), now), Ok(()));
            limiter.settle(source(1), None);
        }
        for _ in 0..5 {
            assert_eq!(limiter.begin(source(1), now), Ok(()));
        }
        assert_eq!(limiter.begin(source(1), now), Err(Wait::Busy));
        limiter.settle(source(1), None);
        assert_eq!(limiter.begin(source(1), now), Ok(()));
    }

    #[test]
    fn many_sources_share_one_limit_and_bounded_memory() {
        let mut limiter = GuessLimiter::default();
        let now = Instant::now();
        let guesser = |index: u32| IpAddr::from(index.to_be_bytes());
        for index in 0..u32::try_from(OVERALL).unwrap() {
            assert_eq!(limiter.begin(guesser(index), now), Ok(()));
            limiter.settle(guesser(index), Some(now));
        }
        assert_eq!(
            limiter.begin(guesser(9_999), now),
            Err(Wait::TooMany(WINDOW))
        );
        for index in 0..100_000 {
            let later = now + WINDOW * (1 + index);
            assert_eq!(limiter.begin(guesser(index), later), Ok(()));
            limiter.settle(guesser(index), Some(later));
        }
        assert!(limiter.sources.len() <= SOURCES);
    }

    #[test]
    fn one_ipv6_site_is_one_source() {
        let mut limiter = GuessLimiter::default();
        let now = Instant::now();
        for host in 0..5 {
            let source = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
            assert_eq!(limiter.begin(source, now), Ok(()));
            limiter.settle(source, Some(now));
        }
        let sixth = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert!(limiter.begin(sixth, now).is_err());
    }
}
