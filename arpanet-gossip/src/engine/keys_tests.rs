//! Who may give a key, and what an old one is good for.

use arpanet_core::admission::ClusterKey;

use super::insider::{CLUSTER, addr, at, engine_of_many, entry, first_key, key as key_of};
use super::keys::OVERLAP;
use super::*;
use crate::handover::{Address, Content, Give, Letter};

fn given(by: u16, to: u16, id: u32) -> Vec<u8> {
    given_covering(by, to, id, 3)
}

fn given_covering(by: u16, to: u16, id: u32, covers: u64) -> Vec<u8> {
    let key = ClusterKey::new(id, Secret::from_bytes([id as u8; 32])).covering(covers);
    let identity = entry(to).identity;
    let address = Address {
        cluster: &CLUSTER,
        by,
        to,
        identity: &identity,
    };
    let content = Content {
        key,
        credential: None,
        ack: 0,
    };
    let mut rng = StdRng::seed_from_u64(1);
    let give = Give::sign(&address, &content, &key_of(by), &mut rng).unwrap();
    Letter::Give(give).write(crate::cluster_tag(&CLUSTER))
}

#[test]
fn a_key_counts_only_from_one_who_may_give_it() {
    let mut engine = engine_of_many();
    let now = Duration::from_secs(1);
    // A client, one that was forgotten, one that nobody knows; and a letter to somebody else.
    for letter in [
        given(2, 1, 9),
        given(4, 1, 9),
        given(9, 1, 9),
        given(3, 2, 9),
    ] {
        let before = engine.refusals().letters;
        engine.handle_datagram(now, at(3), &letter);
        assert_eq!(engine.refusals().letters, before + 1);
        assert_eq!(engine.keys().key.id, 1);
    }
    engine.handle_datagram(now, at(3), &given(3, 1, 9));
    assert_eq!(engine.keys().key.id, 9);
    // An older one is well signed, and no use.
    engine.handle_datagram(now, at(3), &given(3, 1, 8));
    assert_eq!(engine.keys().key.id, 9);
}

#[test]
fn a_key_that_would_not_stand_is_not_said_to_be_made() {
    let mut engine = engine_of_many();
    let now = Duration::from_secs(1);
    // Made by one who has heard of more departures.
    let covers = engine.roster().departures() + 6;
    engine.handle_datagram(now, at(3), &given_covering(3, 1, 9, covers));
    let error = engine.turn_over(now, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(engine.keys().key.id, 9);
    // Who is taken out meanwhile is out all the same, and the key follows once all are known.
    engine.forget(now, addr(2)).unwrap();
    assert_eq!(engine.roster().holder(addr(2)), None);
    assert_eq!(engine.keys().key.id, 9);
    let mut index = 5;
    while engine.roster().departures() < covers {
        engine.roster.make(entry(index), &key_of(1)).unwrap();
        engine.forget(now, addr(index)).unwrap();
        index += 1;
    }
    assert_ne!(engine.keys().key.id, 9);
    assert_eq!(engine.keys().key.covers, engine.roster().departures());
}

/// What somebody who has a key and no identity can say in a member's name.
struct Thief {
    sealer: Sealer,
    number: u64,
}

impl Thief {
    fn new() -> Self {
        Self {
            sealer: Sealer::new(CLUSTER, &first_key()),
            number: 0,
        }
    }

    /// Has the engine hear it as node 3; what the engine says to it, as far as it understands.
    fn say(&mut self, engine: &mut Engine, now: Duration, packet: &Packet) -> Vec<Packet> {
        self.number += 1;
        let victim = Sender::new(addr(3), &entry(3).identity);
        let mut plain = encode(&(3u16, victim.tag, 5u64, self.number));
        plain.extend_from_slice(&encode(packet));
        let datagram = self
            .sealer
            .seal(&plain, &mut StdRng::seed_from_u64(self.number));
        while engine.poll_transmit().is_some() {}
        engine.handle_datagram(now, at(66), &datagram);
        let mut heard = Vec::new();
        while let Some(transmit) = engine.poll_transmit() {
            if let Ok(opened) = self.sealer.open(&transmit.datagram, now) {
                let (_, packet) =
                    postcard::take_from_bytes::<(u16, u32, u64, u64)>(&opened.plain).unwrap();
                heard.extend(crate::wire::decode(packet));
            }
        }
        heard
    }

    /// Shows that it is there, while its key is good.
    fn prove(&mut self, engine: &mut Engine, now: Duration) {
        let asked = self.say(engine, now, &Packet::Echo);
        let Some(Packet::Challenge { token, .. }) = asked.first() else {
            panic!("{asked:?}");
        };
        self.say(engine, now, &Packet::Response { token: *token });
    }

    fn is_believed(&mut self, engine: &mut Engine, now: Duration) -> bool {
        let before = engine.endpoint_of(addr(3));
        let refused = engine.refusals().former_key;
        self.say(engine, now, &Packet::Echo);
        // A believed word moves the member's endpoint to where it came from.
        let believed = engine.refusals().former_key == refused;
        assert!(believed || engine.endpoint_of(addr(3)) == before);
        believed
    }
}

#[test]
fn the_key_before_is_believed_for_a_moment_and_not_at_all_after_a_departure() {
    let now = Duration::from_secs(1);
    let mut engine = engine_of_many();
    let mut thief = Thief::new();
    thief.prove(&mut engine, now);
    engine.turn_over(now, None).unwrap();
    assert!(thief.is_believed(&mut engine, now + OVERLAP / 2));
    assert!(!thief.is_believed(&mut engine, now + OVERLAP));

    let mut engine = engine_of_many();
    let mut thief = Thief::new();
    thief.prove(&mut engine, now);
    engine
        .endpoints
        .insert(addr(3), Endpoint { at: at(3), rank: 0 });
    engine.forget(now, addr(2)).unwrap();
    assert_ne!(engine.keys().key.id, 1);
    assert!(!thief.is_believed(&mut engine, now));
    assert_eq!(engine.endpoint_of(addr(3)), Some(at(3)));
    // Nor does it come to know anything but that somebody is there.
    let message = wire_roster_question();
    let told = thief.say(&mut engine, now, &message);
    assert!(told.is_empty(), "{told:?}");
}

fn wire_roster_question() -> Packet {
    Packet::Whole(Message::RosterDigest {
        id: 1,
        from: 1,
        to: u16::MAX,
        entries: Vec::new(),
    })
}
