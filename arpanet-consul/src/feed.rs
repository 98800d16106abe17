//! Following a blocking query.

use std::time::{Duration, Instant};

use arpanet_core::Result;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::blocking::{Pace, next_index_after, pause};
use crate::reading::Answer;

/// A query that waits beyond an index.
pub(crate) type Ask<T> = Box<dyn Fn(u64) -> BoxFuture<'static, Result<Answer<T>>> + Send + Sync>;

/// How an answer stands to others about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// The one with the higher index is the newer one,
    pub(crate) index: u64,
    /// unless consul has begun to count anew.
    pub(crate) is_anew: bool,
}

/// Whoever is told what a query answers.
pub(crate) trait Sink<T>: Send {
    /// The whole answer, each time.
    fn tell(&mut self, value: T, age: Age);

    /// Whether the source is out of reach.
    fn set_stale(&mut self, stale: bool);
}

/// Asks again and again, from this index on, with queries that wait for so long. Ends when it is dropped.
pub(crate) async fn follow<T>(
    ask: Ask<T>,
    (first, wait): (u64, Duration),
    mut leader: watch::Receiver<bool>,
    mut sink: impl Sink<T>,
) {
    let begun = Instant::now();
    let mut pace = Pace::new(begun.elapsed());
    let (mut index, mut highest, mut failures) = (first, first, 0_u32);
    loop {
        tokio::time::sleep(pace.next(begun.elapsed())).await;
        leader.mark_unchanged();
        let asked = Instant::now();
        let answer = tokio::select! {
            answer = ask(index) => Some(answer),
            () = lost(&mut leader) => None,
        };
        match answer {
            Some(Ok(answer)) => {
                failures = 0;
                let age = Age {
                    index: answer.index,
                    is_anew: answer.index < highest,
                };
                highest = answer.index;
                index = next_index_after(index, answer.index, asked.elapsed() < wait);
                sink.set_stale(!answer.has_leader);
                sink.tell(answer.value, age);
            }
            Some(Err(_)) | None => {
                // Where it goes on is unknown: the next answer is the whole.
                index = 0;
                failures = failures.saturating_add(1);
                sink.set_stale(true);
                tokio::time::sleep(pause(failures, rand::random())).await;
            }
        }
    }
}

/// Waits until the leader is lost that was there.
async fn lost(leader: &mut watch::Receiver<bool>) {
    loop {
        if leader.changed().await.is_err() {
            // Nobody tells any more.
            return std::future::pending().await;
        }
        if !*leader.borrow_and_update() {
            return;
        }
    }
}
