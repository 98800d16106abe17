//! Nodes on loopback, each with a UDP socket of its own.

#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::discovery::{Discovery, Instance, Member, Record, RecordKey, Selector};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{InstanceId, NodeAddr, ServiceName};
use arpanet_gossip::{GossipConfig, GossipDiscovery, UdpDatagrams};
use ed25519_dalek::SigningKey;

/// Far above what anything takes, also where other work has the cores.
pub const BOUND: Duration = Duration::from_secs(20);

pub fn addr(index: u16) -> NodeAddr {
    NodeAddr::from_index(index).unwrap()
}

pub fn secret(index: u16) -> Secret<32> {
    Secret::from_bytes([u8::try_from(index).unwrap(); 32])
}

fn role(index: u16) -> Role {
    match index {
        1 => Role::Boot,
        3 => Role::Client,
        _ => Role::Server,
    }
}

pub fn entry(index: u16, at: SocketAddr) -> RosterEntry {
    let public = SigningKey::from_bytes(secret(index).expose()).verifying_key();
    RosterEntry::new(
        addr(index),
        format!("node{index}").parse().unwrap(),
        role(index),
        Identity::from_bytes(public.to_bytes()),
        index.into(),
    )
    .at(Some(at))
}

pub struct Node {
    pub index: u16,
    pub at: SocketAddr,
    pub discovery: Arc<GossipDiscovery>,
}

impl Node {
    /// A node with a socket, not started.
    pub fn new(index: u16) -> Self {
        Self::at(index, (Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    pub fn at(index: u16, at: SocketAddr, file: Option<&Path>) -> Self {
        let transport = UdpDatagrams::bind(at).unwrap();
        let at = transport.local_addr().unwrap();
        let config = GossipConfig::default();
        let mut discovery =
            GossipDiscovery::new(config, secret(index), Arc::new(transport)).unwrap();
        if let Some(file) = file {
            discovery = discovery.keep_in(file);
        }
        Self {
            index,
            at,
            discovery: Arc::new(discovery),
        }
    }

    pub fn entry(&self) -> RosterEntry {
        entry(self.index, self.at)
    }

    pub fn membership(&self, roster: Roster) -> Membership {
        let entry = self.entry();
        Membership::new(
            NodeInfo::new(entry.node, entry.name, entry.role),
            entry.identity,
            ClusterId::from_bytes([5; 16]),
            ClusterKey::new(1, Secret::from_bytes([6; 32])),
            roster,
        )
    }

    pub async fn start(&self, roster: &Roster) {
        self.discovery
            .start(&self.membership(roster.clone()))
            .await
            .unwrap();
    }

    pub fn addr(&self) -> NodeAddr {
        addr(self.index)
    }

    pub fn instance(&self, id: &str, service: &str) -> Instance {
        let ip = Ipv4Addr::new(10, 1, 0, u8::try_from(self.index).unwrap());
        Instance::new(
            id.parse().unwrap(),
            service.parse().unwrap(),
            ip,
            80,
            self.addr(),
        )
    }

    /// The ids of the instances of a service that get traffic.
    pub async fn ids(&self, name: &str) -> Vec<String> {
        let found = self.discovery.lookup(&service(name)).await.unwrap();
        found
            .iter()
            .map(|instance| instance.id.to_string())
            .collect()
    }

    /// Waits until its instances of all services are as they should be.
    pub async fn until_instances(&self, what: &str, holds: impl Fn(&Seen<Instance>) -> bool) {
        let watch = self.discovery.watch(Selector::All).await.unwrap();
        until(watch, what, holds).await;
    }

    pub async fn until_members(&self, what: &str, holds: impl Fn(&SeenMembers) -> bool) {
        let watch = self.discovery.watch_members().await.unwrap();
        until(watch, what, holds).await;
    }

    pub async fn until_records(&self, what: &str, holds: impl Fn(&SeenRecords) -> bool) {
        let watch = self.discovery.watch_records("").await.unwrap();
        until(watch, what, holds).await;
    }
}

pub type Seen<V> = std::collections::BTreeMap<InstanceId, V>;
pub type SeenMembers = std::collections::BTreeMap<NodeAddr, Member>;
pub type SeenRecords = std::collections::BTreeMap<(NodeAddr, RecordKey), Record>;

/// Follows a watch until what it has told holds.
pub async fn until<K: Ord + Clone + Debug, V: Clone + Debug>(
    mut watch: Watch<K, V>,
    what: &str,
    holds: impl Fn(&std::collections::BTreeMap<K, V>) -> bool,
) {
    let mut seen = std::collections::BTreeMap::new();
    let following = async {
        while let Some(change) = watch.next().await {
            match change {
                Change::Snapshot(whole) => seen = whole,
                Change::Upsert(key, value) => {
                    seen.insert(key, value);
                }
                Change::Removed(key) => {
                    seen.remove(&key);
                }
                _ => {}
            }
            if holds(&seen) {
                return;
            }
        }
        panic!("the watch ended");
    };
    let followed = tokio::time::timeout(BOUND, following).await;
    assert!(followed.is_ok(), "not {what} within {BOUND:?}: {seen:#?}");
}

pub async fn within<R>(what: &str, future: impl Future<Output = R>) -> R {
    tokio::time::timeout(BOUND, future)
        .await
        .unwrap_or_else(|_| panic!("not {what} within {BOUND:?}"))
}

pub fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Three nodes that know each other and run.
pub async fn three() -> [Node; 3] {
    let nodes = [Node::new(1), Node::new(2), Node::new(3)];
    let roster: Roster = nodes.iter().map(Node::entry).collect();
    for node in &nodes {
        node.start(&roster).await;
    }
    for node in &nodes {
        node.until_members("all alive", |members| {
            members.len() == 3
                && members
                    .values()
                    .all(|member| member.state == arpanet_core::discovery::MemberState::Alive)
        })
        .await;
    }
    nodes
}
