//! What a node knows of its cluster and its containers, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::checkups::Checkups;
use super::owning::Ranges;
use super::record;
use super::records::Records;
use crate::admission::{Holdings, Keys};
use crate::discovery::{Instance, Member, MemberState};
use crate::overlay::{Announcement, PeerSpec};
use crate::roster::Roster;
use crate::runtime::Container;
use crate::watch::Change;
use crate::{ContainerName, InstanceId, NodeAddr};

/// Kept by the watches; everything else is derived from it.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) members: BTreeMap<NodeAddr, Member>,
    pub(super) records: Records,
    pub(super) containers: BTreeMap<ContainerName, Container>,
    /// Whether the runtime has said once which containers there are. Until then, what an earlier process attached and claimed
    /// for them stands: an engine that is away may have left them running.
    pub(super) containers_known: bool,
    /// Whether the runtime can't say so at the moment.
    containers_stale: bool,
    /// Containers that are being brought up.
    pub(super) rising: BTreeSet<ContainerName>,
    /// Containers that did not come up and are still to be removed.
    pub(super) failed: BTreeSet<ContainerName>,
    /// Instances of this node that no container provides.
    pub(super) registered: BTreeMap<InstanceId, Instance>,
    /// What is kept with the membership.
    pub(super) holdings: Holdings,
    pub(super) roster: Roster,
    /// The cluster's keys, where they turn over.
    pub(super) keys: Option<Keys>,
    pub(super) ranges: Ranges,
    pub(super) checkups: Checkups,
    /// Members that came, went or are another.
    changed: BTreeSet<NodeAddr>,
}

/// Carries a change of a watch over into a map.
fn follow<K: Ord, V>(map: &mut BTreeMap<K, V>, change: Change<K, V>) {
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
    pub(super) fn follow_containers(&mut self, change: Change<ContainerName, Container>) {
        match &change {
            Change::Stale => self.containers_stale = true,
            Change::Fresh => self.containers_stale = false,
            _ => {}
        }
        follow(&mut self.containers, change);
    }

    /// After all that the runtime has said was followed.
    pub(super) fn know_containers(&mut self) {
        self.containers_known |= !self.containers_stale;
    }

    pub(super) fn follow_members(&mut self, change: Change<NodeAddr, Member>) {
        match &change {
            Change::Snapshot(set) => {
                self.changed.extend(self.members.keys().chain(set.keys()));
            }
            Change::Upsert(node, _) | Change::Removed(node) => {
                self.changed.insert(*node);
            }
            Change::Stale | Change::Fresh => {}
        }
        follow(&mut self.members, change);
    }

    /// Members that came, went or are another since the last time.
    pub(super) fn take_changed_members(&mut self) -> BTreeSet<NodeAddr> {
        std::mem::take(&mut self.changed)
    }

    /// A node as the overlay shall know it; `None` for one that it shall not. `announced` says whether the overlay needs
    /// announcements.
    pub(super) fn peer(&self, node: NodeAddr, announced: bool) -> Option<PeerSpec> {
        let member = self.members.get(&node)?;
        let announcement = self
            .records
            .get(node, record::ANNOUNCEMENT)
            .map(|record| Announcement(record.value.clone()));
        let announcement = match announcement {
            None if announced => return None,
            other => other.unwrap_or_default(),
        };
        let peer = PeerSpec::new(node, member.endpoint, announcement);
        Some(peer.holding(self.records.held_by(node)))
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
