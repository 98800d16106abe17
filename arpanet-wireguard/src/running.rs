//! The overlay while it runs: its peers, in the router and in the tunnel, and how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, PeerSpec, PeerState, PeerStatus};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use arpanet_router::{Peers, Router, Session};
use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval_at};

use crate::announcement::Announced;
use crate::backend::TUNNEL_LINK;
use crate::factory::Launched;
use crate::side::SidePort;
use crate::tunnel::{PeerConfig, PublicKey, Tunnel, remove_kernel_device};

/// How often somebody who waits for a peer has another handshake tried.
const AGAIN: Duration = Duration::from_millis(500);

/// How long peers that an earlier process had may wait to be wanted again.
const STALE: Duration = Duration::from_secs(30);

/// A launched overlay.
#[derive(Debug)]
pub struct Running {
    membership: Membership,
    announcement: Announcement,
    router: Router,
    tunnel: Arc<dyn Tunnel>,
    side: Arc<SidePort>,
    peers: Peers<Peer>,
    /// Held while it changes who is a peer.
    changing: Mutex<()>,
    /// Until when peers of an earlier process may wait.
    patience: Instant,
    has_cleaned: AtomicBool,
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    key: PublicKey,
    endpoint: Option<SocketAddr>,
}

impl Running {
    pub(crate) fn new(
        membership: Membership,
        router: Router,
        launched: Launched,
        side: Arc<SidePort>,
        peers: Peers<Peer>,
    ) -> Self {
        side.set(launched.side_channel);
        let announced = Announced {
            key: launched.public_key,
            port: launched.port,
        };
        Self {
            membership,
            announcement: announced.announce(),
            router,
            tunnel: launched.tunnel,
            side,
            peers,
            changing: Mutex::default(),
            patience: Instant::now() + STALE,
            has_cleaned: AtomicBool::new(false),
        }
    }

    /// Removes the peers that only an earlier process wanted, of which the kernel's WireGuard still has sessions.
    async fn clean(&self) {
        if Instant::now() < self.patience || self.has_cleaned.swap(true, Ordering::Relaxed) {
            return;
        }
        let _changing = self.changing.lock().await;
        let wanted = self.peers.all().into_values();
        let wanted: BTreeSet<PublicKey> = wanted.map(|(peer, _)| peer.key).collect();
        let mut strangers = self.tunnel.peers();
        strangers.retain(|status| !wanted.contains(&status.public_key));
        for stranger in strangers {
            if let Err(error) = self.tunnel.remove_peer(&stranger.public_key) {
                tracing::warn!(%error, "a peer of an earlier start is left");
            }
        }
    }
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
        let announced = Announced::read(spec.node, &spec.announcement)?;
        if spec.node == self.membership.me.node {
            return Ok(());
        }
        let key = announced.key;
        let endpoint = spec.endpoint.map(|node| announced.tunnel_at(node));
        let _changing = self.changing.lock().await;
        let addresses: BTreeSet<Ipv4Addr> = self.router.set_peer(spec.node, &spec.holds).await?;
        let before = self.peers.get(spec.node);
        if let Some(old) = before.as_ref().filter(|old| old.key != key) {
            self.tunnel.remove_peer(&old.key)?;
        }
        let allowed = addresses.into_iter().map(Into::into).collect();
        self.tunnel
            .set_peer(PeerConfig::new(key, endpoint, allowed))?;
        let is_new = before
            .as_ref()
            .is_none_or(|old| old.key != key || old.endpoint != endpoint);
        self.peers.set(spec.node, Peer { key, endpoint });
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
        let _changing = self.changing.lock().await;
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
        self.clean().await;
    }

    async fn stop(&self) -> Result<()> {
        self.side.set(None);
        let tunnel = Arc::clone(&self.tunnel);
        // It joins threads.
        let stopped = tokio::task::spawn_blocking(move || tunnel.stop())
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "stopping the tunnel failed").with_source(error)
            })?;
        // The kernel's would keep the port.
        remove_kernel_device(self.router.namespace(), TUNNEL_LINK)
            .await
            .and(stopped)
    }
}
