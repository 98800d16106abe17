//! From a datagram to what it says: opened, its sender known, believed, and handed on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::NodeAddr;

use super::traffic::Aim;
use super::{Engine, Event};
use crate::handover::Letter;
use crate::peers::{Arrival, Sender, Verdict};
use crate::roster::Heard;
use crate::seal::{FormerKey, Opened, Unopened};
use crate::wire::{self, Message, Packet, decode, first_packet};

/// How often another cluster is told of, for one address.
const QUIET_FOREIGN: Duration = Duration::from_secs(10);
/// How often a node is told that it was forgotten.
const QUIET_FORGOTTEN: Duration = Duration::from_secs(1);
const MAX_QUIET: usize = 256;

/// What the sender of a datagram is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds its address.
    Member,
    /// It is not in the roster, or its address has another holder: only what proves itself is heard.
    Stranger,
    /// It was forgotten.
    Forgotten,
}

impl Engine {
    pub(super) fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        if self.gone {
            return;
        }
        if Letter::is_one(datagram, self.sealer.tag()) {
            return self.hear_letter(datagram, from, now);
        }
        let Opened { plain, under } = match self.sealer.open(datagram, now) {
            Ok(opened) => opened,
            Err(Unopened::NotOurs) => return self.refusals.not_ours += 1,
            Err(Unopened::UnknownKey) => {
                self.refusals.unknown_key += 1;
                return self.ask_for_key(from, now);
            }
            Err(Unopened::Forged) => return self.refusals.forged += 1,
            Err(Unopened::Foreign(tag)) => {
                self.refusals.foreign += 1;
                if is_due(&mut self.quiet, from, QUIET_FOREIGN, now) {
                    self.events.push_back(Event::Foreign { from, tag });
                }
                return;
            }
        };
        let Ok(((sender, tag, boot, number), packet)) =
            postcard::take_from_bytes::<(u16, u32, u64, u64)>(&plain)
        else {
            return self.refusals.forged += 1;
        };
        let Some(node) = wire::node(sender).filter(|node| *node != self.me || tag != self.my_tag())
        else {
            return;
        };
        let sender = Sender { node, tag };
        let standing = self.standing(sender);
        if let Some(key) = under {
            if standing == Standing::Member {
                self.give_key_at(node, from, now);
            }
            if !key.is_believed || standing == Standing::Forgotten {
                self.refusals.former_key += 1;
                return self.answer_former(key, node, standing, packet, from, now);
            }
        }
        let arrival = Arrival {
            sender,
            boot,
            number,
            packet,
            from,
        };
        match first_packet(packet) {
            None => self.refusals.forged += 1,
            // These two prove themselves: the one says nothing that could harm, the other holds a fresh random number.
            Some((Packet::Challenge { token, seen_at }, _)) => {
                self.seen_from(seen_at);
                self.answer_challenge(&arrival, token, standing, now);
            }
            // It may ask who tells it so, above, and nothing else.
            Some(_) if standing == Standing::Forgotten => {
                self.refusals.forgotten += 1;
                self.tell_forgotten(node, from, now);
            }
            Some((Packet::Response { token }, rest)) => {
                self.hear_response(&arrival, token, rest, standing, now);
            }
            Some((content, _)) => self.judge(&arrival, content, standing, now),
        }
    }

    /// Shows that this node is there. One that has not shown that itself is asked for it in the same datagram.
    fn answer_challenge(
        &mut self,
        arrival: &Arrival<'_>,
        token: u64,
        standing: Standing,
        now: Duration,
    ) {
        let mut answer = wire::encode(&Packet::Response { token });
        let token = self.fresh_token();
        let &Arrival {
            sender, boot, from, ..
        } = arrival;
        if standing != Standing::Forgotten && self.peers.ask(sender, boot, now, token) {
            answer.extend(wire::encode(&Packet::Challenge {
                token,
                seen_at: from,
            }));
        }
        self.send_at(from, &answer, Aim::Other);
    }

    /// A token came back, perhaps with one to return, or with more to hear.
    fn hear_response(
        &mut self,
        arrival: &Arrival<'_>,
        token: u64,
        rest: &[u8],
        standing: Standing,
        now: Duration,
    ) {
        let &Arrival {
            sender,
            boot,
            number,
            from,
            ..
        } = arrival;
        let mut seen = None;
        let behind = match decode::<Packet>(rest) {
            Some(Packet::Challenge { token, seen_at }) => {
                seen = Some(seen_at);
                self.owed = Some((from, token));
                None
            }
            None if !rest.is_empty() => return self.refusals.forged += 1,
            behind => behind,
        };
        let proven = self.peers.prove(sender, boot, number, token);
        let is_proven = proven.is_some();
        for (packet, from) in proven.unwrap_or_default() {
            if let Some(packet) = decode(&packet) {
                self.believe(sender, standing, from, packet, now);
            }
        }
        match behind {
            Some(content) if is_proven => self.believe(sender, standing, from, content, now),
            Some(content) => {
                let packet = rest;
                self.judge(&Arrival { packet, ..*arrival }, content, standing, now);
            }
            None => {}
        }
        // After what waited: a node that knows nobody yet takes another identity for it.
        if let Some(at) = seen {
            self.seen_from(at);
        }
        // Nothing was said that it could go along with.
        if let Some((to, token)) = self.owed.take() {
            self.send_at(to, &wire::encode(&Packet::Response { token }), Aim::Other);
        }
    }

    fn judge(&mut self, arrival: &Arrival<'_>, content: Packet, standing: Standing, now: Duration) {
        let token = self.fresh_token();
        match self.peers.judge(arrival, now, token) {
            Verdict::Believe => self.believe(arrival.sender, standing, arrival.from, content, now),
            Verdict::Ask(token) => {
                let challenge = Packet::Challenge {
                    token,
                    seen_at: arrival.from,
                };
                self.send_at(arrival.from, &wire::encode(&challenge), Aim::Other);
            }
            Verdict::Wait => {}
            Verdict::Replayed => self.refusals.replayed += 1,
        }
    }

    fn fresh_token(&mut self) -> u64 {
        rand::RngExt::random(&mut self.rng)
    }

    fn my_tag(&self) -> u32 {
        Sender::new(self.me, &self.identity).tag
    }

    fn standing(&self, sender: Sender) -> Standing {
        match self.roster().entry(sender.node) {
            Some(entry) if Sender::new(sender.node, &entry.identity) != sender => {
                Standing::Stranger
            }
            Some(entry) if entry.forgotten => Standing::Forgotten,
            Some(_) => Standing::Member,
            None => Standing::Stranger,
        }
    }

    /// Tells a node that it was forgotten, so that it need not wonder; not more than once in a while.
    fn tell_forgotten(&mut self, node: NodeAddr, at: SocketAddr, now: Duration) {
        if let Some(packet) = self.proof_for(node, at, now) {
            self.send_at(at, &packet, Aim::Other);
        }
    }

    /// Who has not even heard that the key is another one is told why, where it is out, and nothing else.
    fn answer_former(
        &mut self,
        key: FormerKey,
        node: NodeAddr,
        standing: Standing,
        packet: &[u8],
        from: SocketAddr,
        now: Duration,
    ) {
        let answer = match decode::<Packet>(packet) {
            // It wants to know that this node is there before it believes that.
            Some(Packet::Challenge { token, .. }) => {
                Some(wire::encode(&Packet::Response { token }))
            }
            Some(_) if standing != Standing::Member => self.proof_for(node, from, now),
            _ => None,
        };
        if let Some(answer) = answer {
            self.send_under(key, from, &answer);
        }
    }

    /// Who has this address by now, or that nobody has.
    fn proof_for(&mut self, node: NodeAddr, at: SocketAddr, now: Duration) -> Option<Vec<u8>> {
        let proof = self.roster.proof(node, &self.key)?;
        is_due(&mut self.quiet, at, QUIET_FORGOTTEN, now).then(|| {
            wire::encode(&Packet::Whole(Message::Roster {
                id: self.fresh_id(),
                entries: vec![proof],
            }))
        })
    }

    pub(super) fn believe(
        &mut self,
        sender: Sender,
        standing: Standing,
        from: SocketAddr,
        packet: Packet,
        now: Duration,
    ) {
        let node = sender.node;
        match standing {
            Standing::Member => self.heard_from(node, from),
            // So that it can be answered; a member's endpoint is not touched by a stranger.
            Standing::Stranger if self.roster().holder(node).is_none() => {
                self.endpoints
                    .insert(node, super::Endpoint { at: from, rank: 0 });
            }
            Standing::Stranger | Standing::Forgotten => {}
        }
        let message = match packet {
            Packet::Whole(message) => message,
            Packet::Fragment {
                transfer,
                index,
                count,
                part,
            } => {
                let whole = self
                    .assembly
                    .take(sender, transfer, index, count, part, now);
                match whole.map(|whole| decode::<Packet>(&whole)) {
                    Some(Some(Packet::Whole(message))) => message,
                    Some(_) => return self.refusals.forged += 1,
                    None => return,
                }
            }
            Packet::Swim(data) if standing == Standing::Member => {
                let wishes = self.swim.handle(node, &data, now);
                return self.grant(wishes, now);
            }
            Packet::Echo if standing == Standing::Member => {
                return self.send_packet(node, &Packet::EchoReply, Aim::Probe { carried: 0 });
            }
            Packet::EchoReply if standing == Standing::Member => return self.answered(node, now),
            _ => return,
        };
        match (standing, message) {
            (_, Message::Roster { id, entries }) => {
                for entry in entries {
                    self.hear_entry(entry, now);
                }
                // To where it came from: a node that takes itself out has no other place any more.
                let ack = Message::Ack {
                    id,
                    objection: None,
                };
                self.send_at(from, &wire::encode(&Packet::Whole(ack)), Aim::Change);
            }
            (_, Message::RosterPart { entries, wanted }) => {
                self.take_roster_part(node, entries, &wanted, now)
            }
            (
                _,
                Message::RosterDigest {
                    id,
                    from,
                    to,
                    entries,
                },
            ) => {
                self.answer_roster_digest(node, id, from, to, &entries);
            }
            (_, Message::Compare { id }) => self.answer_compare(node, id),
            (_, Message::Ack { id, objection }) => {
                self.acknowledged(node, id, objection.map(|entry| *entry), now)
            }
            (Standing::Stranger | Standing::Forgotten, _) => {}
            (_, Message::Push { id, delta }) => {
                if self.take_delta(node, &delta, now) {
                    self.send_new(
                        node,
                        &Message::Ack {
                            id,
                            objection: None,
                        },
                    );
                }
            }
            (_, Message::Part { delta }) => {
                // News that came by comparison may be news to more.
                if self.take_delta(node, &delta, now) {
                    self.sync_soon(now);
                }
            }
            (_, Message::Propose { id, entry }) => self.answer_proposal(node, id, *entry, now),
            (
                _,
                Message::Compared {
                    id,
                    hashes,
                    your_rank,
                },
            ) => self.compared(node, id, hashes, your_rank, now),
            (_, Message::MembersAsk { id, from }) => self.answer_members(node, id, from),
            (_, Message::MembersPart { members }) => self.take_members(members, now),
            (
                _,
                Message::Digest {
                    id,
                    from,
                    to,
                    owners,
                },
            ) => self.answer_digest(node, id, from, to, &owners, now),
            (_, Message::Wanted { owners }) => self.answer_wanted(node, &owners, now),
            (_, Message::Done { id, next }) => self.request_done(node, id, next, now),
        }
    }

    pub(super) fn hear_entry(&mut self, signed: crate::roster::SignedEntry, now: Duration) {
        let node = signed.entry().node;
        match self.roster.hear(signed) {
            // Its holder may have been what others waited for, so all are looked at.
            Heard::Taken => {
                self.roster_changed(node, now);
                self.sync_soon(now);
            }
            Heard::Forged => self.refusals.roster_entries += 1,
            Heard::Known | Heard::Refused | Heard::Unproven => {}
        }
    }
}

/// Whether something may be told to this address again.
pub(super) fn is_due(
    told: &mut BTreeMap<SocketAddr, Duration>,
    at: SocketAddr,
    quiet: Duration,
    now: Duration,
) -> bool {
    told.retain(|_, until| now < *until);
    if told.contains_key(&at) || told.len() >= MAX_QUIET {
        return false;
    }
    told.insert(at, now + quiet);
    true
}
