//! Application networks as objects that every node knows.
//!
//! A network is a record that every node which admits others carries on; of two versions the later one, by logical
//! time, wins. Removing one is a later version that says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::view::View;
use super::{Cluster, record};
use crate::addr::application_range;
use crate::{AppNet, Error, ErrorKind, Result};

/// An application network with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Network {
    /// Its name, a DNS label.
    pub name: crate::ServiceName,
    /// Its addresses.
    pub net: AppNet,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Version {
    epoch: u64,
    removed: bool,
    net: AppNet,
}

impl View {
    /// The latest version of every network record, removed ones included.
    fn network_versions(&self) -> BTreeMap<&str, (Version, &Bytes)> {
        let mut latest: BTreeMap<&str, (Version, &Bytes)> = BTreeMap::new();
        for (name, found) in self.records.with_prefix(record::NETWORK) {
            let Some(version) = record::decode::<Version>(&found.value) else {
                continue;
            };
            if latest.get(name).is_none_or(|(known, _)| *known < version) {
                latest.insert(name, (version, &found.value));
            }
        }
        latest
    }

    /// The networks that a node which admits others carries on.
    pub(super) fn network_records(&self) -> BTreeMap<String, Bytes> {
        self.network_versions()
            .into_iter()
            .map(|(name, (_, value))| (format!("{}{name}", record::NETWORK), value.clone()))
            .collect()
    }

    pub(super) fn networks(&self) -> Vec<Network> {
        self.network_versions()
            .into_iter()
            .filter(|(_, (version, _))| !version.removed)
            .filter_map(|(name, (version, _))| {
                Some(Network {
                    name: name.parse().ok()?,
                    net: version.net,
                })
            })
            .collect()
    }

    /// The network with this name.
    pub(super) fn network_called(&self, name: &crate::ServiceName) -> Option<AppNet> {
        let versions = self.network_versions();
        let (version, _) = versions.get(name.as_str())?;
        (!version.removed).then_some(version.net)
    }

    /// Refuses a network that shares addresses with another, which has a name or a container.
    pub(super) fn check_apart(&self, net: AppNet) -> Result<()> {
        let crosses = |other: AppNet| other != net && other.overlaps(net);
        let other = self
            .networks()
            .into_iter()
            .find(|network| crosses(network.net))
            .map(|network| format!("the network {}, which is {}", network.name, network.net));
        let used = || {
            self.records.claims().find_map(|claim| {
                let other = claim.addr.net().filter(|other| crosses(*other))?;
                Some(format!(
                    "{other}, which {} on node {} is in",
                    claim.container, claim.node
                ))
            })
        };
        match other.or_else(used) {
            None => Ok(()),
            Some(other) => Err(
                Error::new(ErrorKind::Conflict, format!("{net} overlaps {other}"))
                    .with_hint("networks don't overlap: choose the same one, or one beside it"),
            ),
        }
    }

    /// A /16 that no network and no container is in.
    pub(super) fn free_network(&self) -> Result<AppNet> {
        let named = self.networks().into_iter().map(|network| network.net);
        let used = self.records.claims().filter_map(|claim| claim.addr.net());
        free_net(&named.chain(used).collect::<Vec<_>>())
    }

    fn next_network_epoch(&self) -> u64 {
        let versions = self.network_versions();
        record::later(versions.values().map(|(version, _)| version.epoch).max())
    }
}

/// The first /16 of the application range that touches none of these.
fn free_net(used: &[AppNet]) -> Result<AppNet> {
    application_range()
        .iter()
        .filter_map(|range| range.subnets(16).ok())
        .flatten()
        .filter_map(|cidr| AppNet::new(cidr).ok())
        // 10.0.0.0/16 is left alone: many hosts' own networks begin there.
        .skip(1)
        .find(|net| used.iter().all(|used| !used.overlaps(*net)))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                "no /16 of the application range is free",
            )
        })
}

impl Cluster {
    /// All networks with names, sorted by name.
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        self.node.view().networks()
    }

    /// Makes a network known to every node, with this CIDR or any free /16. The same name and CIDR again does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the name stands for another CIDR; [`ErrorKind::Conflict`] when the CIDR
    /// overlaps another network, which is named.
    pub async fn create_network(
        &self,
        name: crate::ServiceName,
        net: Option<AppNet>,
    ) -> Result<Network> {
        let (net, epoch) = {
            let view = self.node.view();
            let present = view.networks();
            if let Some(same) = present.iter().find(|network| network.name == name) {
                if net.is_none_or(|net| net == same.net) {
                    return Ok(same.clone());
                }
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("the network {name} is {}", same.net),
                ));
            }
            let net = match net {
                Some(net) => net,
                None => view.free_network()?,
            };
            if let Some(other) = present.iter().find(|network| network.net == net) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("{net} is the network {} already", other.name),
                ));
            }
            view.check_apart(net)?;
            (net, view.next_network_epoch())
        };
        self.put_network(
            &name,
            Version {
                epoch,
                removed: false,
                net,
            },
        )
        .await?;
        Ok(Network { name, net })
    }

    /// Removes a network from every node. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while containers are in it, naming one.
    pub async fn remove_network(&self, name: &crate::ServiceName) -> Result<()> {
        let (network, epoch) = {
            let view = self.node.view();
            let Some(network) = view
                .networks()
                .into_iter()
                .find(|network| network.name == *name)
            else {
                return Ok(());
            };
            if let Some(claim) = view
                .records
                .claims()
                .find(|claim| network.net.contains(claim.addr.ip()))
            {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "the network {name} is used by {} on node {}",
                        claim.container, claim.node
                    ),
                ));
            }
            (network, view.next_network_epoch())
        };
        self.put_network(
            name,
            Version {
                epoch,
                removed: true,
                net: network.net,
            },
        )
        .await
    }

    async fn put_network(&self, name: &crate::ServiceName, version: Version) -> Result<()> {
        let key = format!("{}{name}", record::NETWORK);
        let value = record::encode(&version)?;
        self.node.discovery.publish(&key, value.clone()).await?;
        // Known here before the watch tells of it.
        let mut view = self.node.view();
        view.records
            .insert(self.node.me, key, crate::discovery::Record::new(value));
        Ok(())
    }
}
