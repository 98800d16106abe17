//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::json;

use super::ranges::{Owner, Title};
use super::record;
use super::records::Records;
use crate::conformance::bytes::Draw;
use crate::discovery::Record;
use crate::watch::Change;
use crate::{AppNet, NodeAddr};

/// Records of other nodes, claims, ranges and networks, come and go. What is worked out of them stands on its own, and nothing
/// is left when all of them are gone.
pub fn records(bytes: &[u8]) {
    let mut said = Draw::new(bytes);
    let mut records = Records::default();
    let mut keys = BTreeSet::new();
    while !said.is_done() {
        let owner = NodeAddr::from_index(u16::from(said.byte() % 4)).unwrap_or(one());
        let id = (owner, key(&mut said));
        keys.insert(id.clone());
        records.follow(match value(&mut said) {
            Some(value) => Change::Upsert(id, Record::new(value.into())),
            None => Change::Removed(id),
        });
        look_at(&records, owner);
    }
    for id in keys {
        records.follow(Change::Removed(id));
    }
    assert_eq!(records.claims().count(), 0);
    assert!(records.nets().is_empty() && records.taken().is_empty());
}

fn one() -> NodeAddr {
    NodeAddr::from_index(1).unwrap()
}

fn key(said: &mut Draw<'_>) -> String {
    match said.byte() % 8 {
        0 => format!("claim/{}", said.text()),
        1 => "range/10.1.0.0/24".to_owned(),
        2 => format!("want/{}", said.text()),
        3 => format!("network/{}", said.text()),
        4 => format!("drain/{}", said.text()),
        5 => "node".to_owned(),
        6 => "overlay".to_owned(),
        _ => said.text().to_owned(),
    }
}

/// `None` where the record goes.
fn value(said: &mut Draw<'_>) -> Option<Vec<u8>> {
    let value = match said.byte() % 4 {
        0 => json!({
            "addr": format!("10.1.0.{}/16", said.byte()),
            "node": format!("{}.{}", said.byte() & 3, said.byte() & 3),
            "container": "web",
            "epoch": said.number(),
        }),
        1 => (0..said.byte() % 8).map(|_| deed(said)).collect(),
        2 => return Some(said.piece().to_vec()),
        _ => return None,
    };
    Some(value.to_string().into_bytes())
}

fn deed(said: &mut Draw<'_>) -> serde_json::Value {
    let mut ip = || Ipv4Addr::from(0x0a01_0000 | u32::try_from(said.number() & 0x1ff).unwrap());
    let [first, last] = [ip(), ip()];
    json!({
        "first": first,
        "last": last,
        "owner": { "node": format!("0.{}", said.byte() & 3), "generation": said.byte() & 1 },
        "version": said.number(),
    })
}

fn look_at(records: &Records, owner: NodeAddr) {
    assert!(records.next_epoch() > 0);
    assert!(
        records
            .claims_of(owner)
            .all(|(_, claim)| claim.node == owner)
    );
    let taken = records.taken();
    for ip in &taken {
        assert!(records.holder(*ip).is_some());
    }
    for addr in records.held_by(owner) {
        assert_eq!(records.holder(addr.ip()).unwrap().node, owner);
    }
    let owners = [owner, one()].map(|node| Owner::new(node, 0));
    for net in records.nets() {
        share(net, owners, records, &taken);
    }
    for (_, record) in records.with_prefix(record::NETWORK) {
        let _ = record::decode::<serde_json::Value>(&record.value);
    }
}

/// Two nodes never have one address to give out.
fn share(net: AppNet, [one, two]: [Owner; 2], records: &Records, taken: &BTreeSet<Ipv4Addr>) {
    let mut title = Title::resolve(net, Some(one), records.deeds(net).copied());
    let both = BTreeSet::from([one, two]);
    for deed in title.donate(one, &both, &both, taken, 8) {
        assert!(title.stands(&deed));
    }
    if one != two
        && let Some(ip) = title.pick(one, taken)
    {
        assert_ne!(title.pick(two, taken), Some(ip));
    }
}
