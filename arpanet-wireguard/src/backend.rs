//! WireGuard as what carries an overlay.

use std::sync::Arc;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, OverlayCapabilities};
use arpanet_core::{Datagrams, Result};
use arpanet_netlink::{Namespace, Netlink};
use arpanet_router::{Carrier, Ground, Peers, RoutedOverlay, RouterConfig, Uplink, underlay_mtu};
use async_trait::async_trait;
use bytes::Bytes;

use crate::WireGuardConfig;
use crate::factory::{TunnelFactory, UserTunnels};
use crate::preflight;
use crate::running::Running;
use crate::side::SidePort;
use crate::tunnel::{PrivateKey, UserTunnelConfig, mtu_over};

pub(crate) const BACKEND: &str = "wireguard";

/// The tunnel's device, in the router's namespace.
const TUNNEL_LINK: &str = "wg0";

/// WireGuard in this process as the overlay, isolated by a router namespace.
pub type WireGuardOverlay = RoutedOverlay<WireGuard>;

/// What carries the packets of a [`WireGuardOverlay`].
#[derive(Debug)]
pub struct WireGuard {
    config: WireGuardConfig,
    tunnels: Arc<dyn TunnelFactory>,
    side: Arc<SidePort>,
}

impl WireGuard {
    /// The same over another kind of tunnel.
    #[must_use]
    pub fn over(config: WireGuardConfig, tunnels: Arc<dyn TunnelFactory>) -> Self {
        Self {
            config,
            tunnels,
            side: Arc::new(SidePort::new()),
        }
    }

    /// The UDP port's other use: datagrams that begin with
    /// [`SIDE_CHANNEL_MAGIC`](crate::tunnel::SIDE_CHANNEL_MAGIC). Receiving waits for the launch; sending before it
    /// answers [`Unavailable`](arpanet_core::ErrorKind::Unavailable).
    #[must_use]
    pub fn side_channel(&self) -> Arc<dyn Datagrams> {
        Arc::clone(&self.side) as Arc<dyn Datagrams>
    }
}

#[async_trait]
impl Carrier for WireGuard {
    const NAME: &'static str = BACKEND;
    type Config = WireGuardConfig;
    type Session = Running;

    fn new(config: WireGuardConfig, _: &Namespace) -> Result<Self> {
        Ok(Self::over(config, Arc::new(UserTunnels)))
    }

    fn router(&self) -> &RouterConfig {
        &self.config.router
    }

    fn capabilities(&self) -> OverlayCapabilities {
        OverlayCapabilities::all()
    }

    async fn preflight(&self, host: &Namespace, is_running: bool) -> Result<()> {
        preflight::check(host, self.config.router.port, is_running)
    }

    async fn mtu(&self, host: &Netlink, membership: &Membership) -> Result<u16> {
        let underlay = match self.config.underlay_mtu {
            Some(mtu) => mtu,
            None => underlay_mtu(host, membership.me.advertise).await?,
        };
        Ok(mtu_over(underlay))
    }

    async fn launch(&self, ground: Ground) -> Result<Running> {
        // Before anything is changed: it is what fails most.
        let socket = preflight::bind(ground.host.namespace(), self.config.router.port)?;
        let router = ground.router(Uplink::tunnel(TUNNEL_LINK)).await?;
        // A new key at each launch: WireGuard's timestamps come from a clock that may have gone back, and a peer that
        // saw a later one would refuse in silence.
        let key = PrivateKey::generate()?;
        let announcement = Announcement(Bytes::copy_from_slice(key.public_key().as_bytes()));
        let config = UserTunnelConfig::new(key, socket, router.namespace().clone()).mtu(ground.mtu);
        let launched = self.tunnels.launch(config)?;
        router.trust_uplink().await?;
        let peers = Peers::new(ground.host.namespace())?;
        self.side.set(launched.side_channel);
        Ok(Running {
            membership: ground.membership,
            announcement,
            router,
            tunnel: launched.tunnel,
            side: Arc::clone(&self.side),
            peers,
        })
    }
}
