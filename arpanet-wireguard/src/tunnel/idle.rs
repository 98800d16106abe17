//! A thread that has nothing to do for the moment.

use std::os::fd::BorrowedFd;
use std::thread;

use super::engine::Engine;

/// How often others are let run before this thread sleeps. Under load they bring the next packets meanwhile, and to be
/// woken costs more than all else that is done for a packet; more often, they get less done themselves.
const YIELDS: u32 = 2;

/// Since when nothing has come, in turns given to others.
#[derive(Debug, Default)]
pub(super) struct Idle {
    yields: u32,
}

impl Idle {
    /// Lets others run, and after some such calls in a row sleeps until the descriptor can be read or the tunnel stops.
    pub(super) fn wait(&mut self, engine: &Engine, fd: BorrowedFd<'_>) {
        if self.yields < YIELDS {
            self.yields += 1;
            return thread::yield_now();
        }
        engine.wait(Some(fd), None);
    }

    /// Something has come.
    pub(super) const fn over(&mut self) {
        self.yields = 0;
    }
}
