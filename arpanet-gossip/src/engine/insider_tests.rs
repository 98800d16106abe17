//! A member that has the cluster's key and says what it likes.

use arpanet_core::roster::ClusterId;
use foca::State;
use rand::seq::IndexedRandom;

use super::inbound::Standing;
use super::insider::{addr, at, engine, entry};
use super::*;
use crate::record::{Signature, record_message};
use crate::swim::SwimId;
use crate::wire::{Delta, Hashes, Mark, WireRecord};

struct Insider(StdRng);

impl Insider {
    fn long(&mut self) -> u64 {
        let any = self.0.random();
        let edges = [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 32, 1 << 20, any];
        *edges.choose(&mut self.0).unwrap()
    }

    fn short(&mut self) -> u16 {
        let any = self.0.random();
        *[0, 1, 2, 3, 9, u16::MAX, u16::MAX - 1, any]
            .choose(&mut self.0)
            .unwrap()
    }

    fn mark(&mut self) -> Mark {
        Mark {
            owner: self.short(),
            generation: u32::from(self.short() % 3),
            version: self.long(),
        }
    }

    fn delta(&mut self) -> Delta {
        let owner = self.short() % 6;
        let records = (0..self.0.random_range(0..3))
            .map(|_| {
                let key = ["a", "~left", "", "i/x", "r/y"]
                    .choose(&mut self.0)
                    .unwrap();
                let (key, version) = ((*key).to_owned(), self.long());
                let value = self
                    .0
                    .random::<bool>()
                    .then(|| Bytes::from_static(b"value"));
                // Its own are signed well.
                let cluster = ClusterId::from_bytes([1; 16]);
                let message = record_message(&cluster, owner, &key, version, value.as_deref());
                let signature = Signature::sign(&super::insider::key(2), &message);
                WireRecord {
                    key,
                    version,
                    value,
                    signature,
                }
            })
            .collect();
        Delta {
            owner,
            generation: u32::from(self.short() % 3),
            from: self.long(),
            to: self.long(),
            target: self.long(),
            records,
        }
    }

    fn entry(&mut self) -> RosterEntry {
        let mut entry = super::insider::entry(self.0.random_range(1..9));
        entry.generation = *[0, 1, 2, u32::MAX].choose(&mut self.0).unwrap();
        entry.epoch = self.long();
        entry.forgotten = self.0.random();
        entry
    }

    fn message(&mut self, id: u64) -> Message {
        match self.0.random_range(0..13) {
            0 => Message::Push {
                id,
                delta: self.delta(),
            },
            1 => Message::Part {
                delta: self.delta(),
            },
            2 => Message::Propose {
                id,
                entry: Box::new(self.entry()),
            },
            3 => Message::Ack {
                id,
                objection: self.0.random::<bool>().then(|| Box::new(self.entry())),
            },
            4 => Message::Compare { id },
            5 => Message::Compared {
                id,
                hashes: Hashes {
                    roster: self.long(),
                    members: self.long(),
                    records: self.long(),
                },
                your_rank: self.long(),
            },
            6 => Message::RosterDigest {
                id,
                from: self.short(),
                to: self.short(),
                entries: vec![(self.short(), self.long())],
            },
            7 => Message::RosterPart {
                entries: Vec::new(),
                wanted: vec![self.short(), self.short()],
            },
            8 => Message::MembersAsk {
                id,
                from: self.short(),
            },
            9 => {
                let id = SwimId {
                    node: self.short(),
                    rank: self.long(),
                    endpoint: self.0.random::<bool>().then(|| at(9)),
                };
                let state = *[State::Alive, State::Suspect, State::Down]
                    .choose(&mut self.0)
                    .unwrap();
                Message::MembersPart {
                    members: vec![(foca::Member::new(id, self.short(), state), Some(at(8)))],
                }
            }
            10 => Message::Digest {
                id,
                from: self.short(),
                to: self.short(),
                owners: (0..4).map(|_| self.mark()).collect(),
            },
            11 => Message::Wanted {
                owners: vec![self.mark(), self.mark()],
            },
            _ => Message::Done {
                id,
                next: self.0.random::<bool>().then(|| self.short()),
            },
        }
    }
}

/// Nothing makes it panic, and nobody's records but the insider's own are other than he said.
#[test]
fn no_message_of_a_member_makes_an_engine_panic_or_believe_it_of_others() {
    for seed in 0..10 {
        let mut engine = engine();
        let mut insider = Insider(StdRng::seed_from_u64(seed));
        let mut now = Duration::ZERO;
        let sender = Sender::new(addr(2), &entry(2).identity);
        for _ in 0..300 {
            now += Duration::from_millis(7);
            // Whatever is asked just now is answered by him.
            let asked = engine.session.as_ref().map(super::sync::Session::id);
            let id = asked.unwrap_or(engine.next_id);
            let message = insider.message(id);
            let packet = Packet::Whole(message);
            engine.believe(sender, Standing::Member, at(2), packet, now);
            engine.handle_timer(now);
            while engine.poll_transmit().is_some() {}
            while let Some(event) = engine.poll_event() {
                if let Event::Record { owner, record, .. } = event {
                    assert!(record.is_none() || owner == addr(2), "seed {seed}");
                }
            }
            assert_eq!(engine.roster().holders().count(), 4, "seed {seed}");
        }
    }
}
