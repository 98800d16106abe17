//! Making the layers below agree with what is known, whenever something changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{ClusterEvent, Node};
use crate::admission::Keys;
use crate::discovery::{Instance, MemberState};
use crate::health::ContainerHealth;
use crate::overlay::{AttachAddr, NetNamespace, PeerSpec};
use crate::roster::Roster;
use crate::{AppAddr, ContainerName, Error, InstanceId, NodeAddr, Result};

/// What the layers below have been told since this node came up. A `None` stands for what may be there, in whole or in
/// part: a call that failed may have had its effect, so it is taken back like one that did not.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Nodes about which something changed that is not yet brought about.
    due: BTreeSet<NodeAddr>,
    peers: BTreeMap<NodeAddr, PeerSpec>,
    states: BTreeMap<NodeAddr, MemberState>,
    wide: Vec<AppAddr>,
    wide_told: bool,
    /// The containers were known once.
    pub(super) has_begun: bool,
    /// What an earlier process registered was registered anew.
    pub(super) is_inherited: bool,
    /// `None` until the overlay was asked what an earlier process left.
    pub(super) attached: Option<BTreeMap<(ContainerName, AttachAddr), Option<NetNamespace>>>,
    pub(super) claims: BTreeMap<String, Option<Bytes>>,
    pub(super) instances: BTreeMap<InstanceId, Option<Instance>>,
    pub(super) lost: BTreeSet<(ContainerName, AppAddr)>,
    /// How containers are, as it was told.
    pub(super) health: BTreeMap<ContainerName, ContainerHealth>,
    networks: BTreeMap<String, Bytes>,
    pub(super) ranges: BTreeMap<String, Bytes>,
    networks_carried: bool,
    roster: Roster,
    roster_kept: bool,
    pub(super) keys: Option<Keys>,
}

/// What went wrong, container by container, and elsewhere.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) containers: BTreeMap<ContainerName, Error>,
    /// Addresses that could not be taken away from these.
    pub(super) releases: BTreeMap<ContainerName, Error>,
    /// Addresses that are held before their container is there, and could not be claimed.
    pub(super) reserved: BTreeMap<AppAddr, Error>,
    /// Instances that no container provides, and that could not be registered.
    pub(super) registrations: BTreeMap<InstanceId, Error>,
    pub(super) rest: Vec<Error>,
    /// Something is to be looked at again soon, and nothing failed.
    pub(super) again: bool,
}

impl Outcome {
    fn note(&mut self, outcome: Result<()>) {
        self.rest.extend(outcome.err());
    }

    pub(super) fn is_clean(&self) -> bool {
        self.containers.is_empty()
            && self.releases.is_empty()
            && self.reserved.is_empty()
            && self.registrations.is_empty()
            && self.rest.is_empty()
    }
}

impl Applied {
    /// Whether a container lost this address to an older claim.
    pub(super) fn has_lost(&self, name: &ContainerName, addr: AppAddr) -> bool {
        self.lost.contains(&(name.clone(), addr))
    }
}

impl Node {
    /// Makes the layers below agree with the view. One at a time; what failed is told, and the rest goes on.
    pub(super) async fn reconcile(&self) -> Outcome {
        let mut applied = self.applied.lock().await;
        let mut outcome = Outcome::default();
        self.take_changes(&mut applied);
        self.reconcile_peers(&mut applied, &mut outcome).await;
        self.reconcile_ranges(&mut applied, &mut outcome).await;
        self.reconcile_containers(&mut applied, &mut outcome).await;
        self.reconcile_registrations(&mut applied, &mut outcome)
            .await;
        self.reconcile_networks(&mut applied, &mut outcome).await;
        outcome
    }

    /// Takes over what changed since the last time. It stays due until it is done, also when this call is dropped.
    fn take_changes(&self, applied: &mut Applied) {
        let mut view = self.view();
        let members = view.take_changed_members();
        applied.roster_kept &= members.is_empty();
        view.ranges.due |= !members.is_empty();
        applied.networks_carried &= !members.contains(&self.me);
        applied.due.extend(members);
        applied.due.extend(view.records.take_changed());
        applied.wide_told &= !view.records.take_claims_changed();
        applied.networks_carried &= !view.records.take_networks_changed();
    }

    async fn reconcile_peers(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let due: Vec<NodeAddr> = applied.due.iter().copied().collect();
        let announced = self.overlay.capabilities().announcements;
        let (wanted, unwanted): (BTreeMap<NodeAddr, _>, BTreeMap<NodeAddr, _>) = {
            let view = self.view();
            due.iter()
                .filter(|node| **node != self.me)
                .map(|node| (*node, view.peer(*node, announced)))
                .partition(|(_, peer)| peer.is_some())
        };
        let mut failed = BTreeSet::new();
        for (node, peer) in wanted {
            let Some(peer) = peer.filter(|peer| applied.peers.get(&node) != Some(peer)) else {
                continue;
            };
            match self.overlay.connect(peer.clone()).await {
                Ok(()) => {
                    applied.peers.insert(node, peer);
                }
                Err(error) => {
                    failed.insert(node);
                    let error = error.context(format!("could not connect to node {node}"));
                    outcome.rest.push(error);
                }
            }
        }
        for node in unwanted.into_keys() {
            if !applied.peers.contains_key(&node) {
                continue;
            }
            match self.overlay.forget(node).await {
                Ok(()) => {
                    applied.peers.remove(&node);
                }
                Err(error) => {
                    failed.insert(node);
                    outcome.rest.push(error);
                }
            }
        }
        self.connected.send_if_modified(|connected| {
            let mut changed = false;
            for node in &due {
                changed |= match applied.peers.contains_key(node) {
                    true => connected.insert(*node),
                    false => connected.remove(node),
                };
            }
            changed
        });
        for node in &due {
            self.tell_state(applied, *node, outcome).await;
        }
        applied.due = failed;
        self.let_wide_through(applied, outcome).await;
        self.keep_roster(applied, outcome).await;
        self.reconcile_keys(applied, outcome).await;
    }

    /// Tells of a member whose state is another, and has the overlay try one that is back at once.
    async fn tell_state(&self, applied: &mut Applied, node: NodeAddr, outcome: &mut Outcome) {
        let Some(state) = self.view().members.get(&node).map(|member| member.state) else {
            applied.states.remove(&node);
            return;
        };
        let before = applied.states.insert(node, state);
        if before == Some(state) || node == self.me {
            return;
        }
        self.emit(ClusterEvent::Member { node, state });
        if state == MemberState::Alive && before == Some(MemberState::Down) {
            outcome.note(self.overlay.nudge(node).await);
        }
    }

    async fn let_wide_through(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if applied.wide_told {
            return;
        }
        let wide = self.view().records.wide();
        if applied.wide != wide {
            match self.overlay.allow_wide(&wide).await {
                Ok(()) => applied.wide = wide,
                Err(error) => {
                    outcome.rest.push(error);
                    return;
                }
            }
        }
        applied.wide_told = true;
    }

    /// A changed roster is kept at once: it is what brings the node back.
    async fn keep_roster(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if applied.roster_kept {
            return;
        }
        let Ok(roster) = self.discovery.roster().await else {
            return;
        };
        {
            let mut view = self.view();
            if view.roster != roster && self.discovery.capabilities().records {
                view.roster = roster.clone();
                view.ranges.due = true;
            }
        }
        if roster == applied.roster {
            applied.roster_kept = true;
            return;
        }
        match self.save_roster(&roster).await {
            Ok(true) => {
                applied.roster = roster;
                applied.roster_kept = true;
            }
            Ok(false) => {}
            Err(error) => outcome
                .rest
                .push(error.context("could not keep the roster")),
        }
    }

    /// Carries networks on, and who is drained: every node that admits others keeps a copy, so that none goes with its maker.
    async fn reconcile_networks(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if applied.networks_carried {
            return;
        }
        let carried = {
            let view = self.view();
            let me = view.members.get(&self.me);
            match me.is_some_and(|me| me.role.admits()) {
                true => view.carried_records(),
                false => BTreeMap::new(),
            }
        };
        let mut whole = true;
        for (key, value) in carried {
            if applied.networks.get(&key) != Some(&value) {
                match self.discovery.publish(&key, value.clone()).await {
                    Ok(_) => {
                        applied.networks.insert(key, value);
                    }
                    Err(error) => {
                        outcome.rest.push(error);
                        whole = false;
                    }
                }
            }
        }
        applied.networks_carried = whole;
    }
}
