//! What the nodes of a cluster say of a network, and which of it holds. Pure.
//!
//! A network is its subnet. Each change of one is a version with the next epoch; every node keeps a copy of the latest, so
//! that none goes with its maker. Of two with the same epoch the removal holds, then that of the lower node.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use arpanet_core::{AppNet, NodeAddr};
use serde::{Deserialize, Serialize};

use super::shape::Shape;

/// What the keys of records about networks begin with; the subnet follows.
pub(super) const PREFIX: &str = "docker-network/";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) epoch: u64,
    /// None where it was removed.
    pub(super) shape: Option<Shape>,
}

pub(super) fn key(net: AppNet) -> String {
    format!("{PREFIX}{net}")
}

pub(super) fn net_of(key: &str) -> Option<AppNet> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

/// The version of each network that holds.
pub(super) fn latest<'a>(
    said: impl IntoIterator<Item = (AppNet, NodeAddr, &'a Version)>,
) -> BTreeMap<AppNet, Version> {
    let mut latest: BTreeMap<AppNet, (NodeAddr, &Version)> = BTreeMap::new();
    let rank =
        |node: NodeAddr, version: &Version| (version.epoch, version.shape.is_none(), Reverse(node));
    for (net, node, version) in said {
        let known = latest.entry(net).or_insert((node, version));
        if rank(node, version) > rank(known.0, known.1) {
            *known = (node, version);
        }
    }
    latest
        .into_iter()
        .map(|(net, (_, version))| (net, version.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, name: Option<&str>) -> Version {
        let shape =
            name.map(|name| serde_json::from_value(serde_json::json!({ "name": name })).unwrap());
        Version { epoch, shape }
    }

    #[test]
    fn the_latest_holds_whoever_says_it_first() {
        let net: AppNet = "10.1.0.0/16".parse().unwrap();
        let node = |number| NodeAddr::new(0, number).unwrap();
        let cases = [
            (
                vec![(1, version(1, Some("a"))), (2, version(2, Some("b")))],
                version(2, Some("b")),
            ),
            (
                vec![(1, version(2, Some("a"))), (2, version(2, None))],
                version(2, None),
            ),
            (
                vec![(1, version(3, Some("a"))), (2, version(2, None))],
                version(3, Some("a")),
            ),
            (
                vec![(2, version(1, Some("b"))), (1, version(1, Some("a")))],
                version(1, Some("a")),
            ),
        ];
        for (said, holds) in cases {
            for said in [said.clone(), said.into_iter().rev().collect()] {
                let said = said
                    .iter()
                    .map(|(number, version)| (net, node(*number), version));
                assert_eq!(latest(said), [(net, holds.clone())].into());
            }
        }
        assert_eq!(net_of(&key(net)), Some(net));
    }
}
