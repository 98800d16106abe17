//! Addresses that are held before a container has them, as docker's address management wants it.
//!
//! A reservation is a claim of this node under a name that stands for no container. The container that shows up with the
//! address claims it, too, at the same age, and is not in the reservation's way.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::reconcile::{Applied, Outcome};
use super::view::View;
use super::{Cluster, Node, record};
use crate::runtime::NetRequest;
use crate::{AppAddr, AppNet, Claim, ContainerName, Error, ErrorKind, NodeAddr, Result};

/// What claims of reserved addresses are for.
const RESERVED: &str = "reserved";

/// Whether a claim is a reservation of this node.
fn is_reservation(me: NodeAddr, claim: &Claim) -> bool {
    claim.node == me && claim.container.as_str() == RESERVED
}

/// Whether a record's key is that of a reservation.
pub(super) fn is_reserved(key: &str) -> bool {
    key.rsplit('/').next() == Some(RESERVED)
}

impl View {
    /// The reservations that an earlier process made, and that came back with this node's records.
    pub(super) fn adopt_reservations(&mut self, me: NodeAddr) {
        let earlier: Vec<(AppAddr, u64)> = self
            .records
            .claims_of(me)
            .filter(|(_, claim)| is_reservation(me, claim))
            .map(|(_, claim)| (claim.addr, claim.epoch))
            .collect();
        self.holdings.reserved.extend(earlier);
    }

    /// The record keys of all reservations.
    pub(super) fn reserved_keys(&self) -> BTreeSet<String> {
        let name: Option<ContainerName> = RESERVED.parse().ok();
        self.holdings
            .reserved
            .keys()
            .zip(name.iter().cycle())
            .map(|(addr, name)| record::claim_key(addr.ip(), name))
            .collect()
    }

    /// The older claim that this one loses its address to; what was reserved for it is none.
    pub(super) fn winner_over(&self, claim: &Claim) -> Option<Claim> {
        let winner = self.records.older_than(claim)?;
        let own = is_reservation(claim.node, winner)
            && self.holdings.reserved.get(&claim.addr) == Some(&winner.epoch);
        (!own).then(|| winner.clone())
    }

    /// Notes which addresses containers of this host have, for a process that comes up while the runtime does not answer.
    pub(super) fn note_kept(&mut self) {
        if self.containers_known {
            let kept = self.containers.values();
            let kept = kept.flat_map(|container| super::given::addresses(&container.spec));
            self.holdings.kept = kept.map(|(addr, _)| addr).collect();
        }
    }

    /// Addresses that must not be picked: claimed by anybody, reserved, or kept for a container that ended here.
    pub(super) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        let mut taken = self.records.taken();
        taken.extend(self.picked());
        taken.extend(self.holdings.reserved.keys().map(|addr| addr.ip()));
        for container in self.containers.values() {
            let kept = super::given::addresses(&container.spec);
            taken.extend(kept.into_iter().map(|(addr, _)| addr.ip()));
        }
        if !self.containers_known {
            taken.extend(self.holdings.kept.iter().map(|addr| addr.ip()));
        }
        taken
    }
}

impl Cluster {
    /// Holds an address of a network for a container that is to come: this one, or any free one. It is this node's in the
    /// whole cluster until [`release`](Self::release), and passes to the container of this node that shows up with it. One
    /// that is held already is held again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another container has it, or the network overlaps another, which is named;
    /// [`ErrorKind::Exhausted`] when the network is full; those of the layers. Nothing is held then.
    pub async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr> {
        let node = &self.node;
        let request = match ip {
            None => NetRequest::Net(net),
            Some(ip) => NetRequest::Addr(net.addr(ip)?),
        };
        let _turn = node.attaching.lock().await;
        if let NetRequest::Net(net) = &request {
            node.view().check_apart(*net)?;
            node.space(*net).await?;
        }
        let (addr, fresh) = {
            let mut view = node.view();
            view.check_apart(net)?;
            match &request {
                NetRequest::Addr(addr) if view.holdings.reserved.contains_key(addr) => {
                    (*addr, false)
                }
                request => {
                    let addr = view.place_reserved(node.me, request)?;
                    let epoch = view.age_of(node.me, addr);
                    view.holdings.reserved.insert(addr, epoch);
                    view.settled([addr.ip()]);
                    (addr, true)
                }
            }
        };
        let mut outcome = node.reconcile().await;
        let kept = node.keep_holdings().await;
        let failed = outcome.reserved.remove(&addr).or(kept.err());
        let failed = failed.or_else(|| node.view().lost_reservation(node.me, addr));
        match failed {
            None => Ok(addr),
            Some(error) => {
                if fresh {
                    node.give_back(addr).await;
                }
                Err(error)
            }
        }
    }

    /// Gives a reserved address back. A container that has it keeps it. A second call does nothing.
    ///
    /// # Errors
    /// Those of [`Discovery::retract`](crate::Discovery::retract); it is given back as soon as that works then.
    pub async fn release(&self, addr: AppAddr) -> Result<()> {
        let node = &self.node;
        let _turn = node.attaching.lock().await;
        let outcome = node.give_back(addr).await;
        outcome.rest.into_iter().next().map_or(Ok(()), Err)
    }

    /// A /16 that no network and no container is in.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] when there is none.
    pub fn free_network(&self) -> Result<AppNet> {
        self.node.view().free_network()
    }

    /// Refuses a network that a container of another node is in.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], naming one.
    pub fn require_unused_elsewhere(&self, net: AppNet) -> Result<()> {
        let view = self.node.view();
        let other = view
            .records
            .claims()
            .find(|claim| claim.node != self.node.me && net.contains(claim.addr.ip()));
        match other {
            None => Ok(()),
            Some(claim) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the network {net} is used by {} on node {}",
                    claim.container, claim.node
                ),
            )
            .with_hint("remove that container first")),
        }
    }

    /// Refuses a network that shares addresses with another of the cluster, which has a name or a container. The same
    /// network is no other.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], naming it.
    pub fn require_apart(&self, net: AppNet) -> Result<()> {
        self.node.view().check_apart(net)
    }

    /// The addresses that are held for containers to come, or that came.
    #[must_use]
    pub fn reserved(&self) -> Vec<AppAddr> {
        self.node.view().holdings.reserved.keys().copied().collect()
    }
}

impl View {
    fn place_reserved(&mut self, me: NodeAddr, request: &NetRequest) -> Result<AppAddr> {
        // A container that is there already, and had it before this node's process came up; as far as the runtime has said.
        if let NetRequest::Addr(addr) = request
            && let Some(holder) = self.records.holder(addr.ip())
            && holder.node == me
            && (!self.containers_known
                || self
                    .containers
                    .get(&holder.container)
                    .is_some_and(|container| Cluster::addresses(container).contains(addr)))
        {
            return Ok(*addr);
        }
        let name: ContainerName = RESERVED.parse()?;
        let taken = self.taken();
        self.place(me, &name, request, &taken)
    }

    /// As old as the claim of the container that has it already.
    fn age_of(&self, me: NodeAddr, addr: AppAddr) -> u64 {
        let own = self.records.holder(addr.ip());
        let own = own.filter(|claim| claim.node == me);
        own.map_or_else(|| self.records.next_epoch(), |claim| claim.epoch)
    }

    fn lost_reservation(&self, me: NodeAddr, addr: AppAddr) -> Option<Error> {
        let claim = Claim::new(
            addr,
            me,
            RESERVED.parse().ok()?,
            self.holdings.reserved.get(&addr).copied()?,
        );
        let winner = self.records.older_than(&claim)?;
        (winner.node != me).then(|| {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "the address {} is held by {} on node {}",
                    addr.ip(),
                    winner.container,
                    winner.node
                ),
            )
            .with_hint("choose another address, or name only the network")
        })
    }
}

impl Node {
    pub(super) async fn keep_holdings(&self) -> Result<()> {
        let holdings = self.view().holdings.clone();
        // A node that comes up keeps it the next time; until then its maker holds it again.
        self.save_holdings(&holdings).await.map(|_| ())
    }

    async fn give_back(&self, addr: AppAddr) -> Outcome {
        self.view().holdings.reserved.remove(&addr);
        let mut outcome = self.reconcile().await;
        outcome.rest.extend(self.keep_holdings().await.err());
        if !outcome.is_clean() {
            // The task tries again.
            self.kick.notify_one();
        }
        outcome
    }

    /// Claims what is reserved.
    pub(super) async fn hold_reserved(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let Ok(name) = RESERVED.parse::<ContainerName>() else {
            return;
        };
        let reserved: Vec<(AppAddr, u64)> = {
            let view = self.view();
            let reserved = view.holdings.reserved.iter();
            reserved.map(|(addr, epoch)| (*addr, *epoch)).collect()
        };
        for (addr, epoch) in reserved {
            let key = record::claim_key(addr.ip(), &name);
            let claim = Claim::new(addr, self.me, name.clone(), epoch);
            if let Err(error) = self.claim(applied, &key, &claim).await {
                outcome.reserved.insert(addr, error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::admission::{Password, Seed};
    use crate::memory::World;
    use crate::roster::Role;
    use crate::runtime::ContainerSpec;
    use crate::{AppAddr, Cluster, ErrorKind, NodeAddr};

    fn node(world: &World, addr: &str) -> Cluster {
        let addr: NodeAddr = addr.parse().unwrap();
        Cluster::builder()
            .node(addr)
            .overlay(Arc::new(world.overlay(addr)))
            .discovery(Arc::new(world.discovery(addr)))
            .runtime(Arc::new(world.runtime(addr)))
            .admission(Arc::new(world.admission(addr)))
            .build()
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn reserved_addresses_are_given_once_and_only_what_is_free() {
        let world = World::new(1);
        let (one, two) = (node(&world, "0.1"), node(&world, "0.2"));
        let password = Password::new("Apples").unwrap();
        one.boot(&password).await.unwrap();
        let seed = Seed::new(one.me(), world.endpoint("0.1"));
        two.join(&password, Role::Server, seed, false)
            .await
            .unwrap();
        world.settle().await;
        let held: AppAddr = "10.1.0.5/16".parse().unwrap();
        two.run(&ContainerSpec::command(["httpd"]).addr(held))
            .await
            .unwrap();
        world.settle().await;

        let net = held.net().unwrap();
        let refused = one.reserve(net, Some(held.ip())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("0.2"), "{refused}");
        // Its own container's is asked for again when that is restarted.
        assert_eq!(two.reserve(net, Some(held.ip())).await.unwrap(), held);
        let first = one.reserve(net, None).await.unwrap();
        let second = one.reserve(net, None).await.unwrap();
        assert_ne!(first, second);
        one.release(first).await.unwrap();
        assert_eq!(one.reserve(net, None).await.unwrap(), first);
        let outside = one.reserve(net, Some("10.2.0.5".parse().unwrap())).await;
        assert_eq!(outside.unwrap_err().kind(), ErrorKind::InvalidInput);

        let crossing = one.require_apart("10.1.7.0/24".parse().unwrap());
        assert_eq!(crossing.unwrap_err().kind(), ErrorKind::Conflict);
        one.require_apart(net).unwrap();
        let used = one.require_unused_elsewhere(net).unwrap_err();
        assert_eq!(used.kind(), ErrorKind::Conflict);
        // What is held for a container to come uses it, too.
        world.settle().await;
        two.require_unused_elsewhere(net).unwrap_err();
        for addr in [first, second] {
            one.release(addr).await.unwrap();
        }
        world.settle().await;
        two.require_unused_elsewhere(net).unwrap();
        assert!(!one.free_network().unwrap().overlaps(net));
    }
}
