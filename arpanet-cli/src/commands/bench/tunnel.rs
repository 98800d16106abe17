//! arpanet2's tunnel between the first two hosts, with nothing else around it: what stands beside other tunnels.

use std::fmt;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use arpanet_wireguard::tunnel::{
    PeerConfig, PrivateKey, PublicKey, Tunnel as _, UserTunnel, UserTunnelConfig,
};
use ipnet::Ipv4Net;

use super::hosts::Hosts;
use super::peer::{Outcome, Path, Peer, PeerKind, Why};

/// The link.
const LINK: &str = "bench-tunnel";
/// The UDP port, on both hosts.
const PORT: u16 = 51_998;

/// On the first two hosts, in this process.
pub(super) struct Tunnel {
    hosts: Arc<Hosts>,
    ends: Mutex<Vec<UserTunnel>>,
}

impl Tunnel {
    pub(super) fn new(hosts: Arc<Hosts>) -> Self {
        Self {
            hosts,
            ends: Mutex::default(),
        }
    }

    /// Starts one end, and tells it of the other.
    fn launch(&self, host: u8, key: PrivateKey, other: u8, peer: PublicKey) -> Outcome<UserTunnel> {
        let namespace = self.hosts.namespace(host)?;
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT));
        let socket = namespace.run(bind)??;
        let config = UserTunnelConfig::new(key, socket, namespace.clone())
            .device(LINK)
            .spread(namespace.clone());
        let tunnel = UserTunnel::launch(config)?;
        let at = (Hosts::ip(other), PORT).into();
        tunnel.set_peer(PeerConfig::new(peer, Some(at), vec![ip(other).into()]))?;
        let address = Ipv4Net::new(ip(host), 24).map_err(|error| Why::failed(error.to_string()))?;
        self.hosts.wait(async {
            let netlink = namespace.handle()?;
            netlink.add_address(LINK, address).await?;
            netlink.set_up(LINK, true).await
        })?;
        Ok(tunnel)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// An end's address inside.
const fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 97, host)
}

impl Peer for Tunnel {
    fn kind(&self) -> PeerKind {
        PeerKind::Tunnel
    }

    fn version(&self) -> Outcome<String> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn settle(&self) -> Outcome<()> {
        let (one, two) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let (first, second) = (one.public_key(), two.public_key());
        let ends = vec![
            self.launch(1, one, 2, second)?,
            self.launch(2, two, 1, first)?,
        ];
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
        Ok(())
    }

    fn leave(&self) -> Outcome<()> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.clear();
        for host in [1, 2] {
            let namespace = self.hosts.namespace(host)?;
            self.hosts
                .wait(async { namespace.handle()?.delete_link(LINK).await })?;
        }
        Ok(())
    }

    fn path(&self) -> Outcome<Path> {
        self.hosts.path(ip(2))
    }
}
