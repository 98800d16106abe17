//! What is consul's own, on real agents: leaders that die, partitions, access, checks.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "live/access.rs"]
mod access;
#[path = "live/catalogue.rs"]
mod catalogue;
mod consuls;
#[path = "live/locks.rs"]
mod locks;
#[path = "live/nodes.rs"]
mod nodes;
#[path = "live/recovery.rs"]
mod recovery;

use std::sync::Arc;

use arpanet_consul::{ConsulConfig, ConsulDiscovery, ConsulKeyValue};
use arpanet_core::discovery::Instance;
use arpanet_core::{Discovery, NodeAddr};

use crate::consuls::Site;

/// A node's backend, with its config changed.
fn backend(site: &Site, node: usize, change: impl Fn(&mut ConsulConfig)) -> Arc<ConsulDiscovery> {
    let mut config = site.agents[node].client();
    change(&mut config);
    Arc::new(ConsulDiscovery::new(config).unwrap())
}

/// The backends of the first nodes, started.
async fn started(
    site: &Site,
    nodes: u8,
    change: impl Fn(&mut ConsulConfig),
) -> Vec<Arc<ConsulDiscovery>> {
    let mut backends = Vec::new();
    for (node, membership) in consuls::memberships(nodes).iter().enumerate() {
        let backend = backend(site, node, &change);
        backend.start(membership).await.unwrap();
        backends.push(backend);
    }
    backends
}

fn store(site: &Site, node: usize) -> ConsulKeyValue {
    ConsulKeyValue::new(site.agents[node].client()).unwrap()
}

/// An instance on `0.NODE+1`.
fn instance(node: usize, id: &str, service: &str) -> Instance {
    let node: NodeAddr = format!("0.{}", node + 1).parse().unwrap();
    let [_, last] = node.octets();
    Instance::new(
        id.parse().unwrap(),
        service.parse().unwrap(),
        [10, 1, 0, last].into(),
        80,
        node,
    )
}

/// The ids that a node finds.
async fn found(backend: &ConsulDiscovery, service: &str) -> Option<Vec<String>> {
    let found = backend.lookup(&service.parse().unwrap()).await.ok()?;
    Some(found.iter().map(|one| one.id.to_string()).collect())
}
