//! Worlds that begin with a cluster in them.

use std::sync::Arc;

use super::place::Place;
use super::world::World;
use crate::admission::{Admission, Membership, Password, Seed};
use crate::discovery::Discovery;
use crate::overlay::{Overlay, PeerSpec};
use crate::roster::Role;
use crate::{Cluster, NodeAddr, Result};

/// What the nodes of a formed cluster join with.
const PASSWORD: &str = "simulated";

impl World {
    /// A node on this host: a [`Cluster`] on all backends of it, in no cluster yet.
    ///
    /// After [`kill`](World::kill) or [`crash`](World::crash) it is dead, and another is to be taken.
    #[must_use]
    pub fn cluster(&self, place: impl Place) -> Cluster {
        let host = self.host(place);
        let info = self.info(&host, Role::Server);
        let node = Cluster::builder()
            .node(info.node)
            .name(info.name)
            .overlay(Arc::new(host.overlay()))
            .discovery(Arc::new(host.discovery()))
            .runtime(Arc::new(host.runtime()))
            .prober(Arc::new(host.prober()))
            .admission(Arc::new(host.admission()))
            .store(Arc::new(host.store()))
            .build();
        node.unwrap_or_else(|error| unreachable!("a host has all that a node needs: {error}"))
    }

    /// A world of one cluster with the nodes 0.1, 0.2 and so on, which are up: the first one has booted, the others have
    /// joined it as servers, with the password `simulated`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn with_clusters(count: u16) -> (Self, Vec<Cluster>) {
        let world = Self::new(1);
        match world.join_all(count).await {
            Ok(nodes) => (world, nodes),
            Err(error) => unreachable!("a whole world forms a cluster: {error}"),
        }
    }

    async fn join_all(&self, count: u16) -> Result<Vec<Cluster>> {
        let password = Password::new(PASSWORD)?;
        let addrs: Vec<NodeAddr> = (1..=count).filter_map(NodeAddr::from_index).collect();
        let nodes: Vec<Cluster> = addrs.iter().map(|node| self.cluster(*node)).collect();
        let Some(first) = nodes.first() else {
            return Ok(nodes);
        };
        first.boot(&password).await?;
        let seed = Seed::new(first.me(), self.endpoint(first.me()));
        for node in &nodes[1..] {
            node.join(&password, Role::Server, seed, false).await?;
        }
        self.settle().await;
        Ok(nodes)
    }

    /// A world of one cluster with the nodes 0.1, 0.2 and so on: all in the roster, with overlay and discovery running
    /// and everybody connected; the first one is the boot node, the others are servers.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn with_nodes(count: u16) -> Self {
        let world = Self::new(1);
        if let Err(error) = world.form(count).await {
            unreachable!("a whole world forms a cluster: {error}");
        }
        world
    }

    /// A founded cluster of the nodes 0.1, 0.2 and so on: the membership of each, with all of them in the roster. Nothing is
    /// started. The first one is the boot node, the others are servers.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the first one's host has no power.
    pub async fn memberships(&self, count: u16) -> Result<Vec<Membership>> {
        let nodes: Vec<NodeAddr> = (1..=count).filter_map(NodeAddr::from_index).collect();
        let Some(first) = nodes.first() else {
            return Ok(Vec::new());
        };
        let password = Password::new(PASSWORD)?;
        let founder = self.info(*first, Role::Boot);
        let mut founded = self.admission(*first).found(&password, &founder).await?;
        for node in &nodes[1..] {
            let info = self.info(*node, Role::Server);
            founded.roster.merge(self.entry(*node, &info));
        }
        let memberships = nodes.iter().map(|node| {
            let role = if node == first {
                Role::Boot
            } else {
                Role::Server
            };
            Membership::new(
                self.info(*node, role),
                self.entry(*node, &founder).identity,
                founded.cluster,
                founded.key.clone(),
                founded.roster.clone(),
            )
        });
        Ok(memberships.collect())
    }

    async fn form(&self, count: u16) -> Result<()> {
        let mut nodes = Vec::new();
        for membership in self.memberships(count).await? {
            let node = membership.me.node;
            self.overlay(node).launch(&membership).await?;
            self.discovery(node).start(&membership).await?;
            nodes.push(node);
        }
        let peers = self.peer_specs();
        for node in &nodes {
            let overlay = self.overlay(*node);
            for peer in peers.iter().filter(|peer| peer.node != *node) {
                overlay.connect(peer.clone()).await?;
            }
        }
        self.settle().await;
        Ok(())
    }

    /// All nodes whose overlay runs, as others would connect with them now; they hold no container addresses.
    #[must_use]
    pub fn peer_specs(&self) -> Vec<PeerSpec> {
        self.shared.with(|state| {
            (0..state.hosts.len())
                .filter_map(|host| {
                    let overlay = state.overlay(host)?;
                    let endpoint = Some(state.hosts[host].endpoint);
                    Some(PeerSpec::new(
                        overlay.node,
                        endpoint,
                        overlay.announcement.clone(),
                    ))
                })
                .collect()
        })
    }
}
