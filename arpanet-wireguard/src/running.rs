//! The overlay while it runs: its peers, in the router and in the tunnel, and how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, PeerSpec, PeerState, PeerStatus};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use arpanet_router::{Peers, Router, Session};
use async_trait::async_trait;
use tokio::time::{Instant, interval_at};

use crate::side::SidePort;
use crate::tunnel::{PeerConfig, PublicKey, Tunnel};

/// How often somebody who waits for a peer has another handshake tried.
const AGAIN: Duration = Duration::from_millis(500);

/// A launched overlay.
#[derive(Debug)]
pub struct Running {
    pub(crate) membership: Membership,
    pub(crate) announcement: Announcement,
    pub(crate) router: Router,
    pub(crate) tunnel: Arc<dyn Tunnel>,
    pub(crate) side: Arc<SidePort>,
    pub(crate) peers: Peers<Peer>,
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    key: PublicKey,
    endpoint: Option<SocketAddr>,
}

#[async_trait]
impl Session for Running {
    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn router(&self) -> &Router {
        &self.router
    }

    fn announcement(&self) -> Announcement {
        self.announcement.clone()
    }

    async fn mend(&self, _: &Membership, mtu: u16) -> Result<()> {
        self.router.mend(mtu).await
    }

    async fn connect(&self, spec: PeerSpec) -> Result<()> {
        let key: [u8; 32] = spec.announcement.0[..].try_into().map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the announcement of node {} is no WireGuard key: it has {} bytes, not 32",
                    spec.node,
                    spec.announcement.0.len()
                ),
            )
        })?;
        if spec.node == self.membership.me.node {
            return Ok(());
        }
        let key = PublicKey::from_bytes(key);
        let addresses: BTreeSet<Ipv4Addr> = self.router.set_peer(spec.node, &spec.holds).await?;
        let before = self.peers.get(spec.node);
        if let Some(old) = before.as_ref().filter(|old| old.key != key) {
            self.tunnel.remove_peer(&old.key)?;
        }
        let allowed = addresses.into_iter().map(Into::into).collect();
        self.tunnel
            .set_peer(PeerConfig::new(key, spec.endpoint, allowed))?;
        let is_new = before
            .as_ref()
            .is_none_or(|old| old.key != key || old.endpoint != spec.endpoint);
        let peer = Peer {
            key,
            endpoint: spec.endpoint,
        };
        self.peers.set(spec.node, peer);
        if is_new {
            // The peer may not know this node's key yet; then its own first handshake is the one that is answered.
            self.tunnel.nudge(&key)?;
        }
        Ok(())
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        match self.peers.get(node) {
            Some(peer) => self.tunnel.nudge(&peer.key),
            None => Ok(()),
        }
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        if let Some(peer) = self.peers.remove(node) {
            self.tunnel.remove_peer(&peer.key)?;
        }
        self.router.remove_peer(node).await
    }

    async fn peers(&self) -> Vec<PeerStatus> {
        let sessions: BTreeMap<PublicKey, _> = self
            .tunnel
            .peers()
            .into_iter()
            .map(|status| (status.public_key, status))
            .collect();
        let peers = self.peers.all().into_iter();
        peers
            .map(|(node, (peer, answers))| {
                let session = sessions.get(&peer.key);
                let last_handshake = session.and_then(|session| session.last_handshake);
                let up = last_handshake.is_some() && !answers.is_lost();
                let state = if up {
                    PeerState::Up
                } else {
                    PeerState::Connecting
                };
                let mut status = PeerStatus::new(node, state);
                status.endpoint = session
                    .and_then(|session| session.endpoint)
                    .or(peer.endpoint);
                status.last_handshake = last_handshake;
                status.round_trip = answers.round_trip().filter(|_| up);
                status
            })
            .collect()
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let key = self.peers.require(node)?.key;
        let handshakes = async {
            let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
            loop {
                again.tick().await;
                if let Err(error) = self.tunnel.nudge(&key) {
                    return error;
                }
            }
        };
        if self.peers.wait(node, limit, handshakes).await? {
            return Ok(());
        }
        let session = self
            .tunnel
            .peers()
            .into_iter()
            .find(|status| status.public_key == key);
        let at = session
            .as_ref()
            .and_then(|session| session.endpoint)
            .map_or_else(|| "an unknown endpoint".to_owned(), |at| at.to_string());
        let error = match session.and_then(|session| session.last_handshake) {
            None => Error::new(
                ErrorKind::Timeout,
                format!("no WireGuard handshake with node {node} at {at} in {limit:?}"),
            )
            .with_hint(format!(
                "UDP has to pass both ways between this host and {at}"
            )),
            Some(_) => Error::new(
                ErrorKind::Timeout,
                format!(
                    "the tunnel to node {node} at {at} is up, but {} did not answer in {limit:?}",
                    node.overlay()
                ),
            )
            .with_hint("does a firewall of that host drop ICMP on arpanet0?"),
        };
        Err(error)
    }

    async fn tend(&self) {
        for (peer, answers) in self.peers.measure().await {
            if answers.is_newly_silent() {
                // A session of which the other side knows nothing lives for 15 s, unless another is agreed on.
                let _ = self.tunnel.nudge(&peer.key);
            }
        }
    }

    async fn stop(&self) -> Result<()> {
        self.side.set(None);
        let tunnel = Arc::clone(&self.tunnel);
        // It joins threads.
        tokio::task::spawn_blocking(move || tunnel.stop())
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "stopping the tunnel failed").with_source(error)
            })?
    }
}
