//! The overlay: the router, the tunnel, and the peers of both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{
    Announcement, AttachAddr, Attachment, Overlay, OverlayCapabilities, PeerSpec, PeerState,
    PeerStatus,
};
use arpanet_core::{AppAddr, ContainerName, Datagrams, Error, ErrorKind, NodeAddr, Plane, Result};
use arpanet_netlink::{Ledger, Namespace, Netlink};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::WireGuardConfig;
use crate::ping::Pinger;
use crate::preflight;
use crate::router::{HOST_LINK, Router, RouterConfig};
use crate::side::SidePort;
use crate::tunnel::{PeerConfig, PrivateKey, PublicKey, Tunnel, UserTunnel, UserTunnelConfig};

pub(crate) const BACKEND: &str = "wireguard";
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

/// WireGuard in this process, isolated by a router namespace.
///
/// The changes it makes to the host are written down first, so that [`reset`](Overlay::reset) takes all of them back,
/// also those of a process that was killed. What [`stop`](Overlay::stop) or the end of the process leaves (the router,
/// its links, attached containers and their connections) is found again by the next [`launch`](Overlay::launch).
#[derive(Debug)]
pub struct WireGuardOverlay {
    config: WireGuardConfig,
    host: Namespace,
    side: Arc<SidePort>,
    ledger: Mutex<Option<Arc<Ledger>>>,
    running: Mutex<Option<Arc<Running>>>,
}

#[derive(Debug)]
struct Running {
    membership: Membership,
    announcement: Announcement,
    router: Router,
    tunnel: UserTunnel,
    pinger: Pinger,
    peers: SyncMutex<BTreeMap<NodeAddr, Peer>>,
    tasks: SyncMutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Clone)]
struct Peer {
    key: PublicKey,
    endpoint: Option<SocketAddr>,
    round_trip: Option<Duration>,
    unanswered: u32,
}

impl WireGuardOverlay {
    /// The overlay of the host in whose network namespace the caller is. Changes nothing yet.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn new(config: WireGuardConfig) -> Result<Self> {
        Ok(Self {
            config,
            host: Namespace::current()?,
            side: Arc::new(SidePort::new()),
            ledger: Mutex::default(),
            running: Mutex::default(),
        })
    }

    /// The UDP port's other use: datagrams that begin with
    /// [`SIDE_CHANNEL_MAGIC`](crate::tunnel::SIDE_CHANNEL_MAGIC). Receiving waits for the launch; sending before it
    /// answers [`Unavailable`](ErrorKind::Unavailable).
    #[must_use]
    pub fn side_channel(&self) -> Arc<dyn Datagrams> {
        Arc::clone(&self.side) as Arc<dyn Datagrams>
    }

    /// The router's namespace, where servers for attached containers listen, on 169.254.1.1.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] before the launch.
    pub async fn router_namespace(&self) -> Result<Namespace> {
        Ok(self
            .launched("open the router")
            .await?
            .router
            .namespace()
            .clone())
    }

    async fn launched(&self, operation: &'static str) -> Result<Arc<Running>> {
        self.running.lock().await.clone().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the overlay is not launched")
                .operation(operation)
                .backend(BACKEND)
        })
    }

    async fn ledger(&self) -> Result<Arc<Ledger>> {
        let mut slot = self.ledger.lock().await;
        if let Some(ledger) = &*slot {
            return Ok(Arc::clone(ledger));
        }
        let ledger = Arc::new(Ledger::open(&self.config.ledger, self.host.handle()?)?);
        *slot = Some(Arc::clone(&ledger));
        Ok(ledger)
    }

    fn router_config(&self) -> RouterConfig {
        RouterConfig {
            pin: self.config.pin.clone(),
            open_docker_plane: self.config.open_docker_plane,
        }
    }

    fn bind(&self) -> Result<UdpSocket> {
        preflight::bind(&self.host, self.config.port)
    }

    async fn start(&self, membership: &Membership) -> Result<Running> {
        let node = membership.me.node;
        let host = self.host.handle()?;
        // Before anything is changed: it is what fails most.
        let socket = self.bind()?;
        let underlay = match self.config.underlay_mtu {
            Some(mtu) => mtu,
            None => preflight::underlay_mtu(&host, membership.me.advertise).await?,
        };
        let mtu = crate::tunnel::mtu_over(underlay);
        let ledger = self.ledger().await?;
        let mark = ledger.mark().await;
        let outcome = self.assemble(membership, host, Arc::clone(&ledger), node, mtu, socket);
        match outcome.await {
            Ok(running) => Ok(running),
            Err(error) => {
                if let Err(failure) = ledger.roll_back(mark).await {
                    tracing::error!(error = %failure, "the host could not be restored");
                }
                Err(error)
            }
        }
    }

    async fn assemble(
        &self,
        membership: &Membership,
        host: Netlink,
        ledger: Arc<Ledger>,
        node: NodeAddr,
        mtu: u16,
        socket: UdpSocket,
    ) -> Result<Running> {
        let router = Router::launch(&self.router_config(), host, ledger, node, mtu).await?;
        // A new key at each launch: WireGuard's timestamps come from a clock that may have gone back, and a peer that
        // saw a later one would refuse in silence.
        let key = PrivateKey::generate()?;
        let announcement = Announcement(Bytes::copy_from_slice(key.public_key().as_bytes()));
        let config = UserTunnelConfig::new(key, socket, router.namespace().clone()).mtu(mtu);
        let tunnel = UserTunnel::launch(config)?;
        router.trust_tunnel()?;
        Ok(Running {
            membership: membership.clone(),
            announcement,
            router,
            pinger: Pinger::new(&self.host)?,
            tunnel,
            peers: SyncMutex::default(),
            tasks: SyncMutex::default(),
        })
    }
}

impl Running {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_of(&self, node: NodeAddr) -> Option<PublicKey> {
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

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let peer = self.peers().remove(&node);
        if let Some(peer) = peer {
            self.tunnel.remove_peer(&peer.key)?;
        }
        self.router.remove_peer(node).await
    }

    fn statuses(&self) -> Vec<PeerStatus> {
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

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
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

    async fn stop(self: Arc<Self>) -> Result<()> {
        for task in self.tasks().drain(..) {
            task.abort();
        }
        // It joins threads.
        tokio::task::spawn_blocking(move || self.tunnel.stop())
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "stopping the tunnel failed").with_source(error)
            })?
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

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.tasks().drain(..) {
            task.abort();
        }
    }
}

#[async_trait]
impl Overlay for WireGuardOverlay {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> OverlayCapabilities {
        OverlayCapabilities::all()
    }

    async fn preflight(&self, _: NodeAddr) -> Result<()> {
        let is_running = self.running.lock().await.is_some();
        let outcome = preflight::check(&self.host, &self.config, HOST_LINK, is_running);
        outcome
            .await
            .map_err(|error| error.operation("preflight").backend(BACKEND))
    }

    async fn launch(&self, membership: &Membership) -> Result<Announcement> {
        let named = |error: Error| error.operation("launch").backend(BACKEND);
        let mut slot = self.running.lock().await;
        if let Some(running) = slot.clone() {
            let same = running.membership.me.node == membership.me.node
                && running.membership.cluster == membership.cluster;
            if same {
                let mended = running.router.mend(&self.router_config()).await;
                mended.map_err(named)?;
                return Ok(running.announcement.clone());
            }
            self.side.set(None);
            *slot = None;
            running.stop().await.map_err(named)?;
        }
        let running = Arc::new(self.start(membership).await.map_err(named)?);
        *running.tasks() = vec![
            tokio::spawn(keep_measuring(Arc::downgrade(&running))),
            tokio::spawn(drop_stale(Arc::downgrade(&running))),
        ];
        self.side.set(Some(running.tunnel.side_channel()));
        let announcement = running.announcement.clone();
        *slot = Some(running);
        Ok(announcement)
    }

    async fn connect(&self, peer: PeerSpec) -> Result<()> {
        let running = self.launched("connect").await?;
        let outcome = running.connect(peer).await;
        outcome.map_err(|error| error.operation("connect").backend(BACKEND))
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        let running = self.launched("nudge").await?;
        match running.key_of(node) {
            Some(key) => running.tunnel.nudge(&key),
            None => Ok(()),
        }
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        self.launched("forget").await?.forget(node).await
    }

    async fn expose(&self, plane: Plane) -> Result<()> {
        self.launched("expose")
            .await?
            .router
            .expose(plane, true)
            .await
    }

    async fn hide(&self, plane: Plane) -> Result<()> {
        self.launched("hide")
            .await?
            .router
            .expose(plane, false)
            .await
    }

    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        let running = self.launched("attach").await?;
        let outcome = running.router.attach(attachment).await;
        outcome.map_err(|error| error.operation("attach").backend(BACKEND))
    }

    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        self.launched("detach")
            .await?
            .router
            .detach(container, addr)
            .await
    }

    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        self.launched("list attached containers")
            .await?
            .router
            .attached()
            .await
    }

    async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        self.launched("allow wide addresses")
            .await?
            .router
            .allow_wide(addrs)
            .await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>> {
        Ok(self.launched("list peers").await?.statuses())
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let running = self.launched("wait for a peer").await?;
        let outcome = running.wait_reachable(node, limit).await;
        outcome.map_err(|error| error.operation("wait for a peer").backend(BACKEND))
    }

    async fn stop(&self) -> Result<()> {
        self.side.set(None);
        let running = self.running.lock().await.take();
        match running {
            Some(running) => running.stop().await,
            None => Ok(()),
        }
    }

    async fn reset(&self) -> Result<()> {
        let stopped = self.stop().await;
        let ledger = self.ledger().await?;
        ledger.undo_all().await?;
        stopped
    }
}
