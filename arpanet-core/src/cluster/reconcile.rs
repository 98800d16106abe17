//! Making the layers below agree with what is known, whenever something changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::plan::{self, Wanted};
use super::{ClusterEvent, Node, record};
use crate::discovery::{Instance, MemberState};
use crate::overlay::{AttachAddr, Attachment, NetNamespace, PeerSpec};
use crate::roster::Roster;
use crate::runtime::ContainerState;
use crate::{AppAddr, Claim, ContainerName, Error, InstanceId, NodeAddr, Result};

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
    /// `None` until the overlay was asked what an earlier process left.
    attached: Option<BTreeMap<(ContainerName, AttachAddr), Option<NetNamespace>>>,
    claims: BTreeMap<String, Option<Bytes>>,
    instances: BTreeMap<InstanceId, Option<Instance>>,
    lost: BTreeSet<(ContainerName, AppAddr)>,
    networks: BTreeMap<String, Bytes>,
    networks_carried: bool,
    roster: Roster,
    roster_kept: bool,
}

/// What went wrong, container by container, and elsewhere.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) containers: BTreeMap<ContainerName, Error>,
    /// Addresses that could not be taken away from these.
    pub(super) releases: BTreeMap<ContainerName, Error>,
    pub(super) rest: Vec<Error>,
}

impl Outcome {
    fn note(&mut self, outcome: Result<()>) {
        self.rest.extend(outcome.err());
    }

    pub(super) fn is_clean(&self) -> bool {
        self.containers.is_empty() && self.releases.is_empty() && self.rest.is_empty()
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
        self.reconcile_containers(&mut applied, &mut outcome).await;
        self.reconcile_networks(&mut applied, &mut outcome).await;
        outcome
    }

    /// Takes over what changed since the last time. It stays due until it is done, also when this call is dropped.
    fn take_changes(&self, applied: &mut Applied) {
        let mut view = self.view();
        let members = view.take_changed_members();
        applied.roster_kept &= members.is_empty();
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

    async fn reconcile_containers(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let wanted = {
            let view = self.view();
            plan::wanted(
                self.me,
                view.containers.values(),
                || view.records.next_epoch(),
                |key| view.records.claim(self.me, key).cloned(),
            )
        };
        if let Err(error) = self.load_attached(applied).await {
            outcome.rest.push(error);
            return;
        }
        self.release(applied, &wanted, outcome).await;
        for container in &wanted {
            if let Err(error) = self.hold(applied, container).await {
                outcome.containers.insert(container.name.clone(), error);
            }
        }
    }

    async fn load_attached(&self, applied: &mut Applied) -> Result<()> {
        if applied.attached.is_none() {
            let attached = match self.overlay.capabilities().attach {
                true => self.overlay.attached().await?,
                false => Vec::new(),
            };
            applied.attached = Some(attached.into_iter().map(|key| (key, None)).collect());
        }
        Ok(())
    }

    /// Takes back all that no container here wants any more: instances first, so that nobody is sent there; then the
    /// address, then the claim to it.
    async fn release(&self, applied: &mut Applied, wanted: &[Wanted], outcome: &mut Outcome) {
        let instances: BTreeSet<&InstanceId> = wanted
            .iter()
            .flat_map(|container| container.instances.keys())
            .collect();
        let stale: Vec<InstanceId> = applied
            .instances
            .keys()
            .filter(|id| !instances.contains(id))
            .cloned()
            .collect();
        for id in stale {
            match self.discovery.deregister(&id).await {
                Ok(()) => {
                    applied.instances.remove(&id);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
        let addrs: BTreeSet<(ContainerName, AttachAddr)> = wanted
            .iter()
            .flat_map(|container| {
                container
                    .claims
                    .values()
                    .map(|claim| (container.name.clone(), AttachAddr::Application(claim.addr)))
            })
            .collect();
        let attached: Vec<(ContainerName, AttachAddr)> = applied
            .attached
            .iter()
            .flat_map(BTreeMap::keys)
            .filter(|key| !addrs.contains(key))
            .cloned()
            .collect();
        for key in attached {
            if let Err(error) = self.detach(applied, &key).await {
                outcome.releases.insert(key.0, error);
            }
        }
        let claims: BTreeSet<&String> = wanted
            .iter()
            .flat_map(|container| container.claims.keys())
            .collect();
        let mut stale: BTreeSet<String> = applied.claims.keys().cloned().collect();
        stale.extend(self.view().records.claim_keys_of(self.me).cloned());
        for key in stale.into_iter().filter(|key| !claims.contains(key)) {
            match self.discovery.retract(&key).await {
                Ok(()) => {
                    applied.claims.remove(&key);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
        applied
            .lost
            .retain(|(name, addr)| addrs.contains(&(name.clone(), AttachAddr::Application(*addr))));
    }

    async fn detach(&self, applied: &mut Applied, key: &(ContainerName, AttachAddr)) -> Result<()> {
        self.overlay.detach(&key.0, key.1).await?;
        if let Some(attached) = &mut applied.attached {
            attached.remove(key);
        }
        Ok(())
    }

    /// Claims a container's addresses, gives it those that it holds, and registers what it provides there.
    async fn hold(&self, applied: &mut Applied, container: &Wanted) -> Result<()> {
        for (key, claim) in &container.claims {
            let value = record::encode(claim)?;
            if applied.claims.get(key) != Some(&Some(value.clone())) {
                applied.claims.insert(key.clone(), None);
                let spread = self.discovery.publish(key, value.clone()).await?;
                if !spread.unconfirmed.is_empty() {
                    tracing::debug!(?spread.unconfirmed, key, "a claim is not yet confirmed by all");
                }
                applied.claims.insert(key.clone(), Some(value));
            }
            let attach = (container.name.clone(), AttachAddr::Application(claim.addr));
            let winner = self.view().records.older_than(claim).cloned();
            if let Some(winner) = winner {
                self.give_way(applied, container, claim, &winner, &attach)
                    .await?;
                continue;
            }
            applied.lost.remove(&(container.name.clone(), claim.addr));
            let present = applied
                .attached
                .as_ref()
                .and_then(|attached| attached.get(&attach));
            if present != Some(&Some(container.namespace.clone())) {
                let attachment =
                    Attachment::new(attach.0.clone(), container.namespace.clone(), attach.1);
                if let Some(attached) = &mut applied.attached {
                    attached.insert(attach.clone(), None);
                    self.overlay.attach(&attachment).await?;
                    attached.insert(attach, Some(container.namespace.clone()));
                }
            }
        }
        if container.state != ContainerState::Running {
            return Ok(());
        }
        for (id, instance) in &container.instances {
            let lost = applied
                .lost
                .iter()
                .any(|(name, addr)| *name == container.name && addr.ip() == instance.ip);
            if !lost && applied.instances.get(id) != Some(&Some(instance.clone())) {
                applied.instances.insert(id.clone(), None);
                self.discovery.register(instance.clone()).await?;
                applied.instances.insert(id.clone(), Some(instance.clone()));
            }
        }
        Ok(())
    }

    async fn give_way(
        &self,
        applied: &mut Applied,
        container: &Wanted,
        claim: &Claim,
        winner: &Claim,
        attach: &(ContainerName, AttachAddr),
    ) -> Result<()> {
        for id in container
            .instances
            .values()
            .filter(|instance| instance.ip == claim.addr.ip())
            .map(|instance| &instance.id)
        {
            self.discovery.deregister(id).await?;
            applied.instances.remove(id);
        }
        self.detach(applied, attach).await?;
        if applied.lost.insert((container.name.clone(), claim.addr)) {
            self.emit(ClusterEvent::AddressLost {
                container: container.name.clone(),
                addr: claim.addr,
                to: winner.node,
            });
        }
        Ok(())
    }

    /// Carries networks on: every node that admits others keeps a copy, so that none goes with its maker.
    async fn reconcile_networks(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if applied.networks_carried {
            return;
        }
        let carried = {
            let view = self.view();
            let me = view.members.get(&self.me);
            match me.is_some_and(|me| me.role.admits()) {
                true => view.network_records(),
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
