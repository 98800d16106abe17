//! What the containers of this host hold: claims, addresses, instances; and taking them back.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{self, Wanted};
use super::reconcile::{Applied, Outcome};
use super::{ClusterEvent, Node, record, reserve};
use crate::discovery::Instance;
use crate::overlay::{AttachAddr, Attachment};
use crate::runtime::ContainerState;
use crate::{Claim, ContainerName, InstanceId, Result};

impl Node {
    pub(super) async fn reconcile_containers(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if let Err(error) = self.load_attached(applied).await {
            outcome.rest.push(error);
            return;
        }
        let known = self.runtime.is_none() || self.view().containers_known;
        if !known {
            outcome
                .rest
                .extend(self.keep_inherited(applied).await.err());
        } else if !std::mem::replace(&mut applied.has_begun, true) {
            self.follow_checks(applied);
            self.hear_first().await;
        }
        self.remove_failed(outcome).await;
        let wanted = {
            let view = self.view();
            plan::wanted(
                self.me,
                view.containers.values(),
                |container| view.serves(self.me, container),
                || view.records.next_epoch(),
                |addr, key| {
                    let reserved = view.holdings.reserved.get(&addr).copied();
                    reserved.or_else(|| Some(view.records.claim(self.me, key)?.epoch))
                },
            )
        };
        self.release(applied, &wanted, known, outcome).await;
        self.hold_reserved(applied, outcome).await;
        for container in &wanted {
            if let Err(error) = self.hold(applied, container).await {
                outcome.containers.insert(container.name.clone(), error);
            }
        }
        self.follow_checks(applied);
        self.tell_health(applied);
        if known {
            self.release_resolvers(&wanted, outcome);
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
    /// address, then the claim to it. While it is not known which containers there are, nothing of theirs is taken back.
    async fn release(
        &self,
        applied: &mut Applied,
        wanted: &[Wanted],
        known: bool,
        outcome: &mut Outcome,
    ) {
        if known {
            self.release_instances(applied, wanted, outcome).await;
            self.release_addresses(applied, wanted, outcome).await;
        }
        let mut claims: BTreeSet<String> = self.view().reserved_keys();
        claims.extend(
            wanted
                .iter()
                .flat_map(|container| container.claims.keys().cloned()),
        );
        let mut stale: BTreeSet<String> = applied.claims.keys().cloned().collect();
        stale.extend(self.view().records.claim_keys_of(self.me).cloned());
        stale.retain(|key| known || reserve::is_reserved(key));
        for key in stale.into_iter().filter(|key| !claims.contains(key)) {
            match self.discovery.retract(&key).await {
                Ok(()) => {
                    applied.claims.remove(&key);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
    }

    async fn release_instances(
        &self,
        applied: &mut Applied,
        wanted: &[Wanted],
        outcome: &mut Outcome,
    ) {
        let mut instances: BTreeSet<InstanceId> = wanted
            .iter()
            .flat_map(|container| container.instances.keys().cloned())
            .collect();
        instances.extend(self.view().registered.keys().cloned());
        let stale: Vec<InstanceId> = applied
            .instances
            .keys()
            .filter(|id| !instances.contains(*id))
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
    }

    async fn release_addresses(
        &self,
        applied: &mut Applied,
        wanted: &[Wanted],
        outcome: &mut Outcome,
    ) {
        let addrs: BTreeSet<(ContainerName, AttachAddr)> = wanted
            .iter()
            .flat_map(|container| {
                let addrs = container.attach_addrs();
                addrs.map(|addr| (container.name.clone(), addr))
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
        applied
            .lost
            .retain(|(name, addr)| addrs.contains(&(name.clone(), AttachAddr::Application(*addr))));
    }

    async fn detach(&self, applied: &mut Applied, key: &(ContainerName, AttachAddr)) -> Result<()> {
        self.overlay.detach(&key.0, key.1).await?;
        if let Some(attached) = &mut applied.attached {
            attached.remove(key);
        }
        self.resolving.doubt(&key.0);
        Ok(())
    }

    /// Claims a container's addresses, gives it those that it holds, and registers what it provides there.
    async fn hold(&self, applied: &mut Applied, container: &Wanted) -> Result<()> {
        for (key, claim) in &container.claims {
            self.claim(applied, key, claim).await?;
            let attach = (container.name.clone(), AttachAddr::Application(claim.addr));
            // What is held for a container that was to come is this one's now.
            let winner = self.view().winner_over(claim);
            if let Some(winner) = winner {
                self.give_way(applied, container, claim, &winner, &attach)
                    .await?;
                continue;
            }
            applied.lost.remove(&(container.name.clone(), claim.addr));
            self.attach_at(applied, container, attach.1).await?;
        }
        if let Some(block) = container.plugin {
            self.attach_at(applied, container, AttachAddr::Plugin(block))
                .await?;
        }
        // Told at the end: what it provides is there all the same.
        let resolved = self.resolve(applied, container);
        if container.state != ContainerState::Running {
            return Ok(());
        }
        for instance in container.instances.values() {
            let lost = applied
                .lost
                .iter()
                .any(|(name, addr)| *name == container.name && addr.ip() == instance.ip);
            if !lost {
                self.tell_instance(applied, instance.clone()).await?;
            }
        }
        resolved
    }

    /// Registers an instance as it is, unless that is done.
    pub(super) async fn tell_instance(
        &self,
        applied: &mut Applied,
        instance: Instance,
    ) -> Result<()> {
        let id = instance.id.clone();
        if applied.instances.get(&id) == Some(&Some(instance.clone())) {
            return Ok(());
        }
        applied.instances.insert(id.clone(), None);
        self.discovery.register(instance.clone()).await?;
        applied.instances.insert(id, Some(instance));
        Ok(())
    }

    /// Publishes a claim, unless that is done.
    pub(super) async fn claim(
        &self,
        applied: &mut Applied,
        key: &str,
        claim: &Claim,
    ) -> Result<()> {
        let value = record::encode(claim)?;
        if applied.claims.get(key) == Some(&Some(value.clone())) {
            return Ok(());
        }
        applied.claims.insert(key.to_owned(), None);
        let spread = self.discovery.publish(key, value.clone()).await?;
        if !spread.unconfirmed.is_empty() {
            tracing::debug!(?spread.unconfirmed, key, "a claim is not yet confirmed by all");
        }
        applied.claims.insert(key.to_owned(), Some(value));
        Ok(())
    }

    /// Gives a container an address in its namespace, unless that is done.
    async fn attach_at(
        &self,
        applied: &mut Applied,
        container: &Wanted,
        addr: AttachAddr,
    ) -> Result<()> {
        let Some(attached) = &mut applied.attached else {
            return Ok(());
        };
        let key = (container.name.clone(), addr);
        let namespace = Some(container.namespace.clone());
        if attached.get(&key) == Some(&namespace) {
            return Ok(());
        }
        attached.insert(key.clone(), None);
        let attachment = Attachment::new(container.name.clone(), container.namespace.clone(), addr);
        self.overlay.attach(&attachment).await?;
        attached.insert(key, namespace);
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
}
