//! The overlay while it runs: its peers, in the router and in the tunnel, and how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, PeerSpec, PeerState, PeerStatus};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use arpanet_router::{Pinger, Router};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::tunnel::{PeerConfig, PublicKey, Tunnel};

/// How often each peer is pinged, for the round trip and to keep a NAT open on the way.
const ROUND: Duration = Duration::from_secs(2);
/// Unanswered pings after which a peer counts as out of reach.
const LOST: u32 = 3;
/// How often somebody who waits for a peer asks.
const ASKING: Duration = Duration::from_millis(50);
/// How often it tries another handshake.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an earlier process's routes may wait for their peers.
const STALE: Duration = Duration::from_secs(30);

/// A launched overlay.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) membership: Membership,
    pub(crate) announcement: Announcement,
    pub(crate) router: Router,
    pub(crate) tunnel: Arc<dyn Tunnel>,
    pinger: Pinger,
    peers: Mutex<BTreeMap<NodeAddr, Peer>>,
}

#[derive(Debug, Clone)]
struct Peer {
    key: PublicKey,
    endpoint: Option<SocketAddr>,
    round_trip: Option<Duration>,
    unanswered: u32,
}

impl Running {
    pub(crate) const fn new(
        membership: Membership,
        announcement: Announcement,
        router: Router,
        tunnel: Arc<dyn Tunnel>,
        pinger: Pinger,
    ) -> Self {
        Self {
            membership,
            announcement,
            router,
            tunnel,
            pinger,
            peers: Mutex::new(BTreeMap::new()),
        }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key_of(&self, node: NodeAddr) -> Option<PublicKey> {
        self.peers().get(&node).map(|peer| peer.key)
    }

    /// Pings all peers once.
    async fn measure(&self) {
        let nodes: Vec<NodeAddr> = self.peers().keys().copied().collect();
        let mut pings: FuturesUnordered<_> = nodes
            .into_iter()
            .map(|node| async move { (node, self.pinger.ping(node.overlay(), ROUND).await) })
            .collect();
        while let Some((node, round_trip)) = pings.next().await {
            if self.note(node, round_trip)
                && let Some(key) = self.key_of(node)
            {
                // A session of which the other side knows nothing lives for 15 s, unless another is agreed on.
                let _ = self.tunnel.nudge(&key);
            }
        }
    }

    /// Whether the peer was in reach and now does not answer.
    fn note(&self, node: NodeAddr, round_trip: Option<Duration>) -> bool {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&node) else {
            return false;
        };
        match round_trip {
            Some(_) => {
                peer.round_trip = round_trip;
                peer.unanswered = 0;
            }
            None => peer.unanswered = peer.unanswered.saturating_add(1),
        }
        (1..=LOST).contains(&peer.unanswered)
    }

    pub(crate) async fn connect(&self, spec: PeerSpec) -> Result<()> {
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
        let before = self.peers().get(&spec.node).cloned();
        if let Some(old) = before.as_ref().filter(|old| old.key != key) {
            self.tunnel.remove_peer(&old.key)?;
        }
        let allowed = addresses.into_iter().map(Into::into).collect();
        self.tunnel
            .set_peer(PeerConfig::new(key, spec.endpoint, allowed))?;
        let is_new = before
            .as_ref()
            .is_none_or(|old| old.key != key || old.endpoint != spec.endpoint);
        let fresh = Peer {
            key,
            endpoint: spec.endpoint,
            round_trip: None,
            unanswered: 0,
        };
        self.peers()
            .entry(spec.node)
            .and_modify(|peer| {
                peer.key = key;
                peer.endpoint = spec.endpoint;
            })
            .or_insert(fresh);
        if is_new {
            // The peer may not know this node's key yet; then its own first handshake is the one that is answered.
            self.tunnel.nudge(&key)?;
        }
        Ok(())
    }

    pub(crate) async fn forget(&self, node: NodeAddr) -> Result<()> {
        let peer = self.peers().remove(&node);
        if let Some(peer) = peer {
            self.tunnel.remove_peer(&peer.key)?;
        }
        self.router.remove_peer(node).await
    }

    pub(crate) fn statuses(&self) -> Vec<PeerStatus> {
        let sessions: BTreeMap<PublicKey, _> = self
            .tunnel
            .peers()
            .into_iter()
            .map(|status| (status.public_key, status))
            .collect();
        let peers = self.peers();
        peers
            .iter()
            .map(|(node, peer)| {
                let session = sessions.get(&peer.key);
                let last_handshake = session.and_then(|session| session.last_handshake);
                let up = last_handshake.is_some() && peer.unanswered < LOST;
                let state = if up {
                    PeerState::Up
                } else {
                    PeerState::Connecting
                };
                let mut status = PeerStatus::new(*node, state);
                status.endpoint = session
                    .and_then(|session| session.endpoint)
                    .or(peer.endpoint);
                status.last_handshake = last_handshake;
                status.round_trip = peer.round_trip.filter(|_| up);
                status
            })
            .collect()
    }

    pub(crate) async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let Some(key) = self.key_of(node) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("node {node} is no peer of this node"),
            ));
        };
        let deadline = Instant::now() + limit;
        let mut ticks = interval(ASKING);
        let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => asked.push(self.pinger.ping(node.overlay(), limit)),
                Some(Some(round_trip)) = asked.next() => {
                    self.note(node, Some(round_trip));
                    return Ok(());
                }
                _ = again.tick() => self.tunnel.nudge(&key)?,
                () = tokio::time::sleep_until(deadline) => break,
            }
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

    pub(crate) async fn stop(self: Arc<Self>) -> Result<()> {
        // It joins threads.
        tokio::task::spawn_blocking(move || self.tunnel.stop())
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "stopping the tunnel failed").with_source(error)
            })?
    }
}

/// What goes on by itself while the overlay runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    pub(crate) fn spawn(running: &Arc<Running>) -> Self {
        Self(vec![
            tokio::spawn(keep_measuring(Arc::downgrade(running))),
            tokio::spawn(drop_stale(Arc::downgrade(running))),
        ])
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn keep_measuring(running: Weak<Running>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match running.upgrade() {
            Some(running) => running.measure().await,
            None => return,
        }
    }
}

async fn drop_stale(running: Weak<Running>) {
    tokio::time::sleep(STALE).await;
    if let Some(running) = running.upgrade()
        && let Err(error) = running.router.drop_stale().await
    {
        tracing::warn!(%error, "routes of an earlier start are left");
    }
}
