//! Nodes that are not to get traffic: their instances leave lookups, and come back.
//!
//! As with networks, it is a record with a logical time that every node which admits others carries on.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::view::View;
use super::{Cluster, record};
use crate::discovery::Record;
use crate::runtime::Container;
use crate::{Error, ErrorKind, NodeAddr, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Version {
    epoch: u64,
    drained: bool,
}

impl View {
    fn drain_versions(&self) -> BTreeMap<NodeAddr, (Version, &Bytes)> {
        let mut latest: BTreeMap<NodeAddr, (Version, &Bytes)> = BTreeMap::new();
        for (node, found) in self.records.with_prefix(record::DRAIN) {
            let version = record::decode::<Version>(&found.value);
            let (Ok(node), Some(version)) = (node.parse(), version) else {
                continue;
            };
            if latest.get(&node).is_none_or(|(known, _)| *known < version) {
                latest.insert(node, (version, &found.value));
            }
        }
        latest
    }

    /// What a node that admits others carries on.
    pub(super) fn carried_records(&self) -> BTreeMap<String, Bytes> {
        let drains = self.drain_versions().into_iter();
        let mut records = self.network_records();
        records.extend(
            drains.map(|(node, (_, value))| (format!("{}{node}", record::DRAIN), value.clone())),
        );
        records
    }

    pub(super) fn is_drained(&self, node: NodeAddr) -> bool {
        let versions = self.drain_versions();
        versions
            .get(&node)
            .is_some_and(|(version, _)| version.drained)
    }

    /// Whether a container of this node should get traffic.
    pub(super) fn serves(&self, me: NodeAddr, container: &Container) -> bool {
        let health = self.health(container);
        let well = health.is_none_or(|health| health.is_passing());
        well && !self.is_drained(me)
    }
}

impl Cluster {
    /// Takes all that a node's containers provide, and what is [registered](Self::register) there, out of lookups, until
    /// [`undrain`](Self::undrain): its containers go on, and what is drained stays so over restarts. A second call does
    /// nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a node that is not in the cluster; those of
    /// [`Discovery::publish`](crate::Discovery::publish).
    pub async fn drain(&self, node: NodeAddr) -> Result<()> {
        self.set_drained(node, true).await
    }

    /// Has a node's containers get traffic again. A second call does nothing.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub async fn undrain(&self, node: NodeAddr) -> Result<()> {
        self.set_drained(node, false).await
    }

    async fn set_drained(&self, node: NodeAddr, drained: bool) -> Result<()> {
        let version = {
            let view = self.node.view();
            if !view.members.contains_key(&node) {
                let message = format!("there is no node {node} in the cluster");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            let known = view.drain_versions();
            let known = known.get(&node).map(|(version, _)| *version);
            if known.is_some_and(|known| known.drained) == drained {
                return Ok(());
            }
            Version {
                epoch: record::later(known.map(|known| known.epoch)),
                drained,
            }
        };
        let key = format!("{}{node}", record::DRAIN);
        let value = record::encode(&version)?;
        self.node.discovery.publish(&key, value.clone()).await?;
        // Known here before the watch tells of it.
        self.node
            .view()
            .records
            .insert(self.node.me, key, Record::new(value));
        self.node.kick.notify_one();
        Ok(())
    }
}
