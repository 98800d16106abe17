//! Comparison, the other side: what a node answers to the requests of `sync`, and takes in of what it is sent for them.

use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::NodeAddr;
use foca::Member;

use super::Engine;
use super::sync::{MARKS, SOON, TRIES};
use crate::roster::SignedEntry;
use crate::store::{Held, Lacking};
use crate::swim::SwimId;
use crate::wire::{self, BURST, FILL, Mark, Message};

/// Entries of the roster that a datagram holds, with who vouches for them.
const ENTRIES: usize = 4;
/// How long what was wanted may be on its way, before others are asked for it.
const PATIENCE: Duration = Duration::from_millis(500);

impl Engine {
    pub(super) fn answer_compare(&mut self, node: NodeAddr, id: u64) {
        let answer = Message::Compared {
            id,
            hashes: self.hashes(),
            your_rank: self.rank_of(node),
        };
        self.send_new(node, &answer);
    }

    fn done(&mut self, node: NodeAddr, id: u64, next: Option<u16>) {
        self.send_new(node, &Message::Done { id, next });
    }

    pub(super) fn answer_roster_digest(
        &mut self,
        node: NodeAddr,
        id: u64,
        from: u16,
        to: u16,
        theirs: &[(u16, u64)],
    ) {
        let mine: Vec<(u16, u64)> = self
            .roster
            .hashes_from(from)
            .take_while(|(node, _)| *node <= to)
            .collect();
        let mut differing = mine
            .iter()
            .filter(|entry| !theirs.contains(entry))
            .map(|(node, _)| *node);
        let sent: Vec<u16> = differing.by_ref().take(BURST * ENTRIES).collect();
        let more = differing.next();
        let mut wanted: Vec<u16> = theirs
            .iter()
            .filter(|entry| !mine.contains(entry))
            .map(|(node, _)| *node)
            .collect();
        wanted.truncate(MARKS);
        for part in self.proofs_of(&sent) {
            let message = Message::RosterPart {
                entries: part,
                wanted: std::mem::take(&mut wanted),
            };
            self.send_new(node, &message);
        }
        if !wanted.is_empty() {
            let entries = Vec::new();
            self.send_new(node, &Message::RosterPart { entries, wanted });
        }
        self.done(node, id, more.or_else(|| after(to)));
    }

    fn proofs_of(&self, nodes: &[u16]) -> Vec<Vec<SignedEntry>> {
        let proofs: Vec<SignedEntry> = nodes
            .iter()
            .filter_map(|node| self.roster.proof(wire::node(*node)?, &self.key))
            .collect();
        proofs
            .chunks(ENTRIES)
            .map(<[SignedEntry]>::to_vec)
            .collect()
    }

    pub(super) fn take_roster_part(
        &mut self,
        node: NodeAddr,
        entries: Vec<SignedEntry>,
        wanted: &[u16],
        now: Duration,
    ) {
        for entry in entries {
            self.hear_entry(entry, now);
        }
        for part in self.proofs_of(&wanted[..wanted.len().min(MARKS)]) {
            let message = Message::RosterPart {
                entries: part,
                wanted: Vec::new(),
            };
            self.send_new(node, &message);
        }
    }

    pub(super) fn answer_members(&mut self, node: NodeAddr, id: u64, from: u16) {
        let me = self.swim.me().clone();
        let mut members: Vec<(Member<SwimId>, Option<SocketAddr>)> = self
            .swim
            .members()
            .cloned()
            .chain([Member::alive(me)])
            .filter(|member| member.id().node >= from && member.id().node != node.index())
            .map(|member| {
                let endpoint = wire::node(member.id().node).and_then(|node| self.endpoint_of(node));
                (member, endpoint)
            })
            .collect();
        members.sort_by_key(|(member, _)| member.id().node);
        // A member with an IPv6 endpoint twice takes up to 60 bytes.
        let chunk = FILL / 60;
        let next = members
            .get(chunk * BURST)
            .map(|(member, _)| member.id().node);
        members.truncate(chunk * BURST);
        for part in members.chunks(chunk) {
            let members = part.to_vec();
            self.send_new(node, &Message::MembersPart { members });
        }
        self.done(node, id, next);
    }

    pub(super) fn take_members(
        &mut self,
        members: Vec<(Member<SwimId>, Option<SocketAddr>)>,
        now: Duration,
    ) {
        for (member, endpoint) in &members {
            if let (Some(node), Some(at)) = (wire::node(member.id().node), *endpoint)
                && node != self.me
                && self.endpoint_of(node).is_none()
            {
                self.endpoints.insert(node, super::Endpoint { at, rank: 0 });
            }
        }
        let members = members.into_iter().map(|(member, _)| member).collect();
        let wishes = self.swim.learn(members, now);
        self.grant(wishes, now);
    }

    pub(super) fn answer_digest(
        &mut self,
        node: NodeAddr,
        id: u64,
        from: u16,
        to: u16,
        theirs: &[Mark],
        now: Duration,
    ) {
        let mine: Vec<Mark> = self
            .store
            .marks_from(from)
            .take_while(|mark| mark.owner <= to)
            .collect();
        let mut budget = BURST;
        let mut next = after(to);
        let mut wanted = Vec::new();
        // Of one owner it asks until there is nothing to send any more, so that nothing is lost on the way.
        let of_one = from == to;
        let mut again = false;
        for held in &mine {
            let nothing = Mark {
                version: 0,
                ..*held
            };
            let known = Held::of(nothing, theirs);
            if known.mark.generation == held.generation && known.mark.version > held.version {
                if held.owner != self.me.index() || self.wants_of_itself(known.mark.version, now) {
                    wanted.push(*held);
                }
                again |= held.owner == node.index();
            }
            if budget == 0 {
                next = Some(held.owner);
                break;
            }
            let lacking = self.store.lacking(known, budget);
            budget -= lacking.deltas.len();
            again |= !lacking.deltas.is_empty();
            let all = lacking.all;
            self.send_parts(node, lacking);
            if !all {
                next = Some(held.owner);
                break;
            }
        }
        if !wanted.is_empty() {
            wanted.truncate(MARKS);
            self.send_new(node, &Message::Wanted { owners: wanted });
        }
        let next = if of_one { again.then_some(from) } else { next };
        self.done(node, id, next);
    }

    /// Whether to ask one more for what this node itself said in an earlier life, up to this version. When it comes back,
    /// every other asks it for that, and shows so that it has it.
    fn wants_of_itself(&mut self, version: u64, now: Duration) -> bool {
        let (wanted, times, until) = &mut self.wanted_of_itself;
        if version > *wanted || now >= *until {
            (*wanted, *times, *until) = (version, 0, now + PATIENCE);
        }
        *times += 1;
        *times <= TRIES
    }

    fn send_parts(&mut self, node: NodeAddr, lacking: Lacking) {
        for delta in lacking.deltas {
            self.send_new(node, &Message::Part { delta });
        }
    }

    pub(super) fn answer_wanted(&mut self, node: NodeAddr, owners: &[Mark], now: Duration) {
        let mine = self.me.index();
        if self.is_alive(node) && owners.iter().any(|mark| mark.owner == mine) {
            // What is sent now may get lost, too: whether it has arrived shows when it is asked once more.
            self.behind.entry(node).or_insert(now + SOON);
        }
        let mut budget = BURST;
        for mark in owners.iter().take(MARKS) {
            let lacking = self.store.lacking((*mark).into(), budget);
            budget -= lacking.deltas.len();
            self.send_parts(node, lacking);
            if budget == 0 {
                return;
            }
        }
    }
}

/// Where the next request begins, unless that was all.
const fn after(to: u16) -> Option<u16> {
    if to == u16::MAX { None } else { Some(to + 1) }
}
