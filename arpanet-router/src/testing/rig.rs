//! The rig of the suite that every overlay keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::NodeAddr;
use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::conformance::{OverlayRig, Ping, PingFrom};
use arpanet_core::overlay::{NetNamespace, Overlay};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster};
use arpanet_netlink::Namespace;
use async_trait::async_trait;

use super::{Container, Fate, LIMIT, Switch, probe};

/// The node with this address in the tests' cluster, whose key is made of that byte.
///
/// # Panics
/// Never: `nodeN` is a name.
#[must_use]
pub fn membership(node: NodeAddr, endpoint: SocketAddr, key: u8) -> Membership {
    let number = node.octets()[1];
    let name = format!("node{number}").parse().unwrap();
    let me = NodeInfo::new(node, name, Role::Server).advertise(Some(endpoint));
    Membership::new(
        me,
        Identity::from_bytes([number; 32]),
        ClusterId::from_bytes([7; 16]),
        ClusterKey::new(1, Secret::from_bytes([key; 32])),
        Roster::default(),
    )
}

/// A host on a switch.
#[async_trait]
pub trait Stationed: Send + Sync + 'static {
    /// Which node it is.
    fn membership(&self) -> Membership;

    /// Where it joined.
    fn endpoint(&self) -> SocketAddr;

    /// Its namespace.
    fn namespace(&self) -> &Namespace;

    /// A file that is its namespace.
    fn path(&self) -> NetNamespace;

    /// Its overlay.
    fn overlay(&self) -> Arc<dyn Overlay>;

    /// As if the agent had been killed and started again: nothing is stopped by hand.
    async fn kill(&mut self);

    /// What is different from what was there before.
    async fn traces(&self) -> Vec<String>;
}

/// Hosts on a switch, for [`conformance::overlay`](arpanet_core::conformance::overlay).
#[derive(Debug)]
pub struct Rig<H> {
    memberships: Vec<Membership>,
    endpoints: Vec<SocketAddr>,
    namespaces: Vec<Namespace>,
    switch: Switch,
    // The suite asks for one thing at a time.
    hosts: tokio::sync::Mutex<Vec<H>>,
    containers: Mutex<Vec<Container>>,
}

impl<H: Stationed> Rig<H> {
    /// Of these hosts, the first being number 1 of the switch.
    #[must_use]
    pub fn new(switch: Switch, hosts: Vec<H>) -> Self {
        let all = || hosts.iter();
        Self {
            memberships: all().map(H::membership).collect(),
            endpoints: all().map(H::endpoint).collect(),
            namespaces: all().map(|host| host.namespace().clone()).collect(),
            switch,
            hosts: hosts.into(),
            containers: Mutex::default(),
        }
    }
}

fn number(node: usize) -> u8 {
    u8::try_from(node + 1).unwrap()
}

#[async_trait]
impl<H: Stationed> OverlayRig for Rig<H> {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn overlay(&self, node: usize) -> Arc<dyn Overlay> {
        self.hosts.try_lock().unwrap()[node].overlay()
    }

    fn endpoint(&self, node: usize) -> Option<SocketAddr> {
        Some(self.endpoints[node])
    }

    async fn ping(&self, from: PingFrom<'_>, to: Ipv4Addr) -> Ping {
        let namespace = match from {
            PingFrom::Host(node) => self.namespaces[node].clone(),
            PingFrom::Container(_, attachment) => {
                Namespace::open(path_of(&attachment.namespace)).unwrap()
            }
            _ => unreachable!("no other origins are known"),
        };
        let probed = tokio::task::spawn_blocking(move || probe(&namespace, to));
        match probed.await.unwrap() {
            Fate::Reached => Ping::Answered,
            Fate::Refused => Ping::Refused,
            Fate::Lost => Ping::Silent,
        }
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self, node: usize) {
        self.hosts.lock().await[node].kill().await;
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.switch.plug_in(number(node), false).await;
    }

    async fn heal(&self, node: usize) {
        self.switch.plug_in(number(node), true).await;
    }

    async fn namespace(&self, _: usize) -> Option<NetNamespace> {
        let container = Container::new("container").await;
        let path = container.path();
        self.containers.lock().unwrap().push(container);
        Some(path)
    }

    async fn remove_namespace(&self, _: usize, namespace: &NetNamespace) {
        let mut containers = self.containers.lock().unwrap();
        containers.retain(|container| container.path() != *namespace);
    }

    fn host_namespace(&self, node: usize) -> Option<NetNamespace> {
        Some(self.hosts.try_lock().unwrap()[node].path())
    }

    async fn traces(&self, node: usize) -> Option<Vec<String>> {
        Some(self.hosts.lock().await[node].traces().await)
    }

    fn patience(&self) -> Duration {
        LIMIT
    }
}

fn path_of(namespace: &NetNamespace) -> &PathBuf {
    match namespace {
        NetNamespace::Path(path) => path,
        other => unreachable!("{other:?} is none of the rig's"),
    }
}
