//! The cluster's keys in the simulated world: who has which, by the rules of the real one, without its cryptography.

use tokio::time::Instant;

use super::catalogue::DiscoveryProcess;
use super::network::HostIndex;
use super::state::{Event, State};
use crate::admission::{ClusterKey, Credential, Keys, Secret};
use crate::roster::Identity;
use crate::{Error, ErrorKind, NodeAddr, Result};

/// What came of keys that another node gave.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    Taken,
    /// Taken, but the password here is a later one.
    NeedsPassword(Credential),
}

impl DiscoveryProcess {
    /// Takes better keys.
    fn take_keys(&mut self, keys: &Keys) -> Given {
        let admits = self.membership.me.role.admits();
        let held = self.keys.borrow().clone();
        if keys.key.rank() <= held.key.rank() {
            return Given::Nothing;
        }
        let later = held.key.password > keys.key.password;
        let credential = if keys.key.password > held.key.password {
            keys.credential.clone().filter(|_| admits)
        } else {
            held.credential
        };
        self.keys
            .send_replace(Keys::new(keys.key.clone(), credential.clone()));
        match credential {
            Some(credential) if later => Given::NeedsPassword(credential),
            _ => Given::Taken,
        }
    }

    /// What this one gives to a member: nothing to who has left, and nothing while it knows of fewer departures than the
    /// key's maker.
    fn keys_for(&self, identity: Identity, node: NodeAddr) -> Option<Keys> {
        let mut keys = self.keys.borrow().clone();
        let me = &self.membership.me;
        let entry = self.roster.holder(node)?;
        let may = me.role.admits()
            && self.check().is_ok()
            && self.roster.departures() >= keys.key.covers
            && entry.identity == identity;
        keys.credential = keys.credential.filter(|_| entry.role.admits());
        may.then_some(keys)
    }

    fn next_keys(&self, secret: Secret<32>, credential: Option<Credential>) -> Result<Keys> {
        let held = self.keys.borrow();
        let turn = (held.key.id.max(held.key.password) >> 16) + 1;
        if turn > u32::from(u16::MAX) {
            let message = "the cluster's key was turned over 65,535 times";
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let id = turn << 16 | u32::from(self.membership.me.node.index());
        let (password, credential) = match credential {
            Some(credential) => (id, Some(credential)),
            None => (held.key.password, held.credential.clone()),
        };
        let key = ClusterKey::new(id, secret)
            .covering(self.roster.departures())
            .with_password(password);
        Ok(Keys::new(key, credential))
    }
}

impl State {
    /// Makes the cluster's next key on this host and gives it to all in reach; when the last of them has it.
    pub(super) fn turn_over(
        &mut self,
        host: HostIndex,
        credential: Option<Credential>,
        now: Instant,
    ) -> Result<Instant> {
        let secret = Secret::from_bytes(self.random.bytes());
        let process = super::discovery::process(self, host)?;
        process.check()?;
        let me = &process.membership.me;
        if !me.role.admits() {
            let message = format!("{} is a client and can't turn the key over", me.node);
            return Err(Error::new(ErrorKind::PermissionDenied, message)
                .with_hint("do it on a boot or server node"));
        }
        let keys = process.next_keys(secret, credential)?;
        process.keys.send_replace(keys);
        self.activity += 1;
        Ok(self.broadcast_keys(host, now))
    }

    fn broadcast_keys(&mut self, host: HostIndex, now: Instant) -> Instant {
        let audience = self.audience(host);
        let mut confirmed = now;
        for (after, to) in self.by_travel(host, &audience) {
            confirmed = confirmed.max(now + after * 2);
            self.schedule(now + after, Event::Keys { from: host, to });
        }
        confirmed
    }

    /// A node gives its keys to these.
    pub(super) fn deliver_keys(&mut self, from: HostIndex, to: &[HostIndex], now: Instant) {
        for to in to {
            if self.connected(from, *to) && self.same_cluster(from, *to) {
                self.give_keys(from, *to, now);
            }
        }
    }

    pub(super) fn give_keys(&mut self, from: HostIndex, to: HostIndex, now: Instant) {
        let Some(reader) = self.discovery(to) else {
            return;
        };
        let (identity, node) = (reader.membership.identity, reader.membership.me.node);
        let keys = self
            .discovery(from)
            .and_then(|giver| giver.keys_for(identity, node));
        let (Some(keys), Some(reader)) = (keys, self.hosts[to].discovery.as_mut()) else {
            return;
        };
        match reader.take_keys(&keys) {
            Given::Nothing => {}
            Given::Taken => {
                self.activity += 1;
                self.turn_if_stale(to, now);
            }
            Given::NeedsPassword(credential) => {
                // Only one that admits others has any.
                let _ = self.turn_over(to, Some(credential), now);
            }
        }
    }

    /// Turns the key over where somebody has left whom it does not cover, on the first of those that admit others.
    pub(super) fn turn_if_stale(&mut self, host: HostIndex, now: Instant) {
        let Some(process) = self.discovery(host) else {
            return;
        };
        let me = process.membership.me.node;
        let admits = |node| {
            let entry = process.roster.holder(node);
            entry.is_some_and(|entry| entry.role.admits())
        };
        let is_stale = process.keys.borrow().key.covers < process.roster.departures();
        let is_first = process
            .living(now)
            .all(|(_, node)| node > me || !admits(node));
        if is_stale && is_first && admits(me) {
            // It lost its place where this fails, and then others do it.
            let _ = self.turn_over(host, None, now);
        }
    }
}
