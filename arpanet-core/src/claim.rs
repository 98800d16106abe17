//! Claims: which node holds which container address, and who gives way when two do.
//!
//! Routes to containers only ever come from claims. The rule is the same on every node and needs no clock: of all claims
//! to one address, the older wins (the lower epoch, a logical time of the cluster), then the lower node address, then
//! the lower container name.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{AppAddr, AppNet, ContainerName, NodeAddr};

/// A node's announced hold of a container address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Claim {
    /// The address, with the prefix that says what it reaches.
    pub addr: AppAddr,
    /// The node that holds it.
    pub node: NodeAddr,
    /// The container it is for.
    pub container: ContainerName,
    /// The cluster's logical time when it was made: one more than every claim its maker had heard of.
    pub epoch: u64,
}

impl Claim {
    /// A claim of `node` for one of its containers.
    #[must_use]
    pub fn new(addr: AppAddr, node: NodeAddr, container: ContainerName, epoch: u64) -> Self {
        Self {
            addr,
            node,
            container,
            epoch,
        }
    }

    /// The network the address is confined to; `None` for a /8 address.
    #[must_use]
    pub fn net(&self) -> Option<AppNet> {
        self.addr.net()
    }

    fn age(&self) -> (u64, NodeAddr, &ContainerName) {
        (self.epoch, self.node, &self.container)
    }

    /// `Less` when this claim is the older one and wins.
    #[must_use]
    pub fn seniority(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }
}

/// The outcome for a set of claims: at most one holder an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    winners: BTreeMap<Ipv4Addr, Claim>,
    losers: Vec<Claim>,
}

impl Holders {
    /// Decides all conflicts. The order of the claims makes no difference.
    pub fn resolve(claims: impl IntoIterator<Item = Claim>) -> Self {
        let mut holders = Self::default();
        for claim in claims {
            let Some(held) = holders.winners.get_mut(&claim.addr.ip()) else {
                holders.winners.insert(claim.addr.ip(), claim);
                continue;
            };
            match claim.seniority(held) {
                Ordering::Less => holders.losers.push(std::mem::replace(held, claim)),
                Ordering::Equal => {}
                Ordering::Greater => holders.losers.push(claim),
            }
        }
        holders
            .losers
            .sort_by(|a, b| (a.addr, a.age()).cmp(&(b.addr, b.age())));
        holders.losers.dedup();
        holders
    }

    /// The claim that holds this address.
    #[must_use]
    pub fn holder(&self, ip: Ipv4Addr) -> Option<&Claim> {
        self.winners.get(&ip)
    }

    /// The claim that this one loses its address to, whether or not it was among those that were decided.
    #[must_use]
    pub fn older_than(&self, claim: &Claim) -> Option<&Claim> {
        self.holder(claim.addr.ip())
            .filter(|holder| holder.seniority(claim) == Ordering::Less)
    }

    /// All claims that hold their address, by address.
    pub fn winners(&self) -> impl Iterator<Item = &Claim> {
        self.winners.values()
    }

    /// All claims that lost theirs: each is detached by its own node.
    pub fn losers(&self) -> impl Iterator<Item = &Claim> {
        self.losers.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        prop::collection::vec(
            (1..4u8, 1..5u16, 0..3u64, 0..2u8).prop_map(|(host, node, epoch, container)| {
                Claim::new(
                    format!("10.1.0.{host}/16").parse().unwrap(),
                    NodeAddr::from_index(node).unwrap(),
                    format!("c{container}").parse().unwrap(),
                    epoch,
                )
            }),
            0..20,
        )
    }

    proptest! {
        #[test]
        fn every_node_decides_alike(claims in claims()) {
            let forward = Holders::resolve(claims.clone());
            let backward = Holders::resolve(claims.iter().rev().cloned());
            prop_assert_eq!(&forward, &backward);
            for claim in &claims {
                let holder = forward.holder(claim.addr.ip()).unwrap();
                prop_assert_ne!(holder.seniority(claim), Ordering::Greater);
                prop_assert!(holder == claim || forward.losers().any(|loser| loser == claim));
                prop_assert_eq!(forward.older_than(claim), Some(holder).filter(|holder| *holder != claim));
            }
        }
    }
}
