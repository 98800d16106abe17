//! `KeyValue` on a consul agent.

use std::collections::BTreeMap;
use std::time::Duration;

use arpanet_core::kv::{Entry, Held, Key, KeyValue, Revision, SessionId};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::config::{Consistency, ConsulConfig, ms};
use crate::error::{BACKEND, own};
use crate::feed::{Age, Ask, Sink, follow};
use crate::leadership::Leadership;
use crate::locks::{LOCKS, Locks};
use crate::reading::Reading;
use crate::txn::{Operation, Outcome, is_outdated, refused};
use crate::wire::Pair;

/// The longest value: consul's own limit.
const VALUE_LIMIT: usize = 512 * 1024;

/// The longest value that fits into a transaction of consul's usual 512 KiB, as base64 and with what is around it.
const TRANSACTION_LIMIT: usize = 380 * 1024;

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
    locks: Locks,
}

impl ConsulKeyValue {
    /// By this agent. Nothing is asked yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names what can't be used of the config or of the files that it names.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::over(Client::new(&config)?, &config))
    }

    pub(crate) fn over(client: Client, config: &ConsulConfig) -> Self {
        Self {
            leadership: Leadership::new(client.clone()),
            locks: Locks::new(client.clone(), config),
            client,
            consistency: config.kv_consistency,
            wait: ms(config.wait_ms),
        }
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
            Some(pair) => (pair.modify_index - 1).max(1),
            None => read.index.max(1),
        }))
    }
}

fn changed(key: &str) -> Error {
    own(ErrorKind::Conflict, format!("{key} changed meanwhile"))
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
pub(crate) fn check_path(text: &str) -> Result<()> {
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
            let following = follow(ask, (first.index, wait), leader, Entries(hub));
            cancel.run_until_cancelled(following).await;
        });
        Ok(reader)
    }

    async fn open_session(&self, ttl: Duration) -> Result<SessionId> {
        self.locks
            .open_session(ttl)
            .await
            .map_err(of("open a session"))
    }

    async fn renew_session(&self, session: &SessionId) -> Result<()> {
        self.locks
            .renew_session(session)
            .await
            .map_err(of("renew a session"))
    }

    async fn close_session(&self, session: &SessionId) -> Result<()> {
        self.locks
            .close_session(session)
            .await
            .map_err(of("close a session"))
    }

    async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        self.locks.try_lock(key, session).await.map_err(of("lock"))
    }

    async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()> {
        self.locks.unlock(key, session).await.map_err(of("unlock"))
    }

    async fn holder(&self, key: &Key) -> Result<Option<Held>> {
        self.locks
            .holder(key)
            .await
            .map_err(of("tell who holds a lock"))
    }

    async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held> {
        self.locks
            .campaign(key, session)
            .await
            .map_err(of("campaign"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_no_entries() {
        assert!(check_key(&"arpanet/locks/a".parse().unwrap()).is_err());
        let lock = serde_json::json!({
            "Key": "arpanet/locks/a", "Value": null, "CreateIndex": 1, "ModifyIndex": 1,
        });
        assert!(to_set(vec![serde_json::from_value(lock).unwrap()]).is_empty());
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
