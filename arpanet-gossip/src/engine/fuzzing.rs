//! What fuzz targets reach and nobody else: compiled with `--cfg fuzzing` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "for fuzz targets only"
)]

use super::inbound::Standing;
use super::insider::{addr, at, engine, entry};
use super::*;
use crate::wire::decode;

/// Datagrams of anybody, from anywhere.
pub fn outsider<'a>(datagrams: impl IntoIterator<Item = &'a [u8]>) {
    let mut engine = engine();
    let mut now = Duration::ZERO;
    for datagram in datagrams {
        now += Duration::from_millis(7);
        engine.handle_datagram(now, at(9), datagram);
        step(&mut engine, now);
    }
}

/// Packets of a member: it is node 0.2, has the cluster's key, and says what it likes. Where a message answers a request, the
/// id 0 stands for that of the request that is open.
pub fn insider<'a>(packets: impl IntoIterator<Item = &'a [u8]>) {
    let mut engine = engine();
    let sender = Sender::new(addr(2), &entry(2).identity);
    let mut now = Duration::ZERO;
    for packet in packets {
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
