//! What a node knows of its cluster and its containers, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::record;
use crate::claim::Holders;
use crate::discovery::{Member, MemberState, Record, RecordKey};
use crate::overlay::{Announcement, PeerSpec};
use crate::runtime::Container;
use crate::watch::Change;
use crate::{AppAddr, Claim, ContainerName, NodeAddr};

/// Kept by the watches; everything else is derived from it.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) members: BTreeMap<NodeAddr, Member>,
    pub(super) records: BTreeMap<(NodeAddr, RecordKey), Record>,
    pub(super) containers: BTreeMap<ContainerName, Container>,
}

/// Carries a change of a watch over into a map.
pub(super) fn follow<K: Ord, V>(map: &mut BTreeMap<K, V>, change: Change<K, V>) {
    match change {
        Change::Snapshot(set) => *map = set,
        Change::Upsert(key, value) => {
            map.insert(key, value);
        }
        Change::Removed(key) => {
            map.remove(&key);
        }
        // What was told stays the best known.
        Change::Stale | Change::Fresh => {}
    }
}

impl View {
    /// All claims, those of suspended owners too.
    pub(super) fn claims(&self) -> impl Iterator<Item = (Claim, bool)> {
        self.records
            .iter()
            .filter(|((_, key), _)| key.starts_with(record::CLAIM))
            .filter_map(|((owner, _), record)| {
                let claim: Claim = record::decode(&record.value)?;
                // A node can only claim for itself.
                (claim.node == *owner).then_some((claim, record.suspended))
            })
    }

    /// Who holds which address. The claims of suspended owners rest until they return.
    pub(super) fn holders(&self) -> Holders {
        Holders::resolve(
            self.claims()
                .filter(|(_, suspended)| !suspended)
                .map(|(claim, _)| claim),
        )
    }

    /// The cluster's logical time: past every claim that was heard of.
    pub(super) fn next_epoch(&self) -> u64 {
        self.claims()
            .map(|(claim, _)| claim.epoch)
            .max()
            .unwrap_or(0)
            + 1
    }

    /// Addresses that must not be picked: claimed, also by suspended owners.
    pub(super) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.claims().map(|(claim, _)| claim.addr.ip()).collect()
    }

    /// The peers that the overlay shall know, by who holds which address. `announced` says whether it needs their
    /// announcements.
    pub(super) fn peers(
        &self,
        me: NodeAddr,
        announced: bool,
        holders: &Holders,
    ) -> BTreeMap<NodeAddr, PeerSpec> {
        let mut held: BTreeMap<NodeAddr, Vec<AppAddr>> = BTreeMap::new();
        // A suspended owner keeps its routes where nobody else took the address meanwhile: the return costs nothing.
        for (claim, suspended) in self.claims() {
            let holds = match holders.holder(claim.addr.ip()) {
                Some(holder) => *holder == claim,
                None => suspended,
            };
            if holds {
                held.entry(claim.node).or_default().push(claim.addr);
            }
        }
        self.members
            .values()
            .filter(|member| member.node != me)
            .filter_map(|member| {
                let announcement = self
                    .records
                    .get(&(member.node, record::ANNOUNCEMENT.to_owned()))
                    .map(|record| Announcement(record.value.clone()));
                let announcement = match announcement {
                    None if announced => return None,
                    other => other.unwrap_or_default(),
                };
                let peer = PeerSpec::new(member.node, member.endpoint, announcement)
                    .holding(held.remove(&member.node).unwrap_or_default());
                Some((member.node, peer))
            })
            .collect()
    }

    /// The members that answer.
    pub(super) fn alive(&self) -> BTreeSet<NodeAddr> {
        self.members
            .values()
            .filter(|member| member.state != MemberState::Down)
            .map(|member| member.node)
            .collect()
    }
}
