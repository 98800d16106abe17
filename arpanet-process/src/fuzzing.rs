//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::wire::{Answer, Refusal, Request, receive, send};

/// Any bytes as frames of a shim's socket: what was read of them is written as it was.
pub fn frames(mut bytes: &[u8]) {
    loop {
        let before = bytes;
        let Ok(Some(frame)) = at_once(receive(&mut bytes)) else {
            return;
        };
        let _ = frame.parse::<Request>();
        let _ = frame.parse::<Answer>();
        let _ = frame.parse::<Refusal>();
        let mut again = Vec::new();
        at_once(send(&mut again, &frame)).unwrap();
        assert_eq!(again, before[..before.len() - bytes.len()]);
    }
}

/// What reads from memory is never pending.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for memory"),
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn any_bytes_are_frames_or_none() {
        hold(seeds("process_frames"), 10_000, super::frames);
    }
}
