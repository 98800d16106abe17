//! WireGuard as what carries an overlay.

use std::sync::{Arc, Mutex, PoisonError};

use arpanet_core::admission::Membership;
use arpanet_core::overlay::OverlayCapabilities;
use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use arpanet_netlink::{Namespace, Netlink};
use arpanet_router::{Carrier, Ground, Peers, RoutedOverlay, RouterConfig, Uplink, underlay_mtu};
use async_trait::async_trait;

use crate::config::{TunnelKind, WireGuardConfig};
use crate::factory::{AnyTunnels, KernelTunnels, TunnelFactory, TunnelSpec, UserTunnels};
use crate::preflight;
use crate::running::Running;
use crate::side::SidePort;
use crate::tunnel::{is_kernel_device, mtu_over};

pub(crate) const BACKEND: &str = "wireguard";

/// The tunnel's device, in the router's namespace.
pub(crate) const TUNNEL_LINK: &str = "wg0";

/// WireGuard as the overlay, isolated by a router namespace.
pub type WireGuardOverlay = RoutedOverlay<WireGuard>;

/// What carries the packets of a [`WireGuardOverlay`].
#[derive(Debug)]
pub struct WireGuard {
    config: WireGuardConfig,
    tunnels: Arc<dyn TunnelFactory>,
    side: Arc<SidePort>,
    runs: Mutex<Option<TunnelKind>>,
}

impl WireGuard {
    /// The same over another kind of tunnel.
    #[must_use]
    pub fn over(mut config: WireGuardConfig, tunnels: Arc<dyn TunnelFactory>) -> Self {
        config.router.tunnel_port = Some(config.own_port());
        Self {
            config,
            tunnels,
            side: Arc::new(SidePort::new()),
            runs: Mutex::default(),
        }
    }

    /// Which WireGuard carries the packets since the last launch: the kernel's, or that of this process. `None` before the
    /// first.
    #[must_use]
    pub fn tunnel_kind(&self) -> Option<TunnelKind> {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner)
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
        if config.own_port() == config.router.port {
            let message = format!(
                "the kernel's WireGuard can't have port {}, which is the overlay's own",
                config.router.port
            );
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("choose another tunnel_port, or leave it out"));
        }
        let tunnels: Arc<dyn TunnelFactory> = match config.tunnel {
            TunnelKind::Auto => Arc::new(AnyTunnels),
            TunnelKind::Kernel => Arc::new(KernelTunnels),
            TunnelKind::User => Arc::new(UserTunnels),
        };
        Ok(Self::over(config, tunnels))
    }

    fn router(&self) -> &RouterConfig {
        &self.config.router
    }

    fn capabilities(&self) -> OverlayCapabilities {
        OverlayCapabilities::all()
    }

    async fn preflight(&self, host: &Namespace, is_running: bool) -> Result<()> {
        self.tunnels.preflight().await?;
        if !is_running {
            preflight::bind(host, self.config.router.port)?;
        }
        Ok(())
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
        let (me, cluster) = (ground.membership.me.node, ground.membership.cluster);
        let launched = self.tunnels.launch(TunnelSpec {
            host: ground.host.namespace().clone(),
            socket,
            router: router.namespace().clone(),
            device: TUNNEL_LINK.to_owned(),
            mtu: ground.mtu,
            owner: format!("arpanet2 {me} of {cluster}"),
            own_port: self.config.own_port(),
        });
        let launched = launched.await?;
        router.trust_uplink().await?;
        let kind = match is_kernel_device(router.namespace(), TUNNEL_LINK).await? {
            true => TunnelKind::Kernel,
            false => TunnelKind::User,
        };
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        let peers = Peers::new(ground.host.namespace())?;
        let side = Arc::clone(&self.side);
        Ok(Running::new(
            ground.membership,
            router,
            launched,
            side,
            peers,
        ))
    }
}
