//! The letters in which keys travel.

use arpanet_core::admission::Keys;

use super::super::insider::{CLUSTER, addr, at, engine_of_many, entry, key as key_of};
use super::super::*;
use crate::handover::{Address, Ask, Content, Give, Letter, Rank};
use crate::wire::{MAX_DATAGRAM, decode};

/// What happens to the engine of node 1: 2 is a client, 3 a server, 4 was forgotten, 5 is nobody.
#[derive(Deserialize)]
enum Happening {
    /// A letter of anybody.
    Bytes(Vec<u8>),
    /// Somebody asks, in the name of a node.
    Asked { signer: u8, node: u16, rank: Rank },
    /// Somebody gives a key to a node, sealed to the same or another, in the name of a node.
    Given {
        signer: u8,
        by: u16,
        to: u16,
        sealed_to: u8,
        content: Content,
    },
    /// This node's user wants another key.
    TurnedOver,
    /// This node's user takes a node out.
    Forgotten(u8),
    /// So many milliseconds pass.
    Waited(u16),
}

/// What happens, as postcard has it.
///
/// The key is another one only where this node made it, or where a server gave it to this node by a letter of its own; it is
/// always a better one. It is given only to members, sealed to them, with what passwords are checked by for servers alone, and
/// not before this node knows of everybody who must not have it.
pub fn letters(happenings: &[u8]) {
    let Some(happenings) = decode::<Vec<Happening>>(happenings) else {
        return;
    };
    let mut engine = engine_of_many();
    let mut now = Duration::ZERO;
    for happening in happenings {
        now += Duration::from_millis(7);
        let before = engine.keys();
        let allowed = happen(&mut engine, &mut now, happening);
        let after = engine.keys();
        if after != before {
            assert!(allowed.is_some(), "nobody who may has given a key");
            assert!(after.key == before.key || after.key.rank() > before.key.rank());
            if let Some(Some(given)) = allowed {
                assert_eq!(after.key, given.key);
                assert!(
                    after.credential == before.credential || after.credential == given.credential
                );
            }
        }
        look_at_sent(&mut engine, [&before, &after]);
        engine.handle_timer(now);
        let later = engine.keys();
        assert!(later == after || later.key.rank() > after.key.rank());
        look_at_sent(&mut engine, [&after, &later]);
        while engine.poll_event().is_some() {}
    }
}

/// Whether the key may be another one after this: `None`: no; what it was given, where it was not this node that made it.
#[allow(clippy::option_option, reason = "for this one caller")]
fn happen(
    engine: &mut Engine,
    now: &mut Duration,
    happening: Happening,
) -> Option<Option<Content>> {
    match happening {
        Happening::Bytes(bytes) => {
            let mut datagram = vec![crate::seal::MAGIC, 2];
            datagram.extend_from_slice(&crate::cluster_tag(&CLUSTER));
            datagram.extend_from_slice(&bytes);
            engine.handle_datagram(*now, at(9), &datagram);
            None
        }
        Happening::Asked { signer, node, rank } => {
            let ask = Ask::sign(&CLUSTER, node, rank, &key_of(somebody(signer)));
            hear(engine, *now, &Letter::Ask(ask));
            None
        }
        Happening::Given {
            signer,
            by,
            to,
            sealed_to,
            content,
        } => {
            let [signer, sealed_to] = [signer, sealed_to].map(somebody);
            let address = Address {
                cluster: &CLUSTER,
                by,
                to,
                identity: &entry(sealed_to).identity,
            };
            let mut rng = StdRng::seed_from_u64(1);
            let give = Give::sign(&address, &content, &key_of(signer), &mut rng)?;
            let giver = NodeAddr::from_index(by).and_then(|by| engine.roster().holder(by));
            let may = giver.is_some_and(|giver| giver.role.admits())
                && by == signer
                && [to, sealed_to] == [1, 1];
            hear(engine, *now, &Letter::Give(give));
            may.then_some(Some(content))
        }
        Happening::TurnedOver => {
            let before = engine.keys();
            if engine.turn_over(*now, None).is_ok() {
                assert_ne!(
                    engine.keys().key,
                    before.key,
                    "it was said to be turned over"
                );
            }
            Some(None)
        }
        Happening::Forgotten(node) => {
            let _ = engine.forget(*now, addr(somebody(node)));
            Some(None)
        }
        Happening::Waited(time) => {
            *now += Duration::from_millis(time.into());
            None
        }
    }
}

fn somebody(number: u8) -> u16 {
    u16::from(number % 5) + 1
}

fn hear(engine: &mut Engine, now: Duration, letter: &Letter) {
    let datagram = letter.write(crate::cluster_tag(&CLUSTER));
    engine.handle_datagram(now, at(9), &datagram);
}

/// What was sent while one key became the other.
fn look_at_sent(engine: &mut Engine, both: [&Keys; 2]) {
    while let Some(Transmit { datagram, .. }) = engine.poll_transmit() {
        assert!(datagram.len() <= MAX_DATAGRAM);
        if !Letter::is_one(&datagram, crate::cluster_tag(&CLUSTER)) {
            continue;
        }
        let Some(Letter::Give(give)) = Letter::read(&datagram) else {
            continue;
        };
        assert!(give.by == 1 && give.is_by(&CLUSTER, &entry(1).identity));
        let Some(reader) = engine.roster().holder(addr(give.to)) else {
            panic!("a key is given to {}, who is no member", give.to);
        };
        let Some(content) = give.open(&CLUSTER, &key_of(give.to)) else {
            panic!("{} can't open what it is given", give.to);
        };
        let Some(keys) = both.into_iter().find(|keys| keys.key == content.key) else {
            panic!("a key is given that is not this node's");
        };
        assert!(keys.key.covers <= engine.roster().departures());
        let may_admit = reader.role.admits();
        assert_eq!(
            content.credential,
            keys.credential.clone().filter(|_| may_admit)
        );
    }
}
