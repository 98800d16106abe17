//! The contract's own suite, over a switch in memory and on a paused clock.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::conformance::{self, DiscoveryRig};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_core::{Datagrams, Discovery, Error, ErrorKind, NodeAddr, Result};
use arpanet_gossip::{GossipConfig, GossipDiscovery};
use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use tokio::sync::mpsc;

const NODES: u8 = 3;

type Datagram = (Bytes, SocketAddr);

/// What the nodes hang on.
#[derive(Debug, Default)]
struct Switch {
    plugged: Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Datagram>>>,
    cut: Mutex<HashSet<SocketAddr>>,
}

#[derive(Debug)]
struct Port {
    switch: Arc<Switch>,
    at: SocketAddr,
    queue: tokio::sync::Mutex<mpsc::UnboundedReceiver<Datagram>>,
}

impl Switch {
    fn plug(self: &Arc<Self>, at: SocketAddr) -> Port {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.plugged.lock().unwrap().insert(at, sender);
        Port {
            switch: Arc::clone(self),
            at,
            queue: tokio::sync::Mutex::new(receiver),
        }
    }
}

#[async_trait]
impl Datagrams for Port {
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        let cut = self.switch.cut.lock().unwrap();
        if !cut.contains(&self.at)
            && !cut.contains(&to)
            && let Some(queue) = self.switch.plugged.lock().unwrap().get(&to)
        {
            // Whoever is gone does not get it.
            let _ = queue.send((Bytes::copy_from_slice(datagram), self.at));
        }
        Ok(())
    }

    async fn recv(&self) -> Result<Datagram> {
        let received = self.queue.lock().await.recv().await;
        received.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the port is unplugged"))
    }
}

struct Rig {
    switch: Arc<Switch>,
    memberships: Vec<Membership>,
    processes: Mutex<Vec<Arc<GossipDiscovery>>>,
    disk: tempfile::TempDir,
    applicants: AtomicU8,
}

fn at(node: usize) -> SocketAddr {
    let last = u8::try_from(120 + node).unwrap();
    ([192, 168, 8, last], 51_820).into()
}

fn secret(node: usize) -> Secret<32> {
    Secret::from_bytes([u8::try_from(node + 1).unwrap(); 32])
}

impl Rig {
    async fn new() -> Self {
        let entries: Vec<RosterEntry> = (0..usize::from(NODES)).map(entry).collect();
        let roster: Roster = entries.iter().cloned().collect();
        let memberships = entries.into_iter().map(|entry| {
            Membership::new(
                NodeInfo::new(entry.node, entry.name, entry.role),
                entry.identity,
                ClusterId::from_bytes([5; 16]),
                ClusterKey::new(1, Secret::from_bytes([6; 32])),
                roster.clone(),
            )
        });
        let rig = Self {
            switch: Arc::default(),
            memberships: memberships.collect(),
            processes: Mutex::default(),
            disk: tempfile::tempdir().unwrap(),
            applicants: AtomicU8::new(0),
        };
        let processes = (0..usize::from(NODES)).map(|node| rig.process(node));
        let processes = processes.collect();
        *rig.processes.lock().unwrap() = processes;
        rig
    }

    fn process(&self, node: usize) -> Arc<GossipDiscovery> {
        let port = Arc::new(self.switch.plug(at(node)));
        let gossip = GossipDiscovery::new(GossipConfig::default(), secret(node), port).unwrap();
        Arc::new(gossip.keep_in(self.disk.path().join(format!("{node}.json"))))
    }
}

fn entry(node: usize) -> RosterEntry {
    let public = SigningKey::from_bytes(secret(node).expose()).verifying_key();
    let number = u16::try_from(node + 1).unwrap();
    RosterEntry::new(
        NodeAddr::from_index(number).unwrap(),
        format!("node{number}").parse().unwrap(),
        if node == 0 { Role::Boot } else { Role::Server },
        Identity::from_bytes(public.to_bytes()),
        number.into(),
    )
    .at(Some(at(node)))
}

#[async_trait]
impl DiscoveryRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
        self.processes.lock().unwrap()[node].clone()
    }

    async fn kill(&self, node: usize) {
        self.switch.plugged.lock().unwrap().remove(&at(node));
    }

    async fn restart(&self, node: usize) {
        let process = self.process(node);
        self.processes.lock().unwrap()[node] = process;
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.switch.cut.lock().unwrap().insert(at(node));
    }

    async fn heal(&self, node: usize) {
        self.switch.cut.lock().unwrap().remove(&at(node));
    }

    fn applicant(&self, node: NodeAddr, name: &str) -> Option<RosterEntry> {
        let number = self.applicants.fetch_add(1, Ordering::Relaxed);
        let identity = Identity::from_bytes([200 + number; 32]);
        let name = name.parse().unwrap();
        Some(RosterEntry::new(node, name, Role::Server, identity, 1))
    }
}

#[tokio::test(start_paused = true)]
async fn gossip_keeps_all_of_it() {
    let report = conformance::discovery(Rig::new).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, ["where_the_key_stays_it_is_said"], "{report}");
}
