//! The protocol, without sockets and clocks.
//!
//! The engine is told what arrives and what time it is, and says what to send and what happened. Time is whatever
//! monotonic time the caller has, as a duration since a moment of its choice: the wall clock plays no part.

mod admission;
mod answering;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod inbound;
#[cfg(any(test, fuzzing))]
mod insider;
#[cfg(test)]
mod insider_tests;
mod keys;
#[cfg(test)]
mod keys_tests;
mod membership;
mod records;
mod spread;
#[cfg(feature = "simulation")]
pub mod steady;
mod sync;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::{Keys, Membership, Secret};
use arpanet_core::discovery::{Member, Record};
use arpanet_core::roster::{Identity, Roster};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result, RosterEntry};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use self::keys::KeyBook;
use self::membership::{Doubt, Endpoint, Life};
use self::spread::Delivery;
use self::sync::{Job, Session};
use self::traffic::Aim;
pub use self::traffic::{Sent, Traffic};
use crate::config::{GossipConfig, ms};
use crate::fragment::{Assembly, cut};
use crate::peers::{Peers, Sender};
use crate::roster::{ProvenRoster, SignedEntry};
use crate::seal::{FormerKey, Sealer};
use crate::store::Store;
use crate::swim::{Swim, SwimId};
use crate::wire::{MAX_PACKET, Message, Packet, encode};

/// Housekeeping: suspicions, doubts and what is overdue.
const TICK: Duration = Duration::from_millis(100);

/// What a node keeps between starts, for the embedder to store. Nothing in it is secret.
///
/// A node that lost it, or was given an older one, finds out what it had said before from the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GossipState {
    /// Counts this node's starts: the upper half of its records' versions.
    pub generation: u32,
    /// The roster's entries with who vouched for them.
    pub roster: Vec<SignedEntry>,
    /// Where others were last.
    pub endpoints: BTreeMap<NodeAddr, SocketAddr>,
}

/// One datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What: at most 1,200 bytes.
    pub datagram: Vec<u8>,
}

/// What a call has started, and an [`Event::Settled`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// How something that was started has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// All living members confirmed it but these, which had not in time.
    Spread {
        /// Who has not confirmed.
        unconfirmed: BTreeSet<NodeAddr>,
    },
    /// An admission failed: nobody was admitted.
    Refused(Error),
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The catalogue has been filled from a member, or nobody was there to fill it.
    Ready {
        /// It has been filled.
        filled: bool,
    },
    /// A member is new, or something about it has changed.
    Member(Member),
    /// A member has left or was forgotten.
    MemberGone(NodeAddr),
    /// A record is new, changed, suspended or back; `None`: gone.
    Record {
        /// Whose it is.
        owner: NodeAddr,
        /// Its key.
        key: String,
        /// It.
        record: Option<Record>,
    },
    /// The roster has changed.
    Roster(RosterEntry),
    /// What a ticket stood for has ended.
    Settled {
        /// The ticket.
        ticket: Ticket,
        /// How.
        outcome: Outcome,
    },
    /// A host of another cluster sends here. Told once in a while for each.
    Foreign {
        /// Where from.
        from: SocketAddr,
        /// The other cluster's [tag](crate::cluster_tag).
        tag: [u8; 4],
    },
    /// The cluster's key, or with it the password, is another one. To be kept for the next start.
    Keys(Keys),
    /// This node was forgotten, or its address has another holder: others refuse what it says.
    Expelled(RosterEntry),
}

/// What an engine has refused so far, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusals {
    /// Not gossip at all.
    pub not_ours: u64,
    /// Of another cluster.
    pub foreign: u64,
    /// Under a key that is not known.
    pub unknown_key: u64,
    /// Under a key that was turned over a while ago.
    pub former_key: u64,
    /// Letters about keys with a wrong signature, of one who may not give any, or too many at once.
    pub letters: u64,
    /// Datagrams that do not verify, and malformed ones.
    pub forged: u64,
    /// Seen before.
    pub replayed: u64,
    /// From nodes that were forgotten.
    pub forgotten: u64,
    /// Records with a wrong signature, or over a bound.
    pub records: u64,
    /// Roster entries with a wrong signature, or of one who may not admit.
    pub roster_entries: u64,
}

/// The protocol of one node.
#[derive(Debug)]
pub struct Engine {
    config: GossipConfig,
    me: NodeAddr,
    identity: Identity,
    key: SigningKey,
    cluster: arpanet_core::roster::ClusterId,
    boot: u64,
    number: u64,
    next_id: u64,
    generation: u32,
    rng: StdRng,

    keys: KeyBook,
    sealer: Sealer,
    peers: Peers,
    assembly: Assembly,
    roster: ProvenRoster,
    swim: Swim,
    store: Store,

    lives: BTreeMap<NodeAddr, Life>,
    told: BTreeMap<NodeAddr, Arc<Member>>,
    endpoints: BTreeMap<NodeAddr, Endpoint>,
    doubts: BTreeMap<NodeAddr, Doubt>,
    suspects: BTreeSet<NodeAddr>,
    seen_at: Option<SocketAddr>,

    own: BTreeMap<String, Bytes>,
    /// Up to which version it has asked others for what it said in an earlier life, how many of them, and until when it waits.
    wanted_of_itself: (u64, u32, Duration),
    inherited_until: Option<Duration>,
    deliveries: BTreeMap<u64, Delivery>,
    /// Living members that may have missed what this node said, and when they are called next.
    behind: BTreeMap<NodeAddr, Duration>,
    gaps: BTreeMap<NodeAddr, (NodeAddr, Duration)>,
    promises: BTreeMap<NodeAddr, (RosterEntry, Duration)>,

    session: Option<Session>,
    jobs: VecDeque<Job>,
    joining_until: Option<Duration>,
    next_sync: Duration,
    /// When this node said something last.
    said_at: Option<Duration>,
    next_announce: Duration,
    next_tick: Duration,
    next_collect: Duration,
    quiet: BTreeMap<SocketAddr, Duration>,
    /// A token to return with the next datagram to there, within the same call.
    owed: Option<(SocketAddr, u64)>,
    gone: bool,

    refusals: Refusals,
    traffic: Traffic,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Engine {
    /// A node that takes part from `now` on. `key` is the secret half of its identity, `state` is what the last start left, `seed` is fresh randomness.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a configuration that does not fit together, or a key that is not
    /// the membership's identity.
    pub fn new(
        mut config: GossipConfig,
        membership: &Membership,
        key: &Secret<32>,
        state: &GossipState,
        now: Duration,
        seed: [u8; 32],
    ) -> Result<Self> {
        config.validate()?;
        config.advertise = config.advertise.or(membership.me.advertise);
        let key = SigningKey::from_bytes(key.expose());
        if key.verifying_key().as_bytes() != membership.identity.as_bytes() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the signing key is not that of identity {}",
                    membership.identity
                ),
            ));
        }
        let me = membership.me.node;
        let mut rng = StdRng::from_seed(seed);
        let boot = rng.random();
        let generation = state.generation.saturating_add(1);
        let swim = Swim::new(
            SwimId {
                node: me.index(),
                rank: u64::from(generation) << 20,
                endpoint: config.advertise,
            },
            &config,
            StdRng::from_seed(rng.random()),
        );
        let roster = ProvenRoster::new(
            membership.cluster,
            me,
            membership.roster.clone(),
            state.roster.clone(),
        );
        let mut engine = Self {
            me,
            identity: membership.identity,
            key,
            cluster: membership.cluster,
            boot,
            number: 0,
            next_id: rng.random::<u64>() >> 1,
            generation,
            keys: KeyBook::new(membership.keys()),
            sealer: Sealer::new(membership.cluster, &membership.key),
            peers: Peers::default(),
            assembly: Assembly::default(),
            roster,
            swim,
            store: Store::default(),
            lives: BTreeMap::new(),
            told: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            doubts: BTreeMap::new(),
            suspects: BTreeSet::new(),
            seen_at: None,
            own: BTreeMap::new(),
            wanted_of_itself: (0, 0, Duration::ZERO),
            inherited_until: None,
            deliveries: BTreeMap::new(),
            behind: BTreeMap::new(),
            gaps: BTreeMap::new(),
            promises: BTreeMap::new(),
            session: None,
            jobs: VecDeque::new(),
            joining_until: Some(now + ms(config.join_wait_ms)),
            next_sync: now + ms(config.sync_ms),
            said_at: None,
            next_announce: now,
            next_tick: now + TICK,
            next_collect: now,
            quiet: BTreeMap::new(),
            owed: None,
            gone: false,
            refusals: Refusals::default(),
            traffic: Traffic::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            config,
        };
        engine.start(state, now);
        Ok(engine)
    }

    fn start(&mut self, state: &GossipState, now: Duration) {
        let holders: Vec<RosterEntry> = self.roster.roster().holders().cloned().collect();
        for holder in holders {
            self.store.set_holder(holder.node, holder.generation);
            let endpoint = state
                .endpoints
                .get(&holder.node)
                .copied()
                .or(holder.endpoint);
            if let Some(at) = endpoint.filter(|_| holder.node != self.me) {
                self.endpoints.insert(holder.node, Endpoint { at, rank: 0 });
            }
            self.tell_member(holder.node);
        }
        if self.endpoints.is_empty() {
            self.finish_join(false, now);
        } else {
            self.start_session(None, sync::Purpose::Everything, now);
        }
    }

    /// Takes in a datagram.
    pub fn handle_datagram(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        self.receive(now, from, datagram);
    }

    /// Does what is due at `now`.
    pub fn handle_timer(&mut self, now: Duration) {
        if self.gone {
            return;
        }
        let wishes = self.swim.handle_timers(now);
        self.grant(wishes, now);
        self.repeat_deliveries(now);
        self.drive_session(now);
        if now >= self.next_announce {
            self.next_announce = now + ms(self.config.announce_ms);
            self.announce(now);
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        if now >= self.next_sync {
            self.next_sync = now + ms(self.config.sync_ms);
            self.sync_with_anyone(now);
        }
        if self.inherited_until.is_some_and(|until| now >= until) {
            self.drop_inherited(now);
        }
        if self.joining_until.is_some_and(|until| now >= until) {
            self.finish_join(false, now);
        }
    }

    /// When [`handle_timer`](Self::handle_timer) is due next; `None` after the node has left.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.gone {
            return None;
        }
        [
            self.swim.next_deadline(),
            self.next_delivery(),
            self.session.as_ref().map(Session::deadline),
            Some(self.next_announce),
            Some(self.next_tick),
            Some(self.next_sync),
            self.inherited_until,
            self.joining_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeAddr {
        self.me
    }

    /// What has been refused so far.
    #[must_use]
    pub const fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// The roster as it stands.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        self.roster.roster()
    }

    /// What to keep for the next start.
    #[must_use]
    pub fn state(&self) -> GossipState {
        GossipState {
            generation: self.generation,
            roster: self.roster.proofs().cloned().collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(node, endpoint)| (*node, endpoint.at))
                .collect(),
        }
    }

    const fn fresh_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Sends a message, cut up where it is long; `transfer` names its parts.
    fn send(&mut self, to: NodeAddr, message: &Message, transfer: u64) {
        let aim = Aim::of(message);
        let packet = encode(&PacketRef::Whole(message));
        if packet.len() <= MAX_PACKET {
            self.send_encoded(to, &packet, aim);
            return;
        }
        for part in cut(&packet, transfer) {
            self.send_encoded(to, &encode(&part), aim);
        }
    }

    fn send_new(&mut self, to: NodeAddr, message: &Message) {
        let transfer = self.fresh_id();
        self.send(to, message, transfer);
    }

    fn send_packet(&mut self, to: NodeAddr, packet: &Packet, aim: Aim) {
        self.send_encoded(to, &encode(packet), aim);
    }

    fn send_encoded(&mut self, to: NodeAddr, packet: &[u8], aim: Aim) {
        if let Some(at) = self.endpoint_of(to) {
            self.send_at(at, packet, aim);
        }
    }

    fn send_at(&mut self, to: SocketAddr, packet: &[u8], aim: Aim) {
        let mut plain = self.numbered();
        if let Some((_, token)) = self.owed.take_if(|(at, _)| *at == to) {
            let response = encode(&Packet::Response { token });
            if packet.len() + response.len() <= MAX_PACKET {
                plain.extend_from_slice(&response);
            } else {
                self.send_at(to, &response, Aim::Other);
            }
        }
        plain.extend_from_slice(packet);
        let datagram = self.sealer.seal(&plain, &mut self.rng);
        self.count(aim, datagram.len());
        self.transmits.push_back(Transmit { to, datagram });
    }

    /// To one who has this key and none after it.
    fn send_under(&mut self, key: FormerKey, to: SocketAddr, packet: &[u8]) {
        let mut plain = self.numbered();
        plain.extend_from_slice(packet);
        if let Some(datagram) = self.sealer.seal_under(key, &plain, &mut self.rng) {
            self.count(Aim::Other, datagram.len());
            self.transmits.push_back(Transmit { to, datagram });
        }
    }

    /// What stands before the packet: who sends it.
    fn numbered(&mut self) -> Vec<u8> {
        self.number += 1;
        let mine = Sender::new(self.me, &self.identity);
        encode(&(mine.node.index(), mine.tag, self.boot, self.number))
    }
}

/// A [`Packet`] that borrows its message; the variant's place is that of [`Packet::Whole`].
#[derive(Serialize)]
#[allow(dead_code, reason = "the variants before it give it its place")]
enum PacketRef<'a> {
    Challenge,
    Response,
    Swim,
    Whole(&'a Message),
}
