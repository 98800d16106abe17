//! What fuzz targets reach and nobody else: compiled with `--cfg fuzzing` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::ranges::{Owner, Title};
use super::record;
use super::records::Records;
use crate::discovery::Record;
use crate::watch::Change;
use crate::{AppNet, NodeAddr};

/// Records of other nodes come and go: owner, key, value, or none where it goes. What is worked out of them stands on its
/// own, and nothing is left when all of them are gone.
pub fn records(said: &[(u16, String, Option<Vec<u8>>)]) {
    let mut records = Records::default();
    let mut keys = BTreeSet::new();
    for (owner, key, value) in said {
        let Some(owner) = NodeAddr::from_index(*owner) else {
            continue;
        };
        let id = (owner, key.as_str().into());
        keys.insert(id.clone());
        records.follow(match value {
            Some(value) => Change::Upsert(id, Record::new(value.clone().into())),
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
    let owners = [owner, NodeAddr::from_index(1).unwrap()].map(|node| Owner::new(node, 0));
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
