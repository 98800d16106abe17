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

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

pub(super) fn entry(index: u16) -> RosterEntry {
    entry_as(index, Role::Server)
}

pub(super) fn entry_as(index: u16, role: Role) -> RosterEntry {
    let identity = Identity::from_bytes(key(index).verifying_key().to_bytes());
    let name = format!("node{index}").parse().unwrap();
    RosterEntry::new(addr(index), name, role, identity, index.into()).at(Some(at(index)))
}

pub(super) fn first_key() -> ClusterKey {
    ClusterKey::new(1, Secret::from_bytes([2; 32]))
}

pub(super) fn engine() -> Engine {
    engine_in((1..=4).map(entry).collect(), first_key())
}

/// Among others: 2 is a client, 4 was forgotten.
pub(super) fn engine_of_many() -> Engine {
    let role = |index| match index {
        2 => Role::Client,
        _ => Role::Server,
    };
    let mut roster: Roster = (1..=4).map(|index| entry_as(index, role(index))).collect();
    roster.forget(addr(4));
    let key = first_key().covering(roster.departures());
    engine_in(roster, key)
}

/// Node 1 of this cluster.
pub(super) fn engine_in(roster: Roster, cluster_key: ClusterKey) -> Engine {
    let me = entry(1);
    let membership = Membership::new(
        NodeInfo::new(me.node, me.name.clone(), me.role),
        me.identity,
        CLUSTER,
        cluster_key,
        roster,
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
