//! Where a packet on the simulated overlay gets to, and what stops it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::network::HostIndex;
use super::router::ip_of;
use super::state::State;
use crate::overlay::AttachAddr;
use crate::{AppNet, ContainerName, Error, ErrorKind, NodeAddr, Plane, Result};

/// Whose rules a packet is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// A host or a plugin.
    System,
    /// A /8 container.
    Wide,
    /// A container of one network.
    Confined(AppNet),
}

fn reach(addr: AttachAddr) -> Reach {
    match addr {
        AttachAddr::Application(addr) => addr.net().map_or(Reach::Wide, Reach::Confined),
        AttachAddr::Plugin(_) => Reach::System,
    }
}

fn refused(to: Ipv4Addr, why: &str) -> Error {
    let message = format!("{to} is prohibited: {why}");
    Error::new(ErrorKind::PermissionDenied, message)
}

fn silent(to: Ipv4Addr, why: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer from {to}: {why}"))
}

fn no_route(to: Ipv4Addr) -> Error {
    Error::new(ErrorKind::NotFound, format!("nobody has {to}"))
}

impl State {
    /// The round trip of one packet and its answer, and between which hosts it goes.
    pub(super) fn trace(
        &self,
        host: HostIndex,
        container: Option<&ContainerName>,
        to: Ipv4Addr,
    ) -> Result<(HostIndex, Duration)> {
        let node = self.node_of(host);
        let (from, source) = match container {
            None => (node.overlay(), Reach::System),
            Some(container) => self.source(host, node, container, to)?,
        };
        let system = NodeAddr::owner_of(to);
        match source {
            Reach::Confined(net) if !net.contains(to) => {
                let why = format!("it is outside of {net}");
                return Err(refused(to, &why));
            }
            _ => {}
        }
        let target = self.route(host, node, system, to)?;
        self.arrive(target, host, (from, source), system, to)?;
        Ok((target, self.network.delay(host, target) * 2))
    }

    fn node_of(&self, host: HostIndex) -> NodeAddr {
        self.overlay(host)
            .map_or(self.hosts[host].label, |overlay| overlay.node)
    }

    fn source(
        &self,
        host: HostIndex,
        node: NodeAddr,
        container: &ContainerName,
        to: Ipv4Addr,
    ) -> Result<(Ipv4Addr, Reach)> {
        let own = || {
            self.hosts[host]
                .router
                .attached()
                .iter()
                .filter(|attached| attached.container == *container)
                .map(|attached| (ip_of(node, attached.addr), reach(attached.addr)))
        };
        own()
            .find(|(_, reach)| matches!(reach, Reach::Confined(net) if net.contains(to)))
            .or_else(|| own().find(|(_, reach)| !matches!(reach, Reach::Confined(_))))
            .or_else(|| own().next())
            .ok_or_else(|| {
                let message = format!("{container} has no address on the overlay");
                Error::new(ErrorKind::NotFound, message)
            })
    }

    /// The host that a packet to this address is sent to.
    fn route(
        &self,
        host: HostIndex,
        node: NodeAddr,
        system: Option<(NodeAddr, Plane)>,
        to: Ipv4Addr,
    ) -> Result<HostIndex> {
        let here = match system {
            Some((owner, _)) => owner == node,
            None => self.attachment(host, node, to).is_some(),
        };
        if here {
            return Ok(host);
        }
        let overlay = self
            .overlay(host)
            .ok_or_else(|| silent(to, "this node is not on the overlay"))?;
        let peer = match system {
            Some((owner, _)) => overlay.peers.contains_key(&owner).then_some(owner),
            None => overlay
                .peers
                .values()
                .find(|wish| wish.spec.holds.iter().any(|held| held.ip() == to))
                .map(|wish| wish.spec.node),
        };
        let peer = peer.ok_or_else(|| no_route(to))?;
        match self.tunnel(host, peer) {
            Some((target, _)) => Ok(target),
            None => Err(silent(to, "its node is out of reach")),
        }
    }

    fn attachment(&self, host: HostIndex, node: NodeAddr, ip: Ipv4Addr) -> Option<AttachAddr> {
        self.hosts[host]
            .router
            .attached()
            .iter()
            .map(|attached| attached.addr)
            .find(|addr| ip_of(node, *addr) == ip)
    }

    /// What the target's router does with it.
    fn arrive(
        &self,
        host: HostIndex,
        sender: HostIndex,
        (from, source): (Ipv4Addr, Reach),
        system: Option<(NodeAddr, Plane)>,
        to: Ipv4Addr,
    ) -> Result<()> {
        let node = self.node_of(host);
        let sender_node = self.node_of(sender);
        if host != sender {
            let overlay = self
                .overlay(host)
                .ok_or_else(|| silent(to, "its node is not on the overlay"))?;
            let held = match NodeAddr::owner_of(from) {
                Some((owner, _)) => owner == sender_node,
                None => overlay
                    .peers
                    .get(&sender_node)
                    .is_some_and(|wish| wish.spec.holds.iter().any(|held| held.ip() == from)),
            };
            if !held {
                return Err(silent(to, "its node does not route to us"));
            }
            if source == Reach::Wide && !overlay.wide.contains(&from) {
                return Err(refused(to, "its node does not let us through"));
            }
        }
        match system {
            Some((_, Plane::Overlay)) => Ok(()),
            Some((_, plane)) => {
                let exposed = self
                    .overlay(host)
                    .is_some_and(|overlay| overlay.exposed.contains(&plane));
                if exposed || self.attachment(host, node, to).is_some() {
                    return Ok(());
                }
                Err(no_route(to))
            }
            None => {
                let target = self
                    .attachment(host, node, to)
                    .ok_or_else(|| silent(to, "no container there has it"))?;
                match (source, reach(target)) {
                    (Reach::Confined(net), Reach::Confined(other)) if net == other => Ok(()),
                    (Reach::System | Reach::Wide, Reach::Wide) => Ok(()),
                    _ => Err(silent(to, "it can't answer beyond its network")),
                }
            }
        }
    }
}
