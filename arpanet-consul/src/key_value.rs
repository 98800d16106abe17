//! `KeyValue` on a consul agent.

use std::collections::BTreeMap;
use std::time::Duration;

use arpanet_core::kv::{Entry, Held, Key, KeyValue, Revision, SessionId};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::blocking::next_index;
use crate::check::go_duration;
use crate::client::{Client, Reading};
use crate::config::{Consistency, ConsulConfig, ms};
use crate::error::{BACKEND, own};
use crate::feed::{Age, Ask, Sink, follow};
use crate::leadership::Leadership;
use crate::txn::{Operation, Outcome, is_held, is_outdated, is_session_fault, refused};
use crate::wire::{NewSession, Pair};

/// The longest value: consul's own limit.
const VALUE_LIMIT: usize = 512 * 1024;

/// The longest value that fits into a transaction of consul's usual 512 KiB, as base64 and with what is around it.
const TRANSACTION_LIMIT: usize = 380 * 1024;

/// Where locks are. Apart from the entries, so that nobody who deletes an entry takes a lock's numbers back.
const LOCKS: &str = "arpanet/locks/";

/// How long a campaign waits until it asks anyway, and while a lock is free that can't be had yet.
const CAMPAIGN_WAIT: Duration = Duration::from_secs(30);
const LOCK_DELAY_WAIT: Duration = Duration::from_millis(200);

/// [`KeyValue`] by consul's key-value store, its sessions and its locks.
///
/// An entry is consul's entry of the same key, so `consul kv` and others see it; its flags are a random number with each
/// write, since consul gives no new revision to what is written again as it was. Locks are under `arpanet/locks/`.
#[derive(Debug)]
pub struct ConsulKeyValue {
    client: Client,
    leadership: Leadership,
    consistency: Consistency,
    wait: Duration,
    lock_delay: Duration,
    sessions_follow_node: bool,
}

impl ConsulKeyValue {
    /// By this agent. Nothing is asked yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names what can't be used of the config or of the files that it names.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        config.validate()?;
        let client = Client::new(&config)?;
        Ok(Self {
            leadership: Leadership::new(client.clone()),
            client,
            consistency: config.kv_consistency,
            wait: ms(config.wait_ms),
            lock_delay: ms(config.lock_delay_ms),
            sessions_follow_node: config.sessions_follow_node,
        })
    }

    fn now(&self) -> Reading {
        Reading::now(self.consistency)
    }

    async fn write(&self, key: &Key, expected: Option<u64>, value: Bytes) -> Result<Revision> {
        let key = check_key(key)?;
        if value.len() > VALUE_LIMIT {
            let message = format!("a value of {} bytes is over 512 KiB", value.len());
            return Err(own(ErrorKind::InvalidInput, message));
        }
        let flags = rand::random();
        if value.len() > TRANSACTION_LIMIT {
            return self.write_long(key, flags, expected, value).await;
        }
        let operation = match expected {
            None => Operation::set(key, &value, flags),
            Some(index) => Operation::cas(key, &value, flags, index),
        };
        match self.client.transact(&operation).await? {
            Outcome::Done(pair) => Ok(Revision(pair.modify_index)),
            Outcome::Refused(told) if is_outdated(&told) => Err(changed(key)),
            Outcome::Refused(told) => Err(refused(&self.client.transport.at, &told)),
        }
    }

    /// A plain write does not answer with the revision, so it is read afterwards. Where another write came in between, ours
    /// had some revision below that one; which one does not matter, since none of them is the entry's any more.
    async fn write_long(
        &self,
        key: &str,
        flags: u64,
        expected: Option<u64>,
        value: Bytes,
    ) -> Result<Revision> {
        let written = self
            .client
            .put_pair(key, flags, expected, value.clone())
            .await?;
        if !written {
            return Err(changed(key));
        }
        let read = self.client.pair(key, self.now()).await?;
        Ok(Revision(match read.value {
            Some(pair) if pair.value == value => pair.modify_index,
            Some(pair) => pair.modify_index - 1,
            None => read.index,
        }))
    }

    /// The lock as it is, held or not.
    async fn lock_pair(&self, key: &Key) -> Result<(Option<Held>, u64)> {
        let answer = self.client.pair(&lock_key(key)?, self.now()).await?;
        let held = answer.value.and_then(|pair| to_held(key, &pair));
        Ok((held, answer.index))
    }

    /// Waits until the lock may be free.
    async fn freed(&self, key: &Key, mut index: u64) -> Result<()> {
        let path = lock_key(key)?;
        loop {
            let reading = Reading::beyond(self.consistency, index, CAMPAIGN_WAIT).followed();
            let answer = self.client.pair(&path, reading).await?;
            if answer.value.is_none_or(|pair| pair.session.is_none()) {
                return Ok(());
            }
            index = next_index(index, answer.index);
        }
    }

    /// Waits until the session ends.
    async fn ended(&self, session: &SessionId) -> Result<Error> {
        let mut index = 0;
        loop {
            let reading = Reading::beyond(self.consistency, index, CAMPAIGN_WAIT).followed();
            let answer = self.client.has_session(&session.0, reading).await?;
            if !answer.value {
                return Ok(session_ended(session));
            }
            index = next_index(index, answer.index);
        }
    }
}

fn changed(key: &str) -> Error {
    own(ErrorKind::Conflict, format!("{key} changed meanwhile"))
}

fn session_ended(session: &SessionId) -> Error {
    own(
        ErrorKind::NotFound,
        format!("the session {} has ended", session.0),
    )
}

/// A key that consul can have in a path, and that is none of its locks.
fn check_key(key: &Key) -> Result<&str> {
    let text = key.as_str();
    if text.starts_with(LOCKS) {
        let message = format!("{key} can't be a key: what is under {LOCKS} are locks");
        return Err(own(ErrorKind::InvalidInput, message));
    }
    check_path(text)?;
    Ok(text)
}

/// A path must come to consul as it is: web servers take `//`, `.` and `..` out.
fn check_path(text: &str) -> Result<()> {
    let inner = text.strip_suffix('/').unwrap_or(text);
    let is_plain = inner
        .split('/')
        .all(|part| !matches!(part, "" | "." | ".."));
    if is_plain || text.is_empty() {
        return Ok(());
    }
    Err(own(
        ErrorKind::InvalidInput,
        format!("{text:?} can't be a key at consul: a part of it is empty, . or .."),
    ))
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
    let fencing = pair.create_index + pair.lock_index;
    Some(Held::new(key.clone(), SessionId(session), fencing))
}

fn to_entry(pair: Pair) -> Entry {
    Entry::new(pair.value.into(), Revision(pair.modify_index))
}

fn to_set(pairs: Vec<Pair>) -> BTreeMap<Key, Entry> {
    pairs
        .into_iter()
        .filter(|pair| !pair.key.starts_with(LOCKS))
        .filter_map(|pair| Some((pair.key.parse().ok()?, to_entry(pair))))
        .collect()
}

struct Entries(WatchHub<Key, Entry>);

impl Sink<Vec<Pair>> for Entries {
    fn tell(&mut self, pairs: Vec<Pair>, _age: Age) {
        self.0.replace(to_set(pairs));
    }

    fn set_stale(&mut self, stale: bool) {
        self.0.set_stale(stale);
    }
}

/// Names the operation of an error.
fn of(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.operation(operation)
}

#[async_trait]
impl KeyValue for ConsulKeyValue {
    fn name(&self) -> &'static str {
        BACKEND
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let path = check_key(key).map_err(of("get"))?;
        let answer = self.client.pair(path, self.now()).await;
        Ok(answer.map_err(of("get"))?.value.map(to_entry))
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision> {
        self.write(key, None, value).await.map_err(of("put"))
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Revision> {
        let index = match expected {
            // No entry has it, and consul would read it as none.
            Some(Revision(0)) => return Err(changed(key.as_str()).operation("compare and swap")),
            Some(Revision(index)) => index,
            None => 0,
        };
        self.write(key, Some(index), value)
            .await
            .map_err(of("compare and swap"))
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let path = check_key(key).map_err(of("delete"))?;
        self.client.delete_pair(path).await.map_err(of("delete"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Key>> {
        check_path(prefix).map_err(of("list"))?;
        let keys = self.client.keys(prefix, self.now()).await;
        let mut keys: Vec<Key> = keys
            .map_err(of("list"))?
            .into_iter()
            .filter(|key| !key.starts_with(LOCKS))
            .filter_map(|key| key.parse().ok())
            .collect();
        keys.sort();
        Ok(keys)
    }

    async fn watch(&self, prefix: &str) -> Result<Watch<Key, Entry>> {
        check_path(prefix).map_err(of("watch"))?;
        let first = self.client.pairs(prefix, self.now()).await;
        let first = first.map_err(of("watch"))?;
        let hub = WatchHub::new();
        hub.replace(to_set(first.value));
        let (client, prefix) = (self.client.clone(), prefix.to_owned());
        let (consistency, wait) = (self.consistency, self.wait);
        let ask: Ask<Vec<Pair>> = Box::new(move |index| {
            let (client, prefix) = (client.clone(), prefix.clone());
            Box::pin(async move {
                let reading = Reading::beyond(consistency, index, wait).followed();
                client.pairs(&prefix, reading).await
            })
        });
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let reader = hub.watch_where(move |_, _| {
            // Ends with its reader.
            let _ = &guard;
            true
        });
        let leader = self.leadership.follow();
        tokio::spawn(async move {
            let following = follow(ask, first.index, leader, Entries(hub));
            cancel.run_until_cancelled(following).await;
        });
        Ok(reader)
    }

    async fn open_session(&self, ttl: Duration) -> Result<SessionId> {
        let operation = of("open a session");
        if ttl.is_zero() {
            let message = "a session of no time has ended already";
            return Err(operation(own(ErrorKind::InvalidInput, message)));
        }
        let session = NewSession {
            name: "arpanet2",
            ttl: go_duration(ttl),
            lock_delay: go_duration(self.lock_delay),
            behavior: "release",
            node_checks: (!self.sessions_follow_node).then(Vec::new),
        };
        let id = self.client.create_session(&session).await;
        Ok(SessionId(id.map_err(operation)?))
    }

    async fn renew_session(&self, session: &SessionId) -> Result<()> {
        let renewed = self.client.renew_session(&session.0).await;
        renewed.map_err(|error| {
            let error = match error.kind() {
                ErrorKind::NotFound => session_ended(session),
                _ => error,
            };
            error.operation("renew a session")
        })
    }

    async fn close_session(&self, session: &SessionId) -> Result<()> {
        let closed = self.client.destroy_session(&session.0).await;
        closed.map_err(of("close a session"))
    }

    async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        let operation = of("lock");
        let path = lock_key(key).map_err(&operation)?;
        let locking = Operation::lock(&path, &session.0);
        let outcome = self.client.transact(&locking).await.map_err(&operation)?;
        match outcome {
            Outcome::Done(pair) => Ok(to_held(key, &pair)),
            Outcome::Refused(told) if is_held(&told) => {
                // A session that ended is told before a lock that it could not have had anyway.
                let reading = self.now();
                let answer = self.client.has_session(&session.0, reading).await;
                match answer.map_err(&operation)?.value {
                    true => Ok(None),
                    false => Err(operation(session_ended(session))),
                }
            }
            Outcome::Refused(told) if is_session_fault(&told) => {
                Err(operation(session_ended(session)))
            }
            Outcome::Refused(told) => Err(operation(refused(&self.client.transport.at, &told))),
        }
    }

    async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()> {
        let operation = of("unlock");
        let path = lock_key(key).map_err(&operation)?;
        let (held, _) = self.lock_pair(key).await.map_err(&operation)?;
        if held.is_none_or(|held| held.session != *session) {
            return Ok(());
        }
        let unlocking = Operation::unlock(&path, &session.0);
        match self.client.transact(&unlocking).await.map_err(&operation)? {
            Outcome::Done(_) => Ok(()),
            // It was lost meanwhile.
            Outcome::Refused(told) if told.contains("lock isn't held") => Ok(()),
            Outcome::Refused(told) if is_session_fault(&told) => Ok(()),
            Outcome::Refused(told) => Err(operation(refused(&self.client.transport.at, &told))),
        }
    }

    async fn holder(&self, key: &Key) -> Result<Option<Held>> {
        let lock = self.lock_pair(key).await;
        Ok(lock.map_err(of("tell who holds a lock"))?.0)
    }

    async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held> {
        let operation = of("campaign");
        loop {
            if let Some(held) = self.try_lock(key, session).await.map_err(&operation)? {
                return Ok(held);
            }
            let (held, index) = self.lock_pair(key).await.map_err(&operation)?;
            if held.is_none() {
                // Just freed; or not to be had yet, after its holder's session ended.
                tokio::time::sleep(LOCK_DELAY_WAIT).await;
                continue;
            }
            tokio::select! {
                freed = self.freed(key, index) => freed.map_err(&operation)?,
                ended = self.ended(session) => {
                    return Err(operation(ended.map_err(&operation)?));
                }
            }
        }
    }
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
            modify_index: create_index + 100,
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
        assert_eq!(to_held(&key, &pair(10, 5, None)), None);
        assert_eq!(to_held(&key, &pair(10, 5, Some(""))), None);
    }

    #[test]
    fn locks_are_no_entries() {
        assert!(check_key(&"arpanet/locks/a".parse().unwrap()).is_err());
        assert!(to_set(vec![pair(1, 1, None)]).is_empty());
    }

    #[test]
    fn a_key_that_no_path_can_have_is_refused() {
        for bad in ["a//b", "/a", "a/../b", ".", "a/./b", "//"] {
            let error = check_path(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
        for good in ["", "a", "a/", "a/b", "a.b/...", "!$&'()*+,;=:@?#%"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
    }
}
