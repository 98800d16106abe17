//! Sessions, locks and campaigns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::kv::{Held, Key, SessionId};
use arpanet_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::blocking::{Pace, next_index};
use crate::check::go_duration;
use crate::client::Client;
use crate::config::{Consistency, ConsulConfig, ms};
use crate::error::{own, unreadable};
use crate::key_value::check_path;
use crate::reading::Reading;
use crate::txn::{Operation, Outcome, is_held, is_session_fault, refused};
use crate::wire::{NewSession, Pair};

/// Where locks are. Apart from the entries, so that nobody who deletes an entry takes a lock's numbers back.
pub(crate) const LOCKS: &str = "arpanet/locks/";

/// How long a campaign waits until it asks anyway, and while a lock is free that can't be had yet.
const CAMPAIGN_WAIT: Duration = Duration::from_secs(30);
const LOCK_DELAY_WAIT: Duration = Duration::from_millis(200);

/// How often what nobody waits for any more is tried to be given back while consul is out of reach, and how long apart.
const GIVING_BACK: (u8, Duration) = (5, Duration::from_secs(1));

/// One thing at a time for a lock and a session.
type Turns = Mutex<HashMap<(Key, SessionId), Weak<tokio::sync::Mutex<()>>>>;

/// What came of an attempt to take a lock.
#[derive(Debug)]
enum Attempt {
    /// It is the session's.
    Held(Held),
    /// Another session has it, as of this index.
    Others { index: u64 },
    /// Somebody was faster; or it is not to be had yet, after its holder's session ended.
    NotYet,
}

/// A blocking query that is made until its answer is as wanted.
#[derive(Debug)]
struct Rounds {
    index: u64,
    begun: Instant,
    pace: Pace,
}

impl Rounds {
    fn beyond(index: u64) -> Self {
        let begun = Instant::now();
        Self {
            index,
            begun,
            pace: Pace::new(begun.elapsed()),
        }
    }

    /// How to ask next, when it is time to.
    async fn next(&mut self, consistency: Consistency) -> Reading {
        tokio::time::sleep(self.pace.next(self.begun.elapsed())).await;
        Reading::beyond(consistency, self.index, CAMPAIGN_WAIT).followed()
    }

    const fn answered(&mut self, index: u64) {
        self.index = next_index(self.index, index);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Locks {
    client: Client,
    turns: Arc<Turns>,
    consistency: Consistency,
    lock_delay: Duration,
    sessions_follow_node: bool,
}

impl Locks {
    pub(crate) fn new(client: Client, config: &ConsulConfig) -> Self {
        Self {
            client,
            turns: Arc::default(),
            consistency: config.kv_consistency,
            lock_delay: ms(config.lock_delay_ms),
            sessions_follow_node: config.sessions_follow_node,
        }
    }

    fn now(&self) -> Reading {
        Reading::now(self.consistency)
    }

    /// The lock as it is, held or not.
    async fn lock_pair(&self, key: &Key) -> Result<(Option<Held>, u64)> {
        let answer = self.client.pair(&lock_key(key)?, self.now()).await?;
        let held = answer.value.and_then(|pair| to_held(key, &pair));
        Ok((held, answer.index))
    }

    /// Waits until the lock may be free.
    async fn freed(&self, key: &Key, index: u64) -> Result<()> {
        let path = lock_key(key)?;
        let mut rounds = Rounds::beyond(index);
        loop {
            let reading = rounds.next(self.consistency).await;
            let answer = self.client.pair(&path, reading).await?;
            if answer.value.is_none_or(|pair| pair.session.is_none()) {
                return Ok(());
            }
            rounds.answered(answer.index);
        }
    }

    /// Waits until the session ends.
    async fn ended(&self, session: &SessionId) -> Result<Error> {
        let mut rounds = Rounds::beyond(0);
        loop {
            let reading = rounds.next(self.consistency).await;
            let answer = self.client.has_session(&session.0, reading).await?;
            if !answer.value {
                return Ok(session_ended(session));
            }
            rounds.answered(answer.index);
        }
    }

    pub(crate) async fn open_session(&self, ttl: Duration) -> Result<SessionId> {
        if ttl.is_zero() {
            let message = "a session of no time has ended already";
            return Err(own(ErrorKind::InvalidInput, message));
        }
        let session = NewSession {
            name: "arpanet2",
            ttl: go_duration(ttl),
            lock_delay: go_duration(self.lock_delay),
            behavior: "release",
            node_checks: (!self.sessions_follow_node).then(Vec::new),
        };
        self.client.create_session(&session).await.map(SessionId)
    }

    pub(crate) async fn renew_session(&self, session: &SessionId) -> Result<()> {
        match self.client.renew_session(&session.0).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(session_ended(session)),
            answer => answer,
        }
    }

    pub(crate) async fn close_session(&self, session: &SessionId) -> Result<()> {
        self.client.destroy_session(&session.0).await
    }

    /// What else is done for this lock and session waits for whoever has this locked.
    fn turn(&self, key: &Key, session: &SessionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.entry((key.clone(), session.clone())).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *turn = Arc::downgrade(&new);
            new
        })
    }

    pub(crate) async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        let turn = self.turn(key, session);
        let _turn = turn.lock().await;
        self.take(key, session).await
    }

    async fn take(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        let path = lock_key(key)?;
        let locking = Operation::lock(&path, &session.0);
        let outcome = self.client.transact(&locking).await?;
        match outcome {
            Outcome::Done(pair) => match to_held(key, &pair) {
                Some(held) if held.session == *session => Ok(Some(held)),
                _ => {
                    let cause = "a lock that was taken is another session's";
                    Err(unreadable(&self.client.transport.at, cause))
                }
            },
            Outcome::Refused(told) if is_held(&told) => {
                // A session that ended is told before a lock that it could not have had anyway.
                let reading = self.now();
                let answer = self.client.has_session(&session.0, reading).await;
                match answer?.value {
                    true => Ok(None),
                    false => Err(session_ended(session)),
                }
            }
            Outcome::Refused(told) if is_session_fault(&told) => Err(session_ended(session)),
            Outcome::Refused(told) => Err(refused(&self.client.transport.at, &told)),
        }
    }

    /// Takes a lock where it is free. A call that is dropped takes nothing: a request that is on its way can't be called back, so
    /// what comes of it is, and until then nothing else is done for this lock and session.
    async fn attempt(&self, key: &Key, session: &SessionId) -> Result<Attempt> {
        let (tell, told) = oneshot::channel();
        let (this, key, session) = (self.clone(), key.clone(), session.clone());
        tokio::spawn(async move {
            let turn = this.turn(&key, &session);
            let _turn = turn.lock().await;
            if tell.is_closed() {
                return;
            }
            let (outcome, may_be_new) = match this.lock_pair(&key).await {
                // What it has already is not to be given back.
                Ok((Some(held), _)) if held.session == session => (Ok(Attempt::Held(held)), false),
                Ok((Some(_), index)) => (Ok(Attempt::Others { index }), false),
                Ok((None, _)) => match this.take(&key, &session).await {
                    Ok(Some(held)) => (Ok(Attempt::Held(held)), true),
                    Ok(None) => (Ok(Attempt::NotYet), false),
                    Err(error) => (Err(error), true),
                },
                Err(error) => (Err(error), false),
            };
            let (take, taken) = oneshot::channel();
            let is_taken = tell.send((outcome, take)).is_ok() && taken.await.is_ok();
            if may_be_new && !is_taken {
                this.give_back(&key, &session).await;
            }
        });
        let gone = |_| {
            own(
                ErrorKind::Unavailable,
                "the runtime ends, and the lock was not asked for",
            )
        };
        let (outcome, take) = told.await.map_err(gone)?;
        // From here to the end nothing is awaited.
        let _ = take.send(());
        outcome
    }

    async fn give_back(&self, key: &Key, session: &SessionId) {
        let (times, apart) = GIVING_BACK;
        for _ in 0..times {
            match self.release(key, session).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, %key, "a lock that nobody waits for any more"),
            }
            tokio::time::sleep(apart).await;
        }
    }

    pub(crate) async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()> {
        let turn = self.turn(key, session);
        let _turn = turn.lock().await;
        self.release(key, session).await
    }

    async fn release(&self, key: &Key, session: &SessionId) -> Result<()> {
        let path = lock_key(key)?;
        let (held, _) = self.lock_pair(key).await?;
        if held.is_none_or(|held| held.session != *session) {
            return Ok(());
        }
        let unlocking = Operation::unlock(&path, &session.0);
        match self.client.transact(&unlocking).await? {
            Outcome::Done(_) => Ok(()),
            // It was lost meanwhile.
            Outcome::Refused(told) if told.contains("lock isn't held") => Ok(()),
            Outcome::Refused(told) if is_session_fault(&told) => Ok(()),
            Outcome::Refused(told) => Err(refused(&self.client.transport.at, &told)),
        }
    }

    pub(crate) async fn holder(&self, key: &Key) -> Result<Option<Held>> {
        Ok(self.lock_pair(key).await?.0)
    }

    pub(crate) async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held> {
        loop {
            let index = match self.attempt(key, session).await? {
                Attempt::Held(held) => return Ok(held),
                Attempt::NotYet => {
                    tokio::time::sleep(LOCK_DELAY_WAIT).await;
                    continue;
                }
                Attempt::Others { index } => index,
            };
            tokio::select! {
                freed = self.freed(key, index) => freed?,
                ended = self.ended(session) => {
                    return Err(ended?);
                }
            }
        }
    }
}

fn session_ended(session: &SessionId) -> Error {
    own(
        ErrorKind::NotFound,
        format!("the session {} has ended", session.0),
    )
}

fn lock_key(key: &Key) -> Result<String> {
    check_path(key.as_str())?;
    Ok(format!("{LOCKS}{key}"))
}

/// Who holds a lock. Consul counts its holders from 1 (`LockIndex`), but anew when the entry was deleted and is made again.
/// Each holder costs at least one change of consul's state, so with the number of the change that made the entry
/// (`CreateIndex`) the count grows over that too.
fn to_held(key: &Key, pair: &Pair) -> Option<Held> {
    let session = pair.session.clone().filter(|session| !session.is_empty())?;
    let fencing = pair.create_index.saturating_add(pair.lock_index);
    Some(Held::new(key.clone(), SessionId(session), fencing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(create_index: u64, lock_index: u64, session: Option<&str>) -> Pair {
        Pair {
            key: "arpanet/locks/a".to_owned(),
            value: Vec::new(),
            session: session.map(str::to_owned),
            lock_index,
            create_index,
            modify_index: create_index.saturating_add(100),
        }
    }

    #[test]
    fn fencing_numbers_grow_over_a_deletion() {
        let key: Key = "a".parse().unwrap();
        let fencing = |create, lock| {
            to_held(&key, &pair(create, lock, Some("s")))
                .unwrap()
                .fencing
        };
        assert!(fencing(10, 2) > fencing(10, 1));
        // Made by change 10, and held for the fifth time since one of the changes from 14 on; deleted by the next one at the
        // earliest, and made again after that.
        assert!(fencing(16, 1) > fencing(10, 5));
        // One that lies.
        assert_eq!(fencing(u64::MAX, 5), u64::MAX);
        assert_eq!(to_held(&key, &pair(10, 5, None)), None);
        assert_eq!(to_held(&key, &pair(10, 5, Some(""))), None);
    }
}
