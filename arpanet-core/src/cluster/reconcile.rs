//! Making the layers below agree with what is known, whenever something changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::plan::{self, Wanted};
use super::{ClusterEvent, Node, record};
use crate::claim::Holders;
use crate::discovery::{Instance, MemberState};
use crate::overlay::{AttachAddr, Attachment, NetNamespace, PeerSpec};
use crate::roster::Roster;
use crate::runtime::ContainerState;
use crate::{AppAddr, Claim, ContainerName, Error, InstanceId, NodeAddr, Result};

/// What the layers below have been told since this node came up. A `None` stands for what may be there, in whole or in
/// part: a call that failed may have had its effect, so it is taken back like one that did not.
#[derive(Debug, Default)]
pub(super) struct Applied {
    peers: BTreeMap<NodeAddr, PeerSpec>,
    states: BTreeMap<NodeAddr, MemberState>,
    wide: Vec<AppAddr>,
    /// `None` until the overlay was asked what an earlier process left.
    attached: Option<BTreeMap<(ContainerName, AttachAddr), Option<NetNamespace>>>,
    claims: BTreeMap<String, Option<Bytes>>,
    instances: BTreeMap<InstanceId, Option<Instance>>,
    lost: BTreeSet<(ContainerName, AppAddr)>,
    networks: BTreeMap<String, Bytes>,
    roster: Roster,
}

/// What went wrong, container by container, and elsewhere.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) containers: BTreeMap<ContainerName, Error>,
    pub(super) rest: Vec<Error>,
}

impl Outcome {
    fn note(&mut self, outcome: Result<()>) {
        self.rest.extend(outcome.err());
    }

    pub(super) fn is_clean(&self) -> bool {
        self.containers.is_empty() && self.rest.is_empty()
    }
}

impl Node {
    /// Makes the layers below agree with the view. One at a time; what failed is told, and the rest goes on.
    pub(super) async fn reconcile(&self) -> Outcome {
        let mut applied = self.applied.lock().await;
        let mut outcome = Outcome::default();
        self.reconcile_peers(&mut applied, &mut outcome).await;
        self.reconcile_containers(&mut applied, &mut outcome).await;
        self.reconcile_networks(&mut applied, &mut outcome).await;
        outcome
    }

    async fn reconcile_peers(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let announced = self.overlay.capabilities().announcements;
        let (peers, wide, states) = {
            let view = self.view();
            let states: BTreeMap<NodeAddr, MemberState> = view
                .members
                .values()
                .map(|member| (member.node, member.state))
                .collect();
            let holders = view.holders();
            let wide: Vec<AppAddr> = holders
                .winners()
                .map(|claim| claim.addr)
                .filter(|addr| addr.net().is_none())
                .collect();
            (view.peers(self.me, announced, &holders), wide, states)
        };
        for (node, peer) in &peers {
            if applied.peers.get(node) == Some(peer) {
                continue;
            }
            match self.overlay.connect(peer.clone()).await {
                Ok(()) => {
                    applied.peers.insert(*node, peer.clone());
                }
                Err(error) => outcome
                    .rest
                    .push(error.context(format!("could not connect to node {node}"))),
            }
        }
        let gone: Vec<NodeAddr> = applied
            .peers
            .keys()
            .filter(|node| !peers.contains_key(node))
            .copied()
            .collect();
        for node in gone {
            match self.overlay.forget(node).await {
                Ok(()) => {
                    applied.peers.remove(&node);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
        for (node, state) in &states {
            let before = applied.states.insert(*node, *state);
            if before == Some(*state) || *node == self.me {
                continue;
            }
            self.emit(ClusterEvent::Member {
                node: *node,
                state: *state,
            });
            if *state == MemberState::Alive && before == Some(MemberState::Down) {
                outcome.note(self.overlay.nudge(*node).await);
            }
        }
        applied.states.retain(|node, _| states.contains_key(node));
        if applied.wide != wide {
            match self.overlay.allow_wide(&wide).await {
                Ok(()) => applied.wide = wide,
                Err(error) => outcome.rest.push(error),
            }
        }
        self.connected
            .send_replace(applied.peers.keys().copied().collect());
        self.keep_roster(applied, outcome).await;
    }

    /// A changed roster is kept at once: it is what brings the node back.
    async fn keep_roster(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let Ok(roster) = self.discovery.roster().await else {
            return;
        };
        if roster == applied.roster {
            return;
        }
        match self.save_roster(&roster).await {
            Ok(true) => applied.roster = roster,
            Ok(false) => {}
            Err(error) => outcome
                .rest
                .push(error.context("could not keep the roster")),
        }
    }

    async fn reconcile_containers(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let (wanted, holders) = {
            let view = self.view();
            let wanted = plan::wanted(
                self.me,
                view.containers.values(),
                view.next_epoch(),
                |key| {
                    view.records
                        .get(&(self.me, key.to_owned()))
                        .and_then(|record| record::decode(&record.value))
                },
            );
            (wanted, view.holders())
        };
        if let Err(error) = self.load_attached(applied).await {
            outcome.rest.push(error);
            return;
        }
        self.release(applied, &wanted, outcome).await;
        for container in &wanted {
            if let Err(error) = self.hold(applied, container, &holders).await {
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
            let detached = self.detach(applied, &key).await;
            outcome.note(detached);
        }
        let claims: BTreeSet<&String> = wanted
            .iter()
            .flat_map(|container| container.claims.keys())
            .collect();
        let mut stale: BTreeSet<String> = applied.claims.keys().cloned().collect();
        stale.extend(
            self.view()
                .records
                .keys()
                .filter(|(owner, key)| *owner == self.me && key.starts_with(record::CLAIM))
                .map(|(_, key)| key.clone()),
        );
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
    async fn hold(
        &self,
        applied: &mut Applied,
        container: &Wanted,
        holders: &Holders,
    ) -> Result<()> {
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
            if let Some(winner) = holders.older_than(claim) {
                self.give_way(applied, container, claim, winner, &attach)
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
        let carried = {
            let view = self.view();
            let admits = view
                .members
                .get(&self.me)
                .is_some_and(|me| me.role.admits());
            if admits {
                view.network_records()
            } else {
                BTreeMap::new()
            }
        };
        for (key, value) in carried {
            if applied.networks.get(&key) != Some(&value) {
                match self.discovery.publish(&key, value.clone()).await {
                    Ok(_) => {
                        applied.networks.insert(key, value);
                    }
                    Err(error) => outcome.rest.push(error),
                }
            }
        }
    }
}
