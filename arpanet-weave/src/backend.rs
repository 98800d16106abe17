//! The overlay as the cluster sees it.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{
    Announcement, AttachAddr, Attachment, Overlay, OverlayCapabilities, PeerSpec, PeerStatus, Plug,
    Plugged,
};
use arpanet_core::{AppAddr, ContainerName, EndpointId, Error, ErrorKind, NodeAddr, Plane, Result};
use arpanet_netlink::{Ledger, Namespace, Netlink};
use arpanet_router::{HOST_LINK, Pinger, Router, RouterConfig, RouterProber, Uplink, underlay_mtu};
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::config::{SMALLEST_MTU, WeaveConfig};
use crate::error::{BACKEND, own};
use crate::launcher::{Carrier, Launcher};
use crate::port::UPLINK;
use crate::running::{Parts, Running, Tasks};

/// The largest packet inside that weave chooses by itself, in bytes.
const USUAL_MTU: u16 = 1376;
/// What weave may add to a packet, in bytes, whichever way it sends it.
const OVERHEAD: u16 = 124;

/// A weave router as the overlay, isolated by a router namespace.
///
/// Weave carries packets between hosts, and no more: who reaches whom is decided in the namespace, which is a port of weave's
/// bridge. What [`stop`](Overlay::stop) or the end of the process leaves (weave's router, the namespace, attached containers) is
/// found again by the next [`launch`](Overlay::launch).
#[derive(Debug)]
pub struct WeaveOverlay {
    config: WeaveConfig,
    host: Namespace,
    launcher: Arc<Launcher>,
    ledger: Mutex<Option<Arc<Ledger>>>,
    running: Mutex<Option<(Arc<Running>, Tasks)>>,
}

impl WeaveOverlay {
    /// The overlay of the host in whose network namespace the caller is. Changes nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration that can't be; others where /proc is not mounted.
    pub fn new(config: WeaveConfig) -> Result<Self> {
        config.check()?;
        let host = Namespace::current()?;
        Ok(Self {
            launcher: Arc::new(Launcher::new(&config, &host)?),
            config,
            host,
            ledger: Mutex::default(),
            running: Mutex::default(),
        })
    }

    /// The router's namespace, where servers for attached containers listen, on 169.254.1.1.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] before the launch.
    pub async fn router_namespace(&self) -> Result<Namespace> {
        let running = self.launched("open the router").await?;
        Ok(running.router.namespace().clone())
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
            own(ErrorKind::Unavailable, "the overlay is not launched").operation(operation)
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
        let uplink = Uplink::ethernet(UPLINK);
        RouterConfig::new(&self.config.pin, self.config.join_port, uplink)
            .open_docker_plane(self.config.open_docker_plane)
    }

    /// The MTU inside, in bytes.
    async fn mtu(&self, host: &Netlink, membership: &Membership) -> Result<u16> {
        match self.config.mtu {
            Some(mtu) => Ok(mtu),
            None => Ok(mtu_over(underlay_mtu(host, membership.me.advertise).await?)),
        }
    }

    async fn mend(&self, running: &Running, membership: &Membership) -> Result<()> {
        self.launcher.ensure(membership).await?;
        let mtu = self.mtu(&self.host.handle()?, membership).await?;
        running.set_mtu(mtu);
        running.plug_in().await?;
        running.router.mend(&self.router_config(), mtu).await?;
        running.settle_detours().await?;
        running.retell().await
    }

    async fn start(&self, membership: &Membership) -> Result<Running> {
        let host = self.host.handle()?;
        let ledger = self.ledger().await?;
        let mark = ledger.mark().await;
        // Before anything else is changed: it is what fails most, and takes back what it has done.
        let carrier = self.launcher.ensure(membership).await?;
        let is_new = carrier.is_new;
        match self
            .assemble(membership, &host, Arc::clone(&ledger), carrier)
            .await
        {
            Ok(running) => Ok(running),
            Err(error) => {
                if let Err(failure) = ledger.roll_back(mark).await {
                    tracing::error!(error = %failure, "the host could not be restored");
                }
                if is_new && let Err(failure) = self.launcher.remove(&host).await {
                    tracing::error!(error = %failure, "the weave router could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn assemble(
        &self,
        membership: &Membership,
        host: &Netlink,
        ledger: Arc<Ledger>,
        carrier: Carrier,
    ) -> Result<Running> {
        let node = membership.me.node;
        let mtu = self.mtu(host, membership).await?;
        let config = self.router_config();
        let router = Router::launch(&config, host.clone(), Arc::clone(&ledger), node, mtu).await?;
        let running = Running::new(Parts {
            membership: membership.clone(),
            carrier,
            router,
            host: host.clone(),
            config: self.config.clone(),
            launcher: Arc::clone(&self.launcher),
            ledger,
            mtu,
            pinger: Pinger::new(&self.host)?,
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
impl Overlay for WeaveOverlay {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> OverlayCapabilities {
        let mut capabilities = OverlayCapabilities::all().without_announcements();
        capabilities.encryption = self.config.encryption;
        capabilities
    }

    async fn preflight(&self, _: NodeAddr) -> Result<()> {
        let named = |error: Error| error.operation("preflight").backend(BACKEND);
        let host = self.host.handle().map_err(named)?;
        // What an earlier weave left on its bridge is for weave to tell.
        let ours = [HOST_LINK, self.config.bridge.as_str()];
        let clashes = host
            .preflight(&self.config.networks, &self.config.resolvers, &ours)
            .await
            .map_err(named)?;
        if let Some(clash) = clashes.into_iter().next() {
            return Err(named(Error::from(clash)));
        }
        self.launcher.preflight().await.map_err(named)
    }

    async fn launch(&self, membership: &Membership) -> Result<Announcement> {
        let named = |error: Error| error.operation("launch").backend(BACKEND);
        let mut slot = self.running.lock().await;
        if let Some((running, tasks)) = &mut *slot {
            let running = Arc::clone(running);
            let same = running.membership.me.node == membership.me.node
                && running.membership.cluster == membership.cluster;
            if same {
                self.mend(&running, membership).await.map_err(named)?;
                // A stop that was dropped may have ended them.
                *tasks = Tasks::spawn(&running);
                return Ok(running.announcement());
            }
            tasks.end().await;
            running.stop().await.map_err(named)?;
            *slot = None;
        }
        let running = Arc::new(self.start(membership).await.map_err(named)?);
        let tasks = Tasks::spawn(&running);
        let announcement = running.announcement();
        *slot = Some((running, tasks));
        Ok(announcement)
    }

    async fn connect(&self, peer: PeerSpec) -> Result<()> {
        let running = self.launched("connect").await?;
        let outcome = running.connect(peer).await;
        outcome.map_err(|error| error.operation("connect").backend(BACKEND))
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        self.launched("nudge").await?.nudge(node).await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        self.launched("forget").await?.forget(node).await
    }

    async fn expose(&self, plane: Plane) -> Result<()> {
        let running = self.launched("expose").await?;
        running.router.expose(plane, true).await
    }

    async fn hide(&self, plane: Plane) -> Result<()> {
        let running = self.launched("hide").await?;
        running.router.expose(plane, false).await
    }

    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        let running = self.launched("attach").await?;
        let outcome = running.router.attach(attachment).await;
        outcome.map_err(|error| error.operation("attach").backend(BACKEND))
    }

    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        let running = self.launched("detach").await?;
        running.router.detach(container, addr).await
    }

    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        let running = self.launched("list attached containers").await?;
        running.router.attached().await
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
        let running = self.launched("allow wide addresses").await?;
        running.router.allow_wide(addrs).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>> {
        Ok(self.launched("list peers").await?.statuses().await)
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let running = self.launched("wait for a peer").await?;
        let outcome = running.wait_reachable(node, limit).await;
        outcome.map_err(|error| error.operation("wait for a peer").backend(BACKEND))
    }

    async fn stop(&self) -> Result<()> {
        let mut slot = self.running.lock().await;
        if let Some((running, tasks)) = &mut *slot {
            // Before it is let go: a call that is dropped here is finished by the next.
            tasks.end().await;
            running.stop().await?;
            *slot = None;
        }
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        let named = |error: Error| error.operation("reset").backend(BACKEND);
        let running = self.launched("reset").await.ok();
        // Nothing of what runs may mend what is taken down.
        let stopped = self.stop().await;
        *self.running.lock().await = None;
        let let_go = match running {
            Some(running) => running.let_go().await,
            None => Ok(()),
        };
        let undone = self.ledger().await?.undo_all().await;
        let removed = self.launcher.remove(&self.host.handle()?).await;
        stopped.and(undone).and(removed).and(let_go).map_err(named)
    }
}

#[cfg(test)]
mod tests {
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
        let config = || WeaveConfig::new("/l", "/f");
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
