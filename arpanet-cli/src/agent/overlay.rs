//! The overlay of a node: what carries its packets, and what the rest of the node needs of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arpanet_core::health::Prober;
use arpanet_core::{Datagrams, Overlay, Result};
use arpanet_gossip::UdpDatagrams;
use arpanet_netlink::{Ledger, Namespace, Transport};
use arpanet_router::{Carrier, RoutedOverlay, RouterConfig, UNDERLAY_MARK};
use arpanet_weave::{ForeignRouter, WeaveConfig, WeaveOverlay};
use arpanet_wireguard::{WireGuardConfig, WireGuardOverlay};
use async_trait::async_trait;

use super::order::Me;
use super::state::OverlayKind;
use crate::commands::Context;
use crate::host;
use crate::paths::Paths;

/// Where servers for attached containers listen.
#[async_trait]
pub(crate) trait Routed: fmt::Debug + Send + Sync {
    /// The router's namespace.
    ///
    /// # Errors
    /// [`Unavailable`](arpanet_core::ErrorKind::Unavailable) before the launch.
    async fn router_namespace(&self) -> Result<Namespace>;
}

#[async_trait]
impl<C: Carrier> Routed for RoutedOverlay<C> {
    async fn router_namespace(&self) -> Result<Namespace> {
        self.router_namespace().await
    }
}

/// An overlay that is not launched, by what it is for others.
pub(super) struct Parts {
    pub(super) overlay: Arc<dyn Overlay>,
    pub(super) routed: Arc<dyn Routed>,
    pub(super) prober: Arc<dyn Prober>,
    /// What gossip has of the node's UDP port.
    pub(super) datagrams: Arc<dyn Datagrams>,
}

impl Parts {
    /// The overlay that was chosen. Changes nothing on the host, but the port is taken where the overlay does not share it.
    ///
    /// # Errors
    /// [`Conflict`](arpanet_core::ErrorKind::Conflict) where somebody has the port.
    pub(super) fn choose(context: &Context, me: &Me) -> Result<Self> {
        let router = router(context, me.settings.port);
        match me.settings.overlay {
            OverlayKind::Wireguard => {
                let overlay = WireGuardOverlay::new(WireGuardConfig::new(router))?;
                let datagrams = overlay.carrier().side_channel();
                Ok(Self::of(overlay, datagrams))
            }
            OverlayKind::Weave => {
                let port = me.settings.port;
                host::require_free(Transport::Udp, port)?;
                let mut config = weave(&context.paths, router);
                if let Some(program) = host::weaver(context.config.weaver.as_deref())? {
                    config = config.binary(program);
                }
                if let Some(password) = me.settings.weave_password.clone() {
                    config = config.password(password).foreign(ForeignRouter::Use);
                }
                let overlay = WeaveOverlay::new(config)?;
                let at = SocketAddr::from(([0, 0, 0, 0], port));
                // A member may be in 10/8 itself, behind the default route.
                let datagrams = UdpDatagrams::bind(at)?.marked(UNDERLAY_MARK)?;
                Ok(Self::of(overlay, Arc::new(datagrams)))
            }
        }
    }

    fn of<C: Carrier>(overlay: RoutedOverlay<C>, datagrams: Arc<dyn Datagrams>) -> Self {
        let overlay = Arc::new(overlay);
        Self {
            prober: Arc::new(overlay.prober()),
            routed: Arc::clone(&overlay) as _,
            overlay,
            datagrams,
        }
    }
}

fn router(context: &Context, port: u16) -> RouterConfig {
    RouterConfig::new(context.paths.ledger())
        .pin(context.paths.router())
        .port(port)
        .networks(context.config.networks.clone())
        .resolvers(host::resolvers())
        .open_docker_plane(context.config.open_docker_plane)
}

fn weave(paths: &Paths, router: RouterConfig) -> WeaveConfig {
    WeaveConfig::new(router, paths.weave()).http(paths.weave_socket().display().to_string())
}

/// Takes back what any earlier agent changed on this host, by the ledger that it kept, and ends the weave router that it launched.
pub(crate) async fn clean(context: &Context) -> Result<()> {
    let paths = &context.paths;
    if paths.weave().exists() {
        let router = RouterConfig::new(paths.ledger()).pin(paths.router());
        return WeaveOverlay::new(weave(paths, router))?.reset().await;
    }
    if !paths.ledger().exists() {
        return Ok(());
    }
    Ledger::open(paths.ledger(), Namespace::current()?.handle()?)?
        .undo_all()
        .await
}
