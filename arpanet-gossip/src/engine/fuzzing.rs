//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

mod letters;

pub use self::letters::letters;

use arpanet_core::conformance::bytes::Draw;

use super::inbound::Standing;
use super::insider::{addr, at, engine, entry};
use super::*;
use crate::wire::decode;

/// Datagrams of anybody, from anywhere.
pub fn outsider(said: &[u8]) {
    let mut engine = engine();
    let mut now = Duration::ZERO;
    for datagram in Draw::new(said).pieces() {
        now += Duration::from_millis(7);
        engine.handle_datagram(now, at(9), datagram);
        step(&mut engine, now);
    }
}

/// Packets of a member: it is node 0.2, has the cluster's key, and says what it likes. Where a message answers a request, the
/// id 0 stands for that of the request that is open.
pub fn insider(said: &[u8]) {
    let mut engine = engine();
    let sender = Sender::new(addr(2), &entry(2).identity);
    let mut now = Duration::ZERO;
    for packet in Draw::new(said).pieces() {
        now += Duration::from_millis(7);
        let Some(mut packet) = decode::<Packet>(packet) else {
            continue;
        };
        let open = engine.session.as_ref().map(Session::id);
        if let Packet::Whole(message) = &mut packet
            && let Some(id) = id(message)
            && *id == 0
        {
            *id = open.unwrap_or(engine.next_id);
        }
        engine.believe(sender, Standing::Member, at(2), packet, now);
        step(&mut engine, now);
    }
}

fn id(message: &mut Message) -> Option<&mut u64> {
    match message {
        Message::Push { id, .. }
        | Message::Roster { id, .. }
        | Message::Propose { id, .. }
        | Message::Ack { id, .. }
        | Message::Compare { id }
        | Message::Compared { id, .. }
        | Message::RosterDigest { id, .. }
        | Message::MembersAsk { id, .. }
        | Message::Digest { id, .. }
        | Message::Done { id, .. } => Some(id),
        Message::RosterPart { .. }
        | Message::MembersPart { .. }
        | Message::Wanted { .. }
        | Message::Part { .. } => None,
    }
}

/// What a node keeps of gossip: what is read is written as it was.
pub fn state(kept: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<GossipState>(kept) {
        let text = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<GossipState>(&text).unwrap(), state);
    }
}

/// Time goes on, and nothing came of it that only others can say.
fn step(engine: &mut Engine, now: Duration) {
    engine.handle_timer(now);
    while let Some(transmit) = engine.poll_transmit() {
        assert!(transmit.datagram.len() <= crate::wire::MAX_DATAGRAM);
    }
    while let Some(event) = engine.poll_event() {
        if let Event::Record { owner, record, .. } = event {
            assert!(record.is_none() || owner == addr(2), "a record of {owner}");
        }
    }
    assert_eq!(engine.roster().holders().count(), 4);
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    use super::*;

    #[test]
    fn no_datagrams_of_anybody_are_believed() {
        hold(seeds("gossip_outsider"), 500, outsider);
    }

    #[test]
    fn no_packets_of_a_member_speak_for_others() {
        hold(seeds("gossip_insider"), 500, insider);
    }

    #[test]
    fn no_letters_give_a_key_that_is_not_to_be_had() {
        hold(seeds("gossip_letters"), 500, letters);
    }

    #[test]
    fn any_bytes_are_the_state_of_gossip_or_none() {
        hold(seeds("state_files"), 10_000, state);
    }
}
