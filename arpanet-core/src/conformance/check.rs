//! What a check is, and how one is run.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use super::report::{CheckReport, Outcome};
use crate::{Error, ErrorKind, Result};

/// One sentence of a contract, and what shows whether it is kept.
pub(super) struct Check<R: ?Sized> {
    pub(super) name: &'static str,
    /// As it stands in the trait's documentation.
    pub(super) sentence: &'static str,
    /// Why it can't be checked here.
    pub(super) skip: fn(&R) -> Option<&'static str>,
    pub(super) run: for<'a> fn(&'a R) -> LocalBoxFuture<'a, Verdict>,
}

/// A check by the name of its function.
macro_rules! check {
    ($check:ident, $sentence:literal) => {
        check!($check, $sentence, |_| None)
    };
    ($check:ident, $sentence:literal, $skip:expr) => {
        $crate::conformance::check::Check {
            name: stringify!($check),
            sentence: $sentence,
            skip: $skip,
            run: |rig| Box::pin($check(rig)),
        }
    };
}

/// Ends the check with what was seen, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::conformance::check::Broken::new(format!($($seen)+)));
        }
    };
}

pub(super) use {check, ensure};

pub(super) type Verdict<T = ()> = Result<T, Broken>;

/// What was seen instead of what the contract says.
#[derive(Debug)]
pub(super) struct Broken(String);

impl Broken {
    pub(super) fn new(seen: impl Into<String>) -> Self {
        Self(seen.into())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        let operation = error.operation_name().unwrap_or("a call");
        let mut seen = format!("{operation} failed ({}): {error}", error.kind());
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            seen.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self(seen)
    }
}

/// The call must have failed with one of these kinds.
pub(super) fn refused<T>(call: &str, answer: Result<T>, kinds: &[ErrorKind]) -> Verdict<Error> {
    match answer {
        Ok(_) => Err(Broken::new(format!("{call} succeeded"))),
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => Err(Broken::new(format!(
            "{call} answered {} instead of {}: {error}",
            error.kind(),
            kinds[0]
        ))),
    }
}

/// Asks until the answer is good; the last complaint after `limit`.
pub(super) async fn until(limit: Duration, mut ask: impl AsyncFnMut() -> Verdict) -> Verdict {
    const PAUSE: Duration = Duration::from_millis(10);
    let end = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(Broken(seen)) if Instant::now() >= end => {
                return Err(Broken(format!("after {limit:?}: {seen}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Polls a call this many times, then drops it; its answer if it had one by then.
pub(super) async fn interrupted<F: Future>(call: F, polls: usize) -> Option<F::Output> {
    let call = pin!(call);
    Interrupted { call, polls }.await
}

struct Interrupted<'a, F> {
    call: Pin<&'a mut F>,
    polls: usize,
}

impl<F: Future> Future for Interrupted<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // The next time it would be polled is when it is dropped.
            Poll::Pending => Poll::Pending,
        }
    }
}

/// At how many awaits a call is dropped.
pub(super) const INTERRUPTIONS: std::ops::Range<usize> = 0..6;

/// Runs one check on a rig of its own. A check that panics or does not end is broken.
pub(super) async fn conduct<R: ?Sized>(check: &Check<R>, rig: &R, limit: Duration) -> CheckReport {
    let outcome = match (check.skip)(rig) {
        Some(why) => Outcome::Skipped(why),
        None => {
            let run = AssertUnwindSafe((check.run)(rig)).catch_unwind();
            match tokio::time::timeout(limit, run).await {
                Ok(Ok(Ok(()))) => Outcome::Kept,
                Ok(Ok(Err(broken))) => Outcome::Broken(broken.to_string()),
                Ok(Err(panic)) => Outcome::Broken(format!("it panicked: {}", said(&*panic))),
                Err(_) => Outcome::Broken(format!("it did not end within {limit:?}")),
            }
        }
    };
    CheckReport::new(check.name, check.sentence, outcome)
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// That each check quotes the documentation in this source, and that no two have one name.
#[cfg(test)]
pub(super) fn assert_quoted<R: ?Sized>(source: &str, checks: &[Check<R>]) {
    let docs = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("///"))
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ");
    let docs = plain(&docs);
    let mut names = std::collections::BTreeSet::new();
    for check in checks {
        assert!(
            names.insert(check.name),
            "two checks are called {}",
            check.name
        );
        assert!(
            docs.contains(check.sentence),
            "{}: {:?} is nowhere in the contract",
            check.name,
            check.sentence
        );
    }
}

/// Text without the marks of links and code.
#[cfg(test)]
fn plain(docs: &str) -> String {
    let mut plain = String::new();
    let mut rest = docs;
    while let Some((before, link)) = rest.split_once("](") {
        plain.push_str(before);
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.replace(['[', ']', '`'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_dropped_at_each_of_its_awaits() {
        for polls in 0..4 {
            let mut reached = 0;
            let call = async {
                for _ in 0..2 {
                    reached += 1;
                    tokio::task::yield_now().await;
                }
                reached += 1;
            };
            let ended = interrupted(call, polls).await.is_some();
            assert_eq!((reached, ended), (polls.min(3), polls == 3));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_or_panics_is_broken() {
        async fn hangs(_: &()) -> Verdict {
            std::future::pending().await
        }
        async fn panics(_: &()) -> Verdict {
            panic!("on purpose")
        }
        for (check, seen) in [
            (check!(hangs, ""), "did not end"),
            (check!(panics, ""), "on purpose"),
        ] {
            let report = conduct(&check, &(), Duration::from_secs(1)).await;
            assert!(matches!(report.outcome(), Outcome::Broken(told) if told.contains(seen)));
        }
    }
}
