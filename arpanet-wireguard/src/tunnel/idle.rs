//! A thread that has nothing to do for the moment.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use super::engine::Engine;

/// How often others are let run before this thread sleeps. Where all processors are busy with one stream, they bring the next
/// packets meanwhile, and to be woken costs more than all else that is done for a packet.
const YIELDS: u32 = 2;
/// Whoever keeps a processor for longer is none of those: it computes, and packets wait for it.
const LONG: Duration = Duration::from_millis(1);
/// So many times as long nobody is let run then: at most a hundredth of the time is lost to it.
const PAUSE: u32 = 100;

/// Since when nothing has come, in turns given to others.
#[derive(Debug, Default)]
pub(super) struct Idle {
    yields: u32,
    not_before: Option<Instant>,
}

impl Idle {
    /// Lets others run, or sleeps until the descriptor can be read or the tunnel stops.
    pub(super) fn wait(&mut self, engine: &Engine, fd: BorrowedFd<'_>) {
        let now = Instant::now();
        if self.may_yield(now) {
            thread::yield_now();
            self.yielded(now, now.elapsed());
        } else {
            engine.wait(Some(fd), None);
        }
    }

    /// Something has come.
    pub(super) const fn over(&mut self) {
        self.yields = 0;
    }

    fn may_yield(&self, now: Instant) -> bool {
        self.yields < YIELDS && self.not_before.is_none_or(|then| then <= now)
    }

    fn yielded(&mut self, at: Instant, away: Duration) {
        self.yields += 1;
        if away >= LONG {
            self.not_before = Some(at + away * PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Idle, LONG, PAUSE};

    const SHORT: Duration = Duration::from_micros(20);

    #[test]
    fn it_sleeps_when_others_have_brought_nothing() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        idle.yielded(now, SHORT);
        assert!(idle.may_yield(now));
        idle.yielded(now, SHORT);
        assert!(!idle.may_yield(now));
        idle.over();
        assert!(idle.may_yield(now));
    }

    #[test]
    fn who_computes_is_not_let_run_again_for_a_while() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        idle.yielded(now, LONG);
        idle.over();
        assert!(!idle.may_yield(now + LONG * (PAUSE - 1)));
        assert!(idle.may_yield(now + LONG * PAUSE));
    }
}
