//! The overlay of a node: what carries its packets, and what the rest of the node needs of it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use arpanet_core::health::Prober;
use arpanet_core::runtime::HostEngine;
use arpanet_core::{Datagrams, Overlay, Result};
use arpanet_docker::HostPrograms;
use arpanet_gossip::UdpDatagrams;
use arpanet_netlink::{Ledger, Namespace, Transport, holder_of_port};
use arpanet_router::{Carrier, RoutedOverlay, RouterConfig, UNDERLAY_MARK};
use arpanet_weave::{ForeignRouter, Weave, WeaveConfig, WeaveOverlay};
use arpanet_wireguard::{TunnelKind, WireGuardConfig, WireGuardOverlay};
use async_trait::async_trait;

use super::order::Me;
use super::state::OverlayKind;
use crate::commands::Context;
use crate::host;
use crate::paths::Paths;

/// Weave's bridge on this host.
pub(crate) const BRIDGE: &str = "weave";
/// The API of a router that arpanet2 has not launched: those that it launches have theirs at a unix socket.
const WEAVE_API: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6784);

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

/// What is carried by one of several kinds of tunnel.
pub(crate) trait Tunnelled: fmt::Debug + Send + Sync {
    /// Which one it is: `kernel` or `user`. `None` before the launch.
    fn tunnel(&self) -> Option<&'static str>;
}

impl Tunnelled for WireGuardOverlay {
    fn tunnel(&self) -> Option<&'static str> {
        match self.carrier().tunnel_kind()? {
            TunnelKind::Kernel => Some("kernel"),
            _ => Some("user"),
        }
    }
}

/// An overlay that is not launched, by what it is for others.
pub(super) struct Parts {
    pub(super) overlay: Arc<dyn Overlay>,
    pub(super) routed: Arc<dyn Routed>,
    pub(super) prober: Arc<dyn Prober>,
    /// What gossip has of the node's UDP port.
    pub(super) datagrams: Arc<dyn Datagrams>,
    /// Where there is a choice of tunnels.
    pub(super) tunnel: Option<Arc<dyn Tunnelled>>,
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
                let mut config = WireGuardConfig::new(router).tunnel(me.settings.tunnel.into());
                config.tunnel_port = context.config.tunnel_port;
                let overlay = Arc::new(WireGuardOverlay::new(config)?);
                let datagrams = overlay.carrier().side_channel();
                let tunnel = Arc::clone(&overlay) as Arc<dyn Tunnelled>;
                Ok(Self {
                    tunnel: Some(tunnel),
                    ..Self::of(overlay, datagrams)
                })
            }
            OverlayKind::Weave => {
                let port = me.settings.port;
                host::require_free(Transport::Udp, port)?;
                let mut config = weave(&context.paths, router).image(context.config.weave_image());
                // One that stands there already has its API where weave's own commands look for it.
                if holder_of_port(Transport::Tcp, WEAVE_API.port()).is_some() {
                    config = config.http(WEAVE_API.to_string());
                }
                let program = host::weaver(context.config.weaver.as_deref())?;
                let engine = engine(context).filter(|_| program.is_none());
                if let Some(program) = program {
                    config = config.binary(program);
                }
                if let Some(password) = me.settings.weave_password.clone() {
                    config = config.password(password).foreign(ForeignRouter::Use);
                }
                let overlay = Arc::new(weave_overlay(config, engine)?);
                let at = SocketAddr::from(([0, 0, 0, 0], port));
                // A member may be in 10/8 itself, behind the default route.
                let datagrams = UdpDatagrams::bind(at)?.marked(UNDERLAY_MARK)?;
                Ok(Self::of(overlay, Arc::new(datagrams)))
            }
        }
    }

    fn of<C: Carrier>(overlay: Arc<RoutedOverlay<C>>, datagrams: Arc<dyn Datagrams>) -> Self {
        Self {
            prober: Arc::new(overlay.prober()),
            routed: Arc::clone(&overlay) as _,
            overlay,
            datagrams,
            tunnel: None,
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
    WeaveConfig::new(router, paths.weave())
        .http(paths.weave_socket().display().to_string())
        .bridge(BRIDGE)
}

fn weave_overlay(config: WeaveConfig, engine: Option<Arc<dyn HostEngine>>) -> Result<WeaveOverlay> {
    match engine {
        Some(engine) => WeaveOverlay::carried_by(Weave::with_engine(config, engine)?),
        None => WeaveOverlay::new(config),
    }
}

/// The host's docker engine, if it has one.
fn engine(context: &Context) -> Option<Arc<dyn HostEngine>> {
    let config = context.config.docker();
    let engine = || Arc::new(HostPrograms::new(&config)) as Arc<dyn HostEngine>;
    config.socket.exists().then(engine)
}

/// Takes back what any earlier agent changed on this host, by the ledger that it kept, and ends the weave router that it launched.
pub(crate) async fn clean(context: &Context) -> Result<()> {
    let paths = &context.paths;
    if paths.weave().exists() {
        let router = RouterConfig::new(paths.ledger()).pin(paths.router());
        let overlay = weave_overlay(weave(paths, router), engine(context))?;
        return overlay.reset().await;
    }
    if !paths.ledger().exists() {
        return Ok(());
    }
    Ledger::open(paths.ledger(), Namespace::current()?.handle()?)?
        .undo_all()
        .await
}
