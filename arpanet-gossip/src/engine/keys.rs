//! The cluster's key, and how it turns over.
//!
//! A member that admits others makes the next key and gives it to all that live, each in a letter of its own. Whoever has
//! it seals with it at once, and believes the key before for [`OVERLAP`] more; not at all where somebody has left, who
//! could speak as any member under it. Who was not there is recognised by the key under which it speaks, or by what it
//! can't open, and is given the key when it says who it is.
//!
//! Of two keys the one with the higher rank stands. A key's rank begins with the departures that its maker knew, and a
//! member gives a key only once it knows as many itself: so the key that stands in the end is in nobody's hands who has
//! left. Where the roster knows of a departure that the key does not cover, the first of those that admit turns it over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::admission::{ClusterKey, Credential, Keys, Secret};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use rand::RngExt;

use super::inbound::is_due;
use super::spread::Parcel;
use super::traffic::Aim;
use super::{Engine, Event, Ticket, Transmit};
use crate::handover::{Address, Ask, Content, Give, Letter};
use crate::wire;

/// How long what is sealed under the key before is believed: what was on its way, and who is a moment late.
pub(super) const OVERLAP: Duration = Duration::from_secs(5);
/// Between two letters to the same place.
const QUIET_ASK: Duration = Duration::from_millis(250);
const QUIET_GIVE: Duration = Duration::from_millis(200);
/// Signatures of letters that are looked at between two ticks: a flood of them costs no more.
const LETTERS: u32 = 64;
/// So long a departure that the key does not cover waits for others, and so much longer for each that goes first.
const STALE: Duration = Duration::from_secs(1);
const STALE_EACH: Duration = Duration::from_secs(2);

/// What an engine knows of keys.
#[derive(Debug)]
pub(super) struct KeyBook {
    present: ClusterKey,
    /// What passwords are checked by, and the id of the key that it came with.
    credential: Option<(u32, Credential)>,
    /// The highest id so far.
    newest: u32,
    stale_since: Option<Duration>,
    letters: u32,
    asked: BTreeMap<SocketAddr, Duration>,
    given: BTreeMap<SocketAddr, Duration>,
}

impl KeyBook {
    pub(super) fn new(keys: Keys) -> Self {
        let Keys {
            key, credential, ..
        } = keys;
        Self {
            newest: key.id.max(key.password),
            credential: credential.map(|credential| (key.password, credential)),
            present: key,
            stale_since: None,
            letters: LETTERS,
            asked: BTreeMap::new(),
            given: BTreeMap::new(),
        }
    }

    /// Whether a password came here that the key does not know of.
    fn has_newer_password(&self) -> bool {
        self.credential
            .as_ref()
            .is_some_and(|(version, _)| *version > self.present.password)
    }

    /// The id of the next key: its turn, and who makes it, so that no two make the same.
    fn next_id(&self, maker: NodeAddr) -> Option<u32> {
        let turn = (self.newest >> 16) + 1;
        (turn <= u32::from(u16::MAX)).then(|| turn << 16 | u32::from(maker.index()))
    }

    fn keys(&self) -> Keys {
        let credential = self.credential.clone();
        Keys::new(self.present.clone(), credential.map(|(_, bytes)| bytes))
    }
}

impl Engine {
    /// The keys as they stand.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.keys()
    }

    /// Makes the cluster's next key, with a credential also its next password, and gives it to all that live.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) on a node that admits nobody;
    /// [`Unsupported`](ErrorKind::Unsupported) where the key stays; [`Unavailable`](ErrorKind::Unavailable) where it was
    /// made for more departures than this node has heard of: one that it made now would not stand.
    pub fn turn_over(&mut self, now: Duration, credential: Option<Credential>) -> Result<Ticket> {
        self.check_admits("turn the cluster's key over")?;
        if self.config.keep_key {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this cluster's key stays: other parts of it depend on the one that it was founded with",
            ));
        }
        let covers = self.roster.departures();
        if self.keys.present.covers > covers {
            let message = "somebody has left of whom this node has not heard yet: a key that it made now would not stand";
            return Err(
                Error::new(ErrorKind::Unavailable, message).with_hint("try it again in a moment")
            );
        }
        let id = self.keys.next_id(self.me).ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                "the cluster's key was turned over 65,535 times",
            )
            .with_hint("found the cluster anew")
        })?;
        let password = match (&credential, &self.keys.credential) {
            (Some(_), _) => id,
            (None, Some((version, _))) => *version,
            (None, None) => self.keys.present.password,
        };
        let secret = Secret::from_bytes(self.rng.random());
        let key = ClusterKey::new(id, secret)
            .covering(covers)
            .with_password(password);
        self.take_keys(now, Keys::new(key, credential));
        let id = self.fresh_id();
        Ok(self.deliver(id, Parcel::Key, now))
    }

    /// Takes keys that are better than those here: from this node's own store, say. Whatever is not better changes
    /// nothing.
    pub fn take_keys(&mut self, now: Duration, keys: Keys) {
        let Keys {
            key, credential, ..
        } = keys;
        if self.config.keep_key || key.rank() <= self.keys.present.rank() {
            return;
        }
        if let Some(credential) = credential
            && self
                .keys
                .credential
                .as_ref()
                .is_none_or(|(version, _)| *version < key.password)
        {
            self.keys.credential = Some((key.password, credential));
        }
        self.keys.newest = self.keys.newest.max(key.id).max(key.password);
        tracing::info!(
            id = key.id,
            covers = key.covers,
            "the cluster's key has turned over"
        );
        let overlap = if key.covers > self.keys.present.covers {
            Duration::ZERO
        } else {
            OVERLAP
        };
        self.sealer.turn_over(&key, now + overlap);
        self.keys.present = key;
        self.sync_soon(now);
        // Keeping one without the other would lose which password is the newer one.
        if !self.keys.has_newer_password() {
            self.events.push_back(Event::Keys(self.keys.keys()));
        }
    }

    /// Turns the key over where somebody has left who may have it, or a password that is not with it came here.
    pub(super) fn turn_if_stale(&mut self, now: Duration) {
        self.keys.letters = LETTERS;
        let (covers, known) = (self.keys.present.covers, self.roster.departures());
        let is_stale = covers < known || covers == known && self.keys.has_newer_password();
        if !is_stale || self.config.keep_key || self.joining_until.is_some() || !self.admits() {
            self.keys.stale_since = None;
            return;
        }
        let since = *self.keys.stale_since.get_or_insert(now);
        let first: usize = self
            .alive_others()
            .filter(|node| *node < self.me)
            .filter(|node| {
                let entry = self.roster().holder(*node);
                entry.is_some_and(|entry| entry.role.admits())
            })
            .count();
        let first = u32::try_from(first).unwrap_or(u32::MAX).min(15);
        if now >= since + STALE + STALE_EACH * first {
            self.keys.stale_since = None;
            if let Err(error) = self.turn_over(now, None) {
                tracing::error!(%error, "somebody has left, and the cluster's key stays");
            }
        }
    }

    fn admits(&self) -> bool {
        let me = self.roster().holder(self.me);
        me.is_some_and(|me| me.role.admits() && me.identity == self.identity)
    }

    /// Whether this node may give its key: it knows of everybody who must not have it.
    fn may_give(&self) -> bool {
        self.admits()
            && !self.config.keep_key
            && self.roster.departures() >= self.keys.present.covers
    }

    /// Says which key this node has, to somebody whose key it does not have.
    pub(super) fn ask_for_key(&mut self, at: SocketAddr, now: Duration) {
        if self.config.keep_key || !is_due(&mut self.keys.asked, at, QUIET_ASK, now) {
            return;
        }
        let rank = self.keys.present.rank();
        let ask = Ask::sign(&self.cluster, self.me.index(), rank, &self.key);
        self.send_letter(at, &Letter::Ask(ask));
    }

    /// Gives the key to a member that speaks from here, where this node may; not more than once in a moment.
    pub(super) fn give_key_at(&mut self, node: NodeAddr, at: SocketAddr, now: Duration) {
        if self.may_give() && is_due(&mut self.keys.given, at, QUIET_GIVE, now) {
            self.give_key(node, at, 0);
        }
    }

    /// Gives the key to a member as part of a delivery.
    pub(super) fn deliver_key(&mut self, node: NodeAddr, delivery: u64) {
        if self.may_give()
            && let Some(at) = self.endpoint_of(node)
        {
            self.give_key(node, at, delivery);
        }
    }

    fn give_key(&mut self, node: NodeAddr, at: SocketAddr, ack: u64) {
        let Some(entry) = self.roster().holder(node).cloned() else {
            return;
        };
        let Keys {
            key, credential, ..
        } = self.keys();
        let content = Content {
            key,
            // A node that admits nobody has no use for it, and who has it can join.
            credential: credential.filter(|_| entry.role.admits()),
            ack,
        };
        let address = Address {
            cluster: &self.cluster,
            by: self.me.index(),
            to: node.index(),
            identity: &entry.identity,
        };
        if let Some(give) = Give::sign(&address, &content, &self.key, &mut self.rng) {
            self.send_letter(at, &Letter::Give(give));
        }
    }

    fn send_letter(&mut self, to: SocketAddr, letter: &Letter) {
        let datagram = letter.write(self.sealer.tag());
        self.count(Aim::Other, datagram.len());
        self.transmits.push_back(Transmit { to, datagram });
    }

    /// A letter came.
    pub(super) fn hear_letter(&mut self, datagram: &[u8], from: SocketAddr, now: Duration) {
        if self.config.keep_key {
            return self.refusals.not_ours += 1;
        }
        if self.keys.letters == 0 {
            return self.refusals.letters += 1;
        }
        self.keys.letters -= 1;
        let stands = match Letter::read(datagram) {
            Some(Letter::Ask(ask)) => self.hear_ask(&ask, from, now),
            Some(Letter::Give(give)) => self.hear_give(&give, now),
            None => false,
        };
        if !stands {
            self.refusals.letters += 1;
        }
    }

    /// Whether a member has asked.
    fn hear_ask(&mut self, ask: &Ask, from: SocketAddr, now: Duration) -> bool {
        let asker = wire::node(ask.node).and_then(|node| self.roster().holder(node));
        let Some(asker) = asker.filter(|asker| ask.is_by(&self.cluster, &asker.identity)) else {
            return false;
        };
        let node = asker.node;
        let mine = self.keys.present.rank();
        if ask.rank < mine {
            self.give_key_at(node, from, now);
        } else if ask.rank > mine {
            self.ask_for_key(from, now);
        }
        true
    }

    /// Whether one who may has given a key.
    fn hear_give(&mut self, give: &Give, now: Duration) -> bool {
        if give.to != self.me.index() {
            return false;
        }
        let by = wire::node(give.by).and_then(|node| self.roster().holder(node));
        let by = by.filter(|by| by.role.admits() && give.is_by(&self.cluster, &by.identity));
        let Some(by) = by.map(|by| by.node) else {
            return false;
        };
        let Some(content) = give.open(&self.cluster, &self.key) else {
            return false;
        };
        let credential = content.credential.filter(|_| self.admits());
        self.take_keys(now, Keys::new(content.key, credential));
        if content.ack != 0 {
            let message = wire::Message::Ack {
                id: content.ack,
                objection: None,
            };
            self.send_new(by, &message);
        }
        true
    }
}
