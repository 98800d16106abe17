//! The overlay as the cluster sees it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{
    Announcement, AttachAddr, Attachment, Overlay, OverlayCapabilities, PeerSpec, PeerStatus, Plug,
    Plugged,
};
use arpanet_core::{
    AppAddr, ContainerName, Datagrams, EndpointId, Error, ErrorKind, NodeAddr, Plane, Result,
};
use arpanet_netlink::{Ledger, Namespace, Netlink};
use arpanet_router::{HOST_LINK, Pinger, Router, RouterConfig, RouterProber, Uplink, underlay_mtu};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::WireGuardConfig;
use crate::factory::{TunnelFactory, UserTunnels};
use crate::preflight;
use crate::running::{Running, Tasks};
use crate::side::SidePort;
use crate::tunnel::{PrivateKey, UserTunnelConfig, mtu_over};

pub(crate) const BACKEND: &str = "wireguard";

/// The tunnel's device, in the router's namespace.
const TUNNEL_LINK: &str = "wg0";

/// WireGuard in this process, isolated by a router namespace.
///
/// The changes it makes to the host are written down first, so that [`reset`](Overlay::reset) takes all of them back,
/// also those of a process that was killed. What [`stop`](Overlay::stop) or the end of the process leaves (the router,
/// its links, attached containers and their connections) is found again by the next [`launch`](Overlay::launch).
#[derive(Debug)]
pub struct WireGuardOverlay {
    config: WireGuardConfig,
    host: Namespace,
    tunnels: Arc<dyn TunnelFactory>,
    side: Arc<SidePort>,
    ledger: Mutex<Option<Arc<Ledger>>>,
    running: Mutex<Option<(Arc<Running>, Tasks)>>,
}

impl WireGuardOverlay {
    /// The overlay of the host in whose network namespace the caller is. Changes nothing yet.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn new(config: WireGuardConfig) -> Result<Self> {
        Self::with_tunnels(config, Arc::new(UserTunnels))
    }

    /// The same over another kind of tunnel.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_tunnels(config: WireGuardConfig, tunnels: Arc<dyn TunnelFactory>) -> Result<Self> {
        Ok(Self {
            config,
            host: Namespace::current()?,
            tunnels,
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

    /// What asks attached containers' health checks, from 169.254.1.1.
    #[must_use]
    pub fn prober(self: &Arc<Self>) -> RouterProber {
        let overlay = Arc::clone(self);
        RouterProber::new(move || {
            let overlay = Arc::clone(&overlay);
            async move { overlay.router_namespace().await }
        })
    }

    async fn launched(&self, operation: &'static str) -> Result<Arc<Running>> {
        let slot = self.running.lock().await;
        let running = slot.as_ref().map(|(running, _)| Arc::clone(running));
        running.ok_or_else(|| {
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
        RouterConfig::new(
            &self.config.pin,
            self.config.port,
            Uplink::tunnel(TUNNEL_LINK),
        )
        .open_docker_plane(self.config.open_docker_plane)
    }

    /// The MTU inside the tunnel, in bytes.
    async fn mtu(&self, host: &Netlink, membership: &Membership) -> Result<u16> {
        let underlay = match self.config.underlay_mtu {
            Some(mtu) => mtu,
            None => underlay_mtu(host, membership.me.advertise).await?,
        };
        Ok(mtu_over(underlay))
    }

    async fn mend(&self, running: &Running, membership: &Membership) -> Result<()> {
        let mtu = self.mtu(&self.host.handle()?, membership).await?;
        running.router.mend(&self.router_config(), mtu).await
    }

    async fn start(&self, membership: &Membership) -> Result<Running> {
        let node = membership.me.node;
        let host = self.host.handle()?;
        // Before anything is changed: it is what fails most.
        let socket = preflight::bind(&self.host, self.config.port)?;
        let mtu = self.mtu(&host, membership).await?;
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
        let launched = self.tunnels.launch(config)?;
        router.trust_uplink().await?;
        let pinger = Pinger::new(&self.host)?;
        self.side.set(launched.side_channel);
        Ok(Running::new(
            membership.clone(),
            announcement,
            router,
            launched.tunnel,
            pinger,
        ))
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
        if let Some((running, _)) = &*slot {
            let running = Arc::clone(running);
            let same = running.membership.me.node == membership.me.node
                && running.membership.cluster == membership.cluster;
            if same {
                self.mend(&running, membership).await.map_err(named)?;
                return Ok(running.announcement.clone());
            }
            self.side.set(None);
            *slot = None;
            running.stop().await.map_err(named)?;
        }
        let running = Arc::new(self.start(membership).await.map_err(named)?);
        let tasks = Tasks::spawn(&running);
        let announcement = running.announcement.clone();
        *slot = Some((running, tasks));
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

    async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        let running = self.launched("plug").await?;
        let outcome = running.router.plug(plug).await;
        outcome.map_err(|error| error.operation("plug").backend(BACKEND))
    }

    async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        self.launched("unplug").await?.router.unplug(endpoint).await
    }

    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        self.launched("list links").await?.router.plugged().await
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
            Some((running, _)) => running.stop().await,
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
