use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::DockerConfig;

/// The DNS that containers are created with, where their creator names none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerDns {
    /// For containers that will have an address of the overlay: the router's own, usually.
    pub attached: Vec<Ipv4Addr>,
    /// For all others: a server on the engine's bridge. With none they keep what the engine gives them.
    pub others: Vec<Ipv4Addr>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
}

impl ContainerDns {
    /// With these servers for containers on the overlay.
    #[must_use]
    pub fn attached(mut self, servers: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        self.attached = servers.into_iter().collect();
        self
    }

    /// With these servers for containers that are not on the overlay.
    #[must_use]
    pub fn others(mut self, servers: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        self.others = servers.into_iter().collect();
        self
    }

    /// With these domains for short names.
    #[must_use]
    pub fn search(mut self, domains: impl IntoIterator<Item = String>) -> Self {
        self.search = domains.into_iter().collect();
        self
    }
}

/// How the docker API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DockerApiConfig {
    /// The engine's socket.
    pub engine: PathBuf,
    /// What containers are created with.
    pub dns: ContainerDns,
    /// Who may connect. Only system planes unless changed: 10.241.0.0/16 to 10.255.0.0/16.
    pub allowed: Vec<Ipv4Net>,
}

impl DockerApiConfig {
    /// The API of this engine, for system planes, with no DNS of its own.
    #[must_use]
    pub fn new(engine: &DockerConfig) -> Self {
        let plane = |octet| Ipv4Net::new_assert(Ipv4Addr::new(10, octet, 0, 0), 16);
        Self {
            engine: engine.socket.clone(),
            dns: ContainerDns::default(),
            allowed: (241..=255).map(plane).collect(),
        }
    }

    /// With this DNS for containers.
    #[must_use]
    pub fn dns(mut self, dns: ContainerDns) -> Self {
        self.dns = dns;
        self
    }

    /// For these sources, and no others. Whoever may connect is root on this host.
    #[must_use]
    pub fn allowed(mut self, sources: impl IntoIterator<Item = Ipv4Net>) -> Self {
        self.allowed = sources.into_iter().collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::addr::is_application;
    use arpanet_core::{NodeAddr, Plane};

    use super::*;

    #[test]
    fn lets_system_planes_in_and_nobody_else() {
        let config = DockerApiConfig::new(&DockerConfig::default());
        let allows = |ip: Ipv4Addr| config.allowed.iter().any(|net| net.contains(&ip));
        for octet in 0..=255 {
            let ip = Ipv4Addr::new(10, octet, 2, 12);
            assert_eq!(allows(ip), Plane::of(ip).is_some(), "{ip}");
            assert!(!(allows(ip) && is_application(ip)), "{ip}");
        }
        let node: NodeAddr = "2.12".parse().unwrap();
        assert!(allows(node.overlay()));
        for ip in [
            [169, 254, 1, 1],
            [127, 0, 0, 1],
            [172, 17, 0, 2],
            [192, 168, 8, 120],
        ] {
            assert!(!allows(ip.into()), "{ip:?}");
        }
    }
}
