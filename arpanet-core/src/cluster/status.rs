//! What a node says of the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Cluster;
use super::record::{self, NodeRecord};
use crate::discovery::{Instance, MemberState, Selector};
use crate::overlay::PeerState;
use crate::roster::Role;
use crate::watch::Change;
use crate::{NodeAddr, NodeName, Result};

/// A node of the cluster, as discovery and the overlay see it together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its address.
    pub address: NodeAddr,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Whether it takes part.
    pub state: MemberState,
    /// The version of the software it runs, once it has said so.
    pub version: Option<String>,
    /// Where it is on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// How the overlay's connection to it is; `None` for this node itself.
    pub connection: Option<PeerState>,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
    /// Whether it is drained: its instances are in no lookup.
    #[serde(default)]
    pub drained: bool,
}

/// All that is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Catalogue {
    /// Of any health, sorted by id.
    pub instances: Vec<Instance>,
    /// It is out of reach, and this is the last that was known.
    pub is_stale: bool,
}

impl Cluster {
    /// All nodes, this one included, sorted by address.
    ///
    /// # Errors
    /// Those of the layers; [`Unavailable`](crate::ErrorKind::Unavailable) while this node is down.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        let members = self.node.discovery.members().await?;
        let peers = self.node.overlay.peers().await?;
        let view = self.node.view();
        Ok(members
            .into_iter()
            .map(|member| {
                let peer = peers.iter().find(|peer| peer.node == member.node);
                let about: Option<NodeRecord> = view
                    .records
                    .get(member.node, record::NODE)
                    .and_then(|record| record::decode(&record.value));
                NodeStatus {
                    address: member.node,
                    name: member.name,
                    role: member.role,
                    state: member.state,
                    version: about.map(|about| about.version),
                    endpoint: member
                        .endpoint
                        .or_else(|| peer.and_then(|peer| peer.endpoint)),
                    connection: peer.map(|peer| peer.state),
                    round_trip: peer.and_then(|peer| peer.round_trip),
                    drained: view.is_drained(member.node),
                }
            })
            .collect())
    }

    /// All instances of all services, of any health.
    ///
    /// # Errors
    /// Those of [`Discovery::watch`](crate::Discovery::watch).
    pub async fn catalogue(&self) -> Result<Catalogue> {
        let mut watch = self.node.discovery.watch(Selector::All).await?;
        let mut catalogue = Catalogue::default();
        while let Some(change) = watch.next().await {
            if let Change::Snapshot(set) = change {
                catalogue.instances = set.into_values().collect();
                // What it is known by the moment it is asked for comes at once.
                catalogue.is_stale = matches!(watch.try_next(), Some(Some(Change::Stale)));
                break;
            }
        }
        Ok(catalogue)
    }

    /// The instances of [`catalogue`](Self::catalogue).
    ///
    /// # Errors
    /// As of `catalogue`.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        Ok(self.catalogue().await?.instances)
    }

    /// Members that answer, by the last that was heard.
    #[must_use]
    pub fn alive(&self) -> Vec<NodeAddr> {
        self.node.view().alive().into_iter().collect()
    }
}
