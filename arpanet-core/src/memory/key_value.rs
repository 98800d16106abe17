//! The key-value layer in the simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::network::HostIndex;
use super::state::{Seat, State};
use crate::kv::{Entry, Held, Key, KeyValue, Revision, SessionId};
use crate::watch::{Watch, WatchHub};
use crate::{Error, ErrorKind, Result};

const BACKEND: &str = "memory";

/// The longest value.
const VALUE_LIMIT: usize = 512 * 1024;

/// What the world's servers agree on.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    entries: BTreeMap<Key, Entry>,
    /// Of the latest change of all.
    revision: u64,
    sessions: BTreeMap<SessionId, Session>,
    opened: u64,
    locks: BTreeMap<Key, Held>,
    /// Of the latest lock of all: grows with every holder of each.
    fencing: u64,
    /// What each host's watchers have been told.
    told: BTreeMap<HostIndex, WatchHub<Key, Entry>>,
}

#[derive(Debug)]
struct Session {
    ttl: Duration,
    ends: Instant,
}

impl Agreed {
    fn store(&mut self, key: &Key, value: Bytes) -> Revision {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.entries
            .insert(key.clone(), Entry::new(value, revision));
        revision
    }

    /// Is another after every change that somebody may wait for.
    fn extent(&self) -> [u64; 5] {
        let count = |length: usize| length as u64;
        [
            self.revision,
            self.fencing,
            count(self.entries.len()),
            count(self.locks.len()),
            count(self.sessions.len()),
        ]
    }

    /// Ends the sessions that nobody renewed.
    fn expire(&mut self, now: Instant) {
        self.sessions.retain(|_, session| session.ends > now);
        let sessions = &self.sessions;
        self.locks
            .retain(|_, held| sessions.contains_key(&held.session));
    }

    fn lock(&mut self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        if !self.sessions.contains_key(session) {
            return Err(ended(session));
        }
        if let Some(held) = self.locks.get(key) {
            return Ok((held.session == *session).then(|| held.clone()));
        }
        self.fencing += 1;
        let held = Held::new(key.clone(), session.clone(), self.fencing);
        self.locks.insert(key.clone(), held.clone());
        Ok(Some(held))
    }

    /// When a lock that is held may be free, unless its holder renews its session.
    fn free_at(&self, key: &Key) -> Option<Instant> {
        let held = self.locks.get(key)?;
        Some(self.sessions.get(&held.session)?.ends)
    }
}

fn ended(session: &SessionId) -> Error {
    let message = format!("the session {} has ended", session.0);
    Error::new(ErrorKind::NotFound, message)
}

impl State {
    /// Whether a host reaches more than half of all hosts, itself included.
    fn has_majority(&self, host: HostIndex) -> bool {
        let powered = |host: &HostIndex| self.hosts[*host].powered;
        let mut rest: Vec<HostIndex> = (0..self.hosts.len()).filter(powered).collect();
        let mut reached = vec![host];
        let mut position = 0;
        while let Some(from) = reached.get(position).copied() {
            position += 1;
            rest.retain(|other| {
                let near = self.network.linked(from, *other);
                if near && *other != host {
                    reached.push(*other);
                }
                !near
            });
        }
        reached.len() * 2 > self.hosts.len()
    }

    /// Tells all watchers who are with the majority what it agreed on, and the others that they are not.
    pub(super) fn tell_agreed(&mut self) {
        let hosts: Vec<HostIndex> = self.agreed.told.keys().copied().collect();
        for host in hosts {
            let majority = self.has_majority(host);
            if let Some(hub) = self.agreed.told.get(&host) {
                if majority {
                    hub.replace(self.agreed.entries.clone());
                }
                hub.set_stale(!majority);
            }
        }
    }

    /// The agent of a host is gone, and what it watched with.
    pub(super) fn forget_watchers(&mut self, host: HostIndex) {
        if let Some(hub) = self.agreed.told.remove(&host) {
            hub.close();
        }
    }
}

/// [`KeyValue`] of one host of a [`World`](super::World): what more than half of all hosts agree on. A host that does not
/// reach so many, itself included, has no answer.
#[derive(Debug, Clone)]
pub struct MemoryKeyValue {
    seat: Seat,
}

impl MemoryKeyValue {
    pub(super) const fn new(seat: Seat) -> Self {
        Self { seat }
    }

    /// Acts on what is agreed on, if this host has a part in it.
    async fn agree<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Agreed) -> Result<R> + Send,
    ) -> Result<R> {
        // The others are asked; until they are, nothing has happened.
        tokio::task::yield_now().await;
        self.seat
            .enter(|state, host| {
                if !state.has_majority(host) {
                    let message = format!("{} reaches no majority", state.hosts[host].label);
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                let before = state.agreed.extent();
                state.agreed.expire(Instant::now());
                let result = act(&mut state.agreed);
                if before != state.agreed.extent() {
                    // Whoever waits for a lock looks again.
                    state.activity += 1;
                    state.tell_agreed();
                }
                result
            })
            .map_err(|error| error.operation(operation).backend(BACKEND))
    }
}

fn check(value: &Bytes) -> Result<()> {
    if value.len() <= VALUE_LIMIT {
        return Ok(());
    }
    let message = format!("a value of {} bytes is over 512 KiB", value.len());
    Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND))
}

#[async_trait]
impl KeyValue for MemoryKeyValue {
    fn name(&self) -> &'static str {
        BACKEND
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.agree("get", |agreed| Ok(agreed.entries.get(key).cloned()))
            .await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision> {
        check(&value)?;
        self.agree("put", |agreed| Ok(agreed.store(key, value)))
            .await
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Revision> {
        check(&value)?;
        self.agree("compare and swap", |agreed| {
            let found = agreed.entries.get(key).map(|entry| entry.revision);
            if found != expected {
                let message = format!("{key} changed meanwhile");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            Ok(agreed.store(key, value))
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.agree("delete", |agreed| {
            agreed.entries.remove(key);
            Ok(())
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Key>> {
        self.agree("list", |agreed| {
            let keys = agreed.entries.keys();
            Ok(keys
                .filter(|key| key.as_str().starts_with(prefix))
                .cloned()
                .collect())
        })
        .await
    }

    async fn watch(&self, prefix: &str) -> Result<Watch<Key, Entry>> {
        self.agree("watch", |_| Ok(())).await?;
        let prefix = prefix.to_owned();
        self.seat.enter(|state, host| {
            state.agreed.told.entry(host).or_default();
            state.tell_agreed();
            let hub = state.agreed.told.entry(host).or_default();
            Ok(hub.watch_where(move |key: &Key, _| key.as_str().starts_with(&prefix)))
        })
    }

    async fn open_session(&self, ttl: Duration) -> Result<SessionId> {
        if ttl.is_zero() {
            let message = "a session of no time has ended already";
            return Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND));
        }
        self.agree("open a session", |agreed| {
            agreed.opened += 1;
            let session = SessionId(format!("session-{}", agreed.opened));
            let ends = Instant::now() + ttl;
            agreed
                .sessions
                .insert(session.clone(), Session { ttl, ends });
            Ok(session)
        })
        .await
    }

    async fn renew_session(&self, session: &SessionId) -> Result<()> {
        self.agree("renew a session", |agreed| {
            let found = agreed.sessions.get_mut(session);
            let found = found.ok_or_else(|| ended(session))?;
            found.ends = Instant::now() + found.ttl;
            Ok(())
        })
        .await
    }

    async fn close_session(&self, session: &SessionId) -> Result<()> {
        self.agree("close a session", |agreed| {
            agreed.sessions.remove(session);
            agreed.expire(Instant::now());
            Ok(())
        })
        .await
    }

    async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        self.agree("lock", |agreed| agreed.lock(key, session)).await
    }

    async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()> {
        self.agree("unlock", |agreed| {
            if agreed
                .locks
                .get(key)
                .is_some_and(|held| held.session == *session)
            {
                agreed.locks.remove(key);
            }
            Ok(())
        })
        .await
    }

    async fn holder(&self, key: &Key) -> Result<Option<Held>> {
        self.agree("tell who holds a lock", |agreed| {
            Ok(agreed.locks.get(key).cloned())
        })
        .await
    }

    async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held> {
        loop {
            let changed = self.seat.shared.changed.notified();
            let (held, ends) = self
                .agree("campaign", |agreed| {
                    let held = agreed.lock(key, session)?;
                    let own = agreed.sessions.get(session).map(|session| session.ends);
                    Ok((held, [agreed.free_at(key), own].into_iter().flatten().min()))
                })
                .await?;
            if let Some(held) = held {
                return Ok(held);
            }
            let ends = ends.unwrap_or_else(Instant::now);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(ends) => {}
            }
        }
    }
}
