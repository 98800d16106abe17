//! An engine among four members, for what tries it with a member that has the cluster's key and lies.
#![allow(clippy::unwrap_used, reason = "for tests and fuzz targets only")]

use arpanet_core::admission::{ClusterKey, NodeInfo};
use arpanet_core::roster::{ClusterId, Role};

use super::*;

pub(super) fn key(index: u16) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(index).unwrap(); 32])
}

pub(super) fn addr(index: u16) -> NodeAddr {
    NodeAddr::from_index(index).unwrap()
}

pub(super) fn at(index: u16) -> SocketAddr {
    ([192, 168, 8, u8::try_from(index).unwrap()], 51820).into()
}

pub(super) fn entry(index: u16) -> RosterEntry {
    RosterEntry::new(
        addr(index),
        format!("node{index}").parse().unwrap(),
        Role::Server,
        Identity::from_bytes(key(index).verifying_key().to_bytes()),
        index.into(),
    )
    .at(Some(at(index)))
}

pub(super) fn engine() -> Engine {
    let me = entry(1);
    let membership = Membership::new(
        NodeInfo::new(me.node, me.name.clone(), me.role),
        me.identity,
        ClusterId::from_bytes([1; 16]),
        ClusterKey::new(1, Secret::from_bytes([2; 32])),
        (1..=4).map(entry).collect(),
    );
    let secret = Secret::from_bytes(key(1).to_bytes());
    Engine::new(
        GossipConfig::default(),
        &membership,
        &secret,
        &GossipState::default(),
        Duration::ZERO,
        [3; 32],
    )
    .unwrap()
}
