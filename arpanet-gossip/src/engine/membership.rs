//! Who is there: what foca says, what this node sees itself, and where everybody is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::NodeAddr;
use arpanet_core::discovery::{Member, MemberState, Record};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::records::LEFT;
use super::sync::Purpose;
use super::traffic::Aim;
use super::{Engine, Event};
use crate::config::ms;
use crate::swim::{Said, Swim, SwimId, Wish};
use crate::wire::{self, Packet};

/// Known nodes that are not alive and are called at once.
const CALLED_AT_ONCE: usize = 3;
/// What this node said so lately is told to who comes up, in case it has missed it; to no more than these at once.
const RECENT: Duration = Duration::from_secs(10);
pub(super) const CALLED_BACK: usize = 64;
/// How often what is remembered of removals is looked through.
const COLLECT: Duration = Duration::from_secs(10);
/// So long after it should have ended, a suspicion is stuck.
const STUCK: Duration = Duration::from_millis(500);
/// So often its subject is told before it counts as down.
const TOLD: u32 = 3;
/// How often a member in doubt is asked by this node itself, and one that is out of its reach.
const ECHO: Duration = Duration::from_millis(100);
const ECHO_UNREACHED: Duration = Duration::from_millis(500);

/// What foca says of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    state: MemberState,
    rank: u64,
    since: Duration,
    /// How often it was told that it is suspected.
    told: u32,
    /// It went down before it had confirmed all that this node said.
    missed: bool,
}

impl Life {
    #[cfg(feature = "simulation")]
    pub(super) const fn alive(rank: u64, since: Duration) -> Self {
        Self {
            state: MemberState::Alive,
            rank,
            since,
            told: 0,
            missed: false,
        }
    }
}

/// Where a node is, and under which rank it was seen there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) at: SocketAddr,
    pub(super) rank: u64,
}

/// A member that has not answered this node itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    since: Duration,
    next_echo: Duration,
    unreached: bool,
}

impl Engine {
    /// All members but those that have left, this node included.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.told
            .values()
            .map(|member| Member::clone(member))
            .collect()
    }

    /// Whether this node is alive as far as is known.
    pub(super) fn is_alive(&self, node: NodeAddr) -> bool {
        node == self.me
            || self
                .lives
                .get(&node)
                .is_some_and(|life| life.state != MemberState::Down)
    }

    /// All others that are alive and hold their address.
    pub(super) fn alive_others(&self) -> impl Iterator<Item = NodeAddr> {
        self.lives
            .iter()
            .filter(|(node, life)| {
                life.state != MemberState::Down
                    && **node != self.me
                    && self.roster().holder(**node).is_some()
            })
            .map(|(node, _)| *node)
    }

    pub(super) fn endpoint_of(&self, node: NodeAddr) -> Option<SocketAddr> {
        self.endpoints.get(&node).map(|endpoint| endpoint.at)
    }

    pub(super) fn rank_of(&self, node: NodeAddr) -> u64 {
        self.lives.get(&node).map_or(0, |life| life.rank)
    }

    /// A believed datagram came from a member: it is within reach, and there.
    pub(super) fn heard_from(&mut self, node: NodeAddr, at: SocketAddr) {
        let rank = self.rank_of(node);
        let moved = self.endpoints.insert(node, Endpoint { at, rank });
        let doubt = self.doubts.remove(&node);
        if moved.is_none_or(|before| before.at != at) || doubt.is_some_and(|doubt| doubt.unreached)
        {
            self.tell_member(node);
        }
    }

    /// It hears this node. What either has missed of the other it gets now; before, that could only get lost again.
    pub(super) fn answered(&mut self, node: NodeAddr, now: Duration) {
        if self.behind.remove(&node).is_some() && self.is_alive(node) {
            self.start_session(Some(node), Purpose::Owner(self.me), now);
            self.start_session(Some(node), Purpose::Owner(node), now);
        }
    }

    /// Somebody says where it sees this node.
    pub(super) fn seen_from(&mut self, at: SocketAddr) {
        if self.config.advertise.is_some() || self.seen_at == Some(at) {
            return;
        }
        self.seen_at = Some(at);
        self.tell_member(self.me);
        // Nobody knows this node's identity yet, so a better one costs nothing.
        if self.swim.alive() == 0 && self.swim.me().endpoint != Some(at) {
            let rank = self.swim.me().rank.saturating_add(1);
            self.renew_swim(rank);
        }
    }

    /// Starts foca anew under this rank, knowing nobody.
    pub(super) fn renew_swim(&mut self, rank: u64) {
        let endpoint = self
            .config
            .advertise
            .or(self.seen_at)
            .or(self.swim.me().endpoint);
        let id = SwimId {
            node: self.me.index(),
            rank: rank.max(u64::from(self.generation) << 20),
            endpoint,
        };
        self.swim = Swim::new(
            id,
            &self.config,
            StdRng::from_seed(rand::RngExt::random(&mut self.rng)),
        );
    }

    /// Does what foca wants.
    pub(super) fn grant(&mut self, wishes: Vec<Wish>, now: Duration) {
        for wish in wishes {
            match wish {
                Wish::Send {
                    to,
                    data,
                    said,
                    carried,
                } => {
                    let Some(node) = wire::node(to.node) else {
                        continue;
                    };
                    if said == Said::Ping {
                        self.doubts.entry(node).or_insert(Doubt {
                            since: now,
                            next_echo: now + ms(self.config.probe_rtt_ms),
                            unreached: false,
                        });
                    }
                    self.note_endpoint(&to);
                    let aim = Aim::of_swim(said, carried);
                    self.send_packet(node, &Packet::Swim(data), aim);
                }
                Wish::Up(id) => self.came_up(&id, now),
                Wish::Down(id) => self.went_down(&id, now),
                // Everybody is down here, so foca here would have everybody else take new identities when the cut is
                // healed. One new identity, of this node, does it as well.
                Wish::Alone => {
                    let rank = self.swim.me().rank.saturating_add(1);
                    self.renew_swim(rank);
                }
            }
        }
    }

    fn note_endpoint(&mut self, id: &SwimId) {
        if let (Some(node), Some(at)) = (wire::node(id.node), id.endpoint)
            && self
                .endpoints
                .get(&node)
                .is_none_or(|known| known.rank < id.rank)
        {
            self.endpoints.insert(node, Endpoint { at, rank: id.rank });
        }
    }

    fn came_up(&mut self, id: &SwimId, now: Duration) {
        let Some(node) = wire::node(id.node).filter(|node| *node != self.me) else {
            return;
        };
        let life = Life {
            state: MemberState::Alive,
            rank: id.rank,
            since: now,
            told: 0,
            missed: false,
        };
        let before = self.lives.insert(node, life);
        self.note_endpoint(id);
        self.tell_member(node);
        self.tell_suspension(node);
        // Changes that were sent to all that live may have passed it by, and this node, too, when it is new itself.
        self.sync_soon(now);
        // It may not have taken this node for down, so that it asks for nothing. Not by the clock alone: that may have stepped.
        let while_down = |life: Life| {
            life.state == MemberState::Down
                && (life.missed || self.said_at.is_some_and(|at| at >= life.since))
        };
        let missed =
            self.said_at.is_some_and(|at| now < at + RECENT) || before.is_some_and(while_down);
        if missed && self.behind.len() < CALLED_BACK {
            self.behind.insert(node, now);
            self.call_behind(now);
        }
        if self.joining_until.is_none() {
            self.ask_of_itself(node, before.is_none(), now);
        }
    }

    /// Asks a member what it said while it was away, or before this node began. Whoever else is compared with may not know
    /// it either, and nothing would show. Where many are new at once, as when all hosts of a large cluster start, what they
    /// said is new as well, and they tell it.
    pub(super) fn ask_of_itself(&mut self, node: NodeAddr, is_new: bool, now: Duration) {
        if !is_new || self.jobs.len() < CALLED_BACK {
            self.start_session(Some(node), Purpose::Owner(node), now);
        }
    }

    fn went_down(&mut self, id: &SwimId, now: Duration) {
        let Some(node) = wire::node(id.node) else {
            return;
        };
        let was_behind = self.behind.remove(&node).is_some()
            || self.lives.get(&node).is_some_and(|life| life.missed);
        let life = Life {
            state: MemberState::Down,
            rank: id.rank,
            since: now,
            told: 0,
            missed: self.drop_from_deliveries(node, now) || was_behind,
        };
        self.lives.insert(node, life);
        self.doubts.remove(&node);
        self.tell_member(node);
        self.tell_suspension(node);
    }

    /// Tells a member as it is now, if that differs from what was told.
    pub(super) fn tell_member(&mut self, node: NodeAddr) {
        match self.view_of(node) {
            Some(member) => {
                if self.told.get(&node).is_none_or(|told| **told != member) {
                    self.told.insert(node, Arc::new(member.clone()));
                    self.events.push_back(Event::Member(member));
                }
            }
            None => {
                if self.told.remove(&node).is_some() {
                    self.events.push_back(Event::MemberGone(node));
                }
            }
        }
    }

    fn view_of(&self, node: NodeAddr) -> Option<Member> {
        let entry = self.roster().holder(node)?;
        let member = Member::new(node, entry.name.clone(), entry.role);
        if node == self.me {
            let at = self
                .config
                .advertise
                .or(self.seen_at)
                .or(self.swim.me().endpoint);
            return Some(member.at(at.or(entry.endpoint)));
        }
        if self.store.get(node, LEFT).is_some() {
            return None;
        }
        let state = self
            .lives
            .get(&node)
            .map_or(MemberState::Down, |life| life.state);
        let reached = !self.doubts.get(&node).is_some_and(|doubt| doubt.unreached);
        Some(
            member
                .state(state)
                .at(self.endpoint_of(node))
                .reachable(state != MemberState::Down && reached),
        )
    }

    /// Tells that a node's records are suspended or back.
    fn tell_suspension(&mut self, owner: NodeAddr) {
        let suspended = !self.is_alive(owner);
        for (key, _, value) in self.store.live_of(owner) {
            if key != LEFT {
                self.events.push_back(Event::Record {
                    owner,
                    key: key.to_owned(),
                    record: Some(Record::new(value.clone()).suspended(suspended)),
                });
            }
        }
    }

    /// Calls a few of the known nodes that are not alive.
    pub(super) fn announce(&mut self, now: Duration) {
        // Both are in order, and nearly all are alive: looking each up would cost much more.
        let mut lives = self.lives.iter().peekable();
        let silent: Vec<NodeAddr> = self
            .endpoints
            .keys()
            .copied()
            .filter(|node| {
                while lives.next_if(|(other, _)| *other < node).is_some() {}
                let life = lives.next_if(|(other, _)| *other == node);
                life.is_none_or(|(_, life)| life.state == MemberState::Down)
            })
            .filter(|node| *node != self.me && self.roster().holder(*node).is_some())
            .collect();
        let called = silent.into_iter().sample(&mut self.rng, CALLED_AT_ONCE);
        for node in called {
            let wishes = self.swim.announce(node, now);
            self.grant(wishes, now);
        }
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.note_suspicions(now);
        self.ask_doubted(now);
        self.call_behind(now);
        if now >= self.next_collect {
            self.next_collect = now + COLLECT;
            self.store.collect(now, ms(self.config.tombstone_ms));
        }
        self.promises.retain(|_, (_, until)| now < *until);
        self.fetch_gaps(now);
        self.turn_if_stale(now);
    }

    fn note_suspicions(&mut self, now: Duration) {
        if !self.swim.may_have_suspects() {
            return;
        }
        let suspects: BTreeSet<NodeAddr> = self
            .swim
            .members()
            .filter(|member| member.state() == foca::State::Suspect)
            .filter_map(|member| wire::node(member.id().node))
            .collect();
        self.swim.has_suspects(!suspects.is_empty());
        let concerned: BTreeSet<NodeAddr> = suspects.union(&self.suspects).copied().collect();
        let patience = ms(self.config.suspect_ms) + STUCK;
        for node in concerned {
            let state = if suspects.contains(&node) {
                MemberState::Suspect
            } else {
                MemberState::Alive
            };
            let Some(life) = self
                .lives
                .get_mut(&node)
                .filter(|life| life.state != MemberState::Down)
            else {
                continue;
            };
            if life.state != state {
                (life.state, life.since, life.told) = (state, now, 0);
                self.tell_member(node);
            } else if state == MemberState::Suspect
                && now >= life.since + patience + STUCK * life.told
            {
                life.told += 1;
                let gives_up = life.told > TOLD;
                self.end_suspicion(node, gives_up, now);
            }
        }
        self.suspects = suspects;
    }

    /// Foca drops the timers of its suspicions when this node takes a new identity, so one can outlive the moment in
    /// which it is spread and ends neither way. Whoever is suspected can say that it lives, once it is told.
    fn end_suspicion(&mut self, node: NodeAddr, gives_up: bool, now: Duration) {
        let suspect = self
            .swim
            .members()
            .find(|member| member.id().node == node.index())
            .cloned();
        let Some(suspect) = suspect else {
            return;
        };
        if gives_up {
            let id = suspect.id().clone();
            let down = foca::Member::new(id, suspect.incarnation(), foca::State::Down);
            let wishes = self.swim.learn(vec![down], now);
            return self.grant(wishes, now);
        }
        let members = vec![(suspect, None)];
        self.send_new(node, &wire::Message::MembersPart { members });
    }

    fn call_behind(&mut self, now: Duration) {
        let mut called = Vec::new();
        for (node, next) in &mut self.behind {
            if now >= *next {
                *next = now + ECHO_UNREACHED;
                called.push(*node);
            }
        }
        for node in called {
            self.send_packet(node, &Packet::Echo, Aim::Probe { carried: 0 });
        }
    }

    fn ask_doubted(&mut self, now: Duration) {
        let patience = ms(self.config.suspect_ms);
        let mut asked = Vec::new();
        let mut lost = Vec::new();
        for (node, doubt) in &mut self.doubts {
            if now >= doubt.next_echo {
                doubt.next_echo = now
                    + if doubt.unreached {
                        ECHO_UNREACHED
                    } else {
                        ECHO
                    };
                asked.push(*node);
            }
            if !doubt.unreached && now >= doubt.since + patience {
                doubt.unreached = true;
                lost.push(*node);
            }
        }
        for node in asked {
            self.send_packet(node, &Packet::Echo, Aim::Probe { carried: 0 });
        }
        for node in lost {
            self.tell_member(node);
        }
    }
}
