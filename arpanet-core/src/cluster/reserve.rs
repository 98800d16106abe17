//! Addresses and networks for containers that an engine is about to make.

use std::net::Ipv4Addr;

use super::{Cluster, address};
use crate::{AppAddr, AppNet, Error, ErrorKind, Result};

impl Cluster {
    /// Keeps an address for a container of this node that is not there yet: this one, or any free one of the network. Once
    /// the container runs, it is claimed as every other. The same address again is kept once; the end of this process lets
    /// go of it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a container of another node has the address, which is named, or the network overlaps
    /// another; [`ErrorKind::InvalidInput`] for an address outside the network; [`ErrorKind::Exhausted`] when the network is
    /// full.
    pub async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr> {
        let node = &self.node;
        let mut view = node.view();
        view.check_apart(net)?;
        let addr = match ip {
            None => {
                let mut taken = view.records.taken();
                taken.extend(&view.reserved);
                address::pick(net, node.me, |ip| taken.contains(&ip))?
            }
            Some(ip) => {
                if let Some(holder) = view
                    .records
                    .holder(ip)
                    .filter(|holder| holder.node != node.me)
                {
                    let message = format!(
                        "the address {ip} is held by {} on node {}",
                        holder.container, holder.node
                    );
                    return Err(Error::new(ErrorKind::Conflict, message)
                        .with_hint("choose another address, or name only the network"));
                }
                address::within(net, ip)?
            }
        };
        view.reserved.insert(addr.ip());
        Ok(addr)
    }

    /// Lets go of an address that was [reserved](Self::reserve). A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    pub async fn release(&self, addr: AppAddr) -> Result<()> {
        self.node.view().reserved.remove(&addr.ip());
        Ok(())
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
        two.require_unused_elsewhere(net).unwrap();
        assert!(!one.free_network().unwrap().overlaps(net));
    }
}
