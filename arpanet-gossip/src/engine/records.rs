//! This node's records, and everybody's.

use std::time::Duration;

use arpanet_core::discovery::Record;
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use bytes::Bytes;

use super::spread::Parcel;
use super::sync::Purpose;
use super::{Engine, Event, Ticket};
use crate::config::ms;
use crate::record::{MAX_VALUE, Signature, check_key, record_message};
use crate::store::{Applied, Changes, life};
use crate::wire::{self, Delta, FILL, Message, WireRecord};

/// The record of a node that has left in order. Keys that start with `~` are the engine's own.
pub(super) const LEFT: &str = "~left";

impl Engine {
    /// Says something of this node to all others, or replaces what was said under this key. The ticket is settled when
    /// all living members have confirmed it, or had the time to. The same value again is not sent again.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad key or a value over 16 KiB;
    /// [`Exhausted`](ErrorKind::Exhausted) beyond 4,096 records; [`Unavailable`](ErrorKind::Unavailable) before
    /// [`Event::Ready`]: what this node said in its last life has to be known first.
    pub fn publish(&mut self, now: Duration, key: &str, value: Bytes) -> Result<Ticket> {
        check_key(key)?;
        if key.starts_with('~') {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the key {key:?} is reserved"),
            ));
        }
        if value.len() > MAX_VALUE {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a record of {} bytes is above the limit of {MAX_VALUE}",
                    value.len()
                ),
            ));
        }
        if self.joining_until.is_some() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("node {} is still joining", self.me),
            ));
        }
        if self.own.get(key) == Some(&value) {
            return Ok(self.settled());
        }
        if self.store.get(self.me, key).is_none() && !self.store.has_room(self.me) {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("a node has at most {} records", crate::record::MAX_RECORDS),
            ));
        }
        self.own.insert(key.to_owned(), value.clone());
        let delta = self.write(key, Some(value), now);
        Ok(self.spread(delta, now))
    }

    /// Takes back what was said under this key; what was never said is taken back already.
    pub fn retract(&mut self, now: Duration, key: &str) -> Ticket {
        self.own.remove(key);
        if self.store.get(self.me, key).is_none() || key.starts_with('~') {
            return self.settled();
        }
        let delta = self.write(key, None, now);
        self.spread(delta, now)
    }

    /// Takes all of this node's records back and says that it leaves, after [`Event::Ready`]. Once the ticket is settled,
    /// [`finish_leave`](Self::finish_leave) ends it.
    pub fn leave(&mut self, now: Duration) -> Ticket {
        let mut keys: Vec<String> = self
            .store
            .live_of(self.me)
            .map(|(key, ..)| key.to_owned())
            .collect();
        keys.retain(|key| key != LEFT);
        self.own.clear();
        let taken_back = keys.into_iter().map(|key| (key, None));
        let farewell = [(LEFT.to_owned(), Some(Bytes::new()))];
        let told = self.say(taken_back.chain(farewell), now);
        told.unwrap_or_else(|| self.settled())
    }

    /// Leaves. Nothing is sent or heard after what [`poll_transmit`](Self::poll_transmit) still holds.
    pub fn finish_leave(&mut self, now: Duration) {
        let wishes = self.swim.leave(now);
        self.grant(wishes, now);
        self.gone = true;
    }

    /// All records, this node's included.
    pub fn records(&self) -> impl Iterator<Item = (NodeAddr, &str, Record)> {
        self.store
            .live()
            .filter(|(_, key, _)| !key.starts_with('~'))
            .map(|(owner, key, value)| {
                (
                    owner,
                    key,
                    Record::new(value.clone()).suspended(!self.is_alive(owner)),
                )
            })
    }

    /// Writes, signs and stores a record of this node's own.
    fn write(&mut self, key: &str, value: Option<Bytes>, now: Duration) -> Delta {
        self.said_at = Some(now);
        let version = (self.store.newest(self.me) + 1).max(u64::from(self.generation) << 32 | 1);
        let message = record_message(
            &self.cluster,
            self.me.index(),
            key,
            version,
            value.as_deref(),
        );
        let record = WireRecord {
            key: key.to_owned(),
            version,
            value: value.clone(),
            signature: Signature::sign(&self.key, &message),
        };
        let delta = self.store.put_own(self.me, record, now);
        self.tell_changes(self.me, vec![(key.to_owned(), value)]);
        delta
    }

    /// Takes in a delta from a member; whether it was sound.
    pub(super) fn take_delta(&mut self, from: NodeAddr, delta: &Delta, now: Duration) -> bool {
        let Some(owner) = wire::node(delta.owner) else {
            return false;
        };
        let Some(identity) = self.roster().holder(owner).map(|entry| entry.identity) else {
            return false;
        };
        let cluster = self.cluster;
        let newest = self.store.newest(owner);
        let applied = self.store.apply(from, owner, delta, now, |record| {
            let message = record_message(
                &cluster,
                delta.owner,
                &record.key,
                record.version,
                record.value.as_deref(),
            );
            record.signature.verifies(&identity, &message)
        });
        match applied {
            Applied::Changes(changes) => {
                self.tell_changes(owner, changes);
                if owner == self.me && self.store.newest(owner) > newest {
                    self.outbid(now);
                }
                if self.store.has_gap(owner) {
                    self.gap_seen(owner, from, now);
                }
                true
            }
            Applied::Refused => {
                self.refusals.records += 1;
                false
            }
            Applied::OtherHolder => false,
        }
    }

    /// Others have records of this node that it does not know: it was restored, or has lost its state. It says all that
    /// it has to say anew under a higher generation, and takes back the rest after a while.
    fn outbid(&mut self, now: Duration) {
        let seen = u32::try_from(self.store.newest(self.me) >> 32).unwrap_or(u32::MAX);
        if seen >= self.generation {
            self.generation = seen.saturating_add(1);
        }
        self.inherited_until = Some(now + ms(self.config.inherit_ms));
        if self.joining_until.is_some() {
            return;
        }
        self.write_anew(now);
        self.drop_farewell(now);
    }

    /// Says everything that this node has to say under new versions.
    pub(super) fn write_anew(&mut self, now: Duration) {
        let own = self.own.clone().into_iter();
        self.say(own.map(|(key, value)| (key, Some(value))), now);
    }

    /// Whoever is here has not left.
    pub(super) fn drop_farewell(&mut self, now: Duration) {
        if self.store.get(self.me, LEFT).is_some() {
            self.say([(LEFT.to_owned(), None)], now);
        }
    }

    /// Takes back this node's records of before that it has not published anew, and says at least something in this life:
    /// whoever has an earlier one compares the whole then, also what was taken back in it and never heard of.
    pub(super) fn drop_inherited(&mut self, now: Duration) {
        self.inherited_until = None;
        let stale: Vec<String> = self
            .store
            .live_of(self.me)
            .filter(|(key, ..)| !self.own.contains_key(*key))
            .map(|(key, ..)| key.to_owned())
            .collect();
        let is_silent = life(self.store.newest(self.me)) < u64::from(self.generation);
        let something = (stale.is_empty() && is_silent).then(|| LEFT.to_owned());
        self.say(
            stale.into_iter().chain(something).map(|key| (key, None)),
            now,
        );
    }

    pub(super) fn tell_changes(&mut self, owner: NodeAddr, changes: Changes) {
        let suspended = !self.is_alive(owner);
        for (key, value) in changes {
            if key == LEFT {
                self.tell_member(owner);
            }
            if !key.starts_with('~') {
                let record = value.map(|value| Record::new(value).suspended(suspended));
                self.events.push_back(Event::Record { owner, key, record });
            }
        }
    }

    /// Writes records of this node's own, and sends them to all that live in as few datagrams as they fit into. The ticket is
    /// the last one's; `None` for nothing.
    fn say(
        &mut self,
        writes: impl IntoIterator<Item = (String, Option<Bytes>)>,
        now: Duration,
    ) -> Option<Ticket> {
        let mut series: Option<(Delta, usize)> = None;
        for (key, value) in writes {
            let delta = self.write(&key, value, now);
            let weight = delta.records.iter().map(WireRecord::weight).sum::<usize>();
            series = match series {
                Some((mut series, before)) if before + weight <= FILL => {
                    series.to = delta.to;
                    series.target = delta.target;
                    series.records.extend(delta.records);
                    Some((series, before + weight))
                }
                Some((full, _)) => {
                    self.spread(full, now);
                    Some((delta, weight))
                }
                None => Some((delta, weight)),
            };
        }
        series.map(|(series, _)| self.spread(series, now))
    }

    /// Sends a change to all that live.
    fn spread(&mut self, delta: Delta, now: Duration) -> Ticket {
        let id = self.fresh_id();
        self.deliver(id, Parcel::Message(Message::Push { id, delta }), now)
    }

    fn gap_seen(&mut self, owner: NodeAddr, from: NodeAddr, now: Duration) {
        // The missing delta may be right behind: the next tick looks again, at whoever sent what is beyond the gap.
        self.gaps
            .insert(owner, (from, now + Duration::from_millis(50)));
    }

    pub(super) fn fetch_gaps(&mut self, now: Duration) {
        let due: Vec<(NodeAddr, NodeAddr)> = self
            .gaps
            .iter()
            .filter(|(_, (_, at))| now >= *at)
            .map(|(owner, (from, _))| (*owner, *from))
            .collect();
        for (owner, from) in due {
            self.gaps.remove(&owner);
            if self.store.has_gap(owner) {
                self.start_session(Some(from), Purpose::Owner(owner), now);
            }
        }
    }
}
