//! Weave as what carries an overlay.

use std::sync::Arc;

use arpanet_core::Result;
use arpanet_core::admission::Membership;
use arpanet_core::overlay::OverlayCapabilities;
use arpanet_core::runtime::HostEngine;
use arpanet_netlink::{Namespace, Netlink};
use arpanet_router::{Carrier, Ground, Peers, RoutedOverlay, RouterConfig, Uplink, underlay_mtu};
use async_trait::async_trait;

use crate::config::{SMALLEST_MTU, WeaveConfig};
use crate::error::BACKEND;
use crate::launcher::{Launcher, Weaver};
use crate::port::UPLINK;
use crate::running::{Parts, Running};

/// The largest packet inside that weave chooses by itself, in bytes.
const USUAL_MTU: u16 = 1376;
/// What weave may add to a packet, in bytes, whichever way it sends it.
const OVERHEAD: u16 = 124;

/// A weave router as the overlay, isolated by a router namespace.
///
/// Weave carries packets between hosts, and no more: who reaches whom is decided in the namespace, which is a port of weave's
/// bridge. What [`stop`](arpanet_core::Overlay::stop) or the end of the process leaves (weave's router, the namespace, attached
/// containers) is found again by the next [`launch`](arpanet_core::Overlay::launch).
pub type WeaveOverlay = RoutedOverlay<Weave>;

/// What carries the packets of a [`WeaveOverlay`].
#[derive(Debug)]
pub struct Weave {
    config: WeaveConfig,
    launcher: Arc<Launcher>,
}

impl Weave {
    /// On the host in whose namespace the caller is, launching the router in a container of this engine where the configuration
    /// names no program.
    ///
    /// # Errors
    /// [`InvalidInput`](arpanet_core::ErrorKind::InvalidInput) for a configuration that can't be.
    pub fn with_engine(config: WeaveConfig, engine: Arc<dyn HostEngine>) -> Result<Self> {
        Self::made_of(config, &Namespace::current()?, Some(engine))
    }

    fn made_of(
        config: WeaveConfig,
        host: &Namespace,
        engine: Option<Arc<dyn HostEngine>>,
    ) -> Result<Self> {
        config.check()?;
        Ok(Self {
            launcher: Arc::new(Launcher::new(&config, host, engine)?),
            config,
        })
    }

    async fn assemble(&self, ground: Ground, weaver: Weaver) -> Result<Running> {
        let router = ground.router(Uplink::ethernet(UPLINK)).await?;
        let running = Running::new(Parts {
            weaver,
            router,
            peers: Peers::new(ground.host.namespace())?,
            membership: ground.membership,
            host: ground.host,
            config: self.config.clone(),
            launcher: Arc::clone(&self.launcher),
            ledger: ground.ledger,
            mtu: ground.mtu,
        });
        running.plug_in().await?;
        Ok(running)
    }
}

/// The MTU inside over an underlay with this one, in bytes.
fn mtu_over(underlay: u16) -> u16 {
    underlay
        .saturating_sub(OVERHEAD)
        .clamp(SMALLEST_MTU, USUAL_MTU)
}

#[async_trait]
impl Carrier for Weave {
    const NAME: &'static str = BACKEND;
    type Config = WeaveConfig;
    type Session = Running;

    fn new(config: WeaveConfig, host: &Namespace) -> Result<Self> {
        Self::made_of(config, host, None)
    }

    fn router(&self) -> &RouterConfig {
        &self.config.router
    }

    fn capabilities(&self) -> OverlayCapabilities {
        let mut capabilities = OverlayCapabilities::all().without_announcements();
        capabilities.encryption = self.config.encryption;
        capabilities
    }

    /// What an earlier weave left on its bridge is for weave to tell.
    fn links(&self) -> Vec<&str> {
        vec![&self.config.bridge]
    }

    async fn preflight(&self, _: &Namespace, _: bool) -> Result<()> {
        self.launcher.preflight().await
    }

    async fn mtu(&self, host: &Netlink, membership: &Membership) -> Result<u16> {
        match self.config.mtu {
            Some(mtu) => Ok(mtu),
            None => Ok(mtu_over(underlay_mtu(host, membership.me.advertise).await?)),
        }
    }

    async fn launch(&self, ground: Ground) -> Result<Running> {
        let host = ground.host.clone();
        // Before anything else is changed: it is what fails most, and takes back what it has done.
        let weaver = self.launcher.ensure(&ground.membership).await?;
        let is_new = weaver.is_new;
        let outcome = self.assemble(ground, weaver).await;
        if outcome.is_err()
            && is_new
            && let Err(failure) = self.launcher.remove(&host).await
        {
            tracing::error!(error = %failure, "the weave router could not be removed");
        }
        outcome
    }

    async fn remove(&self, host: &Netlink) -> Result<()> {
        self.launcher.remove(host).await
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::ErrorKind;

    use super::*;

    #[test]
    fn packets_are_as_large_as_weave_has_them_and_fit_the_underlay() {
        assert_eq!(mtu_over(1500), 1376);
        assert_eq!(mtu_over(9000), 1376);
        assert_eq!(mtu_over(1450), 1326);
        assert_eq!(mtu_over(500), SMALLEST_MTU);
    }

    #[test]
    fn what_can_not_be_is_refused_at_once() {
        let config = || WeaveConfig::new(RouterConfig::new("/l"), "/f");
        for bad in [
            config().mtu(575),
            config().request_ms(99),
            config().launch_ms(999),
            config().http("localhost:6784"),
            config().http(""),
        ] {
            let error = WeaveOverlay::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}
