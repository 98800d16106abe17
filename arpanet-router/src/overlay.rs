//! The overlay as the cluster sees it, whatever carries its packets.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{
    Announcement, AttachAddr, Attachment, Overlay, OverlayCapabilities, PeerSpec, PeerStatus, Plug,
    Plugged,
};
use arpanet_core::{AppAddr, ContainerName, EndpointId, Error, ErrorKind, NodeAddr, Plane, Result};
use arpanet_netlink::{Ledger, Namespace};
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::carrier::{Carrier, Ground, Session};
use crate::tasks::Tasks;
use crate::{HOST_LINK, RouterProber};

/// An overlay: something that carries packets between hosts, isolated by a router namespace on each.
///
/// The changes it makes to the host are written down first, so that [`reset`](Overlay::reset) takes all of them back,
/// also those of a process that was killed. What [`stop`](Overlay::stop) or the end of the process leaves (the router,
/// its links, attached containers and their connections) is found again by the next [`launch`](Overlay::launch).
#[derive(Debug)]
pub struct RoutedOverlay<C: Carrier> {
    carrier: C,
    host: Namespace,
    ledger: Mutex<Option<Arc<Ledger>>>,
    running: Mutex<Option<Running<C::Session>>>,
}

#[derive(Debug)]
struct Running<S> {
    session: Arc<S>,
    tasks: Tasks,
    /// A stop has begun. One that was dropped is finished by the next call.
    is_ending: bool,
}

impl<S: Session> Running<S> {
    async fn end(&mut self) -> Result<()> {
        self.is_ending = true;
        self.tasks.end().await;
        self.session.stop().await
    }
}

impl<C: Carrier> RoutedOverlay<C> {
    /// The overlay of the host in whose network namespace the caller is. Changes nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration that can't be; others where /proc is not mounted.
    pub fn new(config: C::Config) -> Result<Self> {
        let host = Namespace::current()?;
        Ok(Self::on(C::new(config, &host)?, host))
    }

    /// The same on a carrier that is there.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn carried_by(carrier: C) -> Result<Self> {
        Ok(Self::on(carrier, Namespace::current()?))
    }

    fn on(carrier: C, host: Namespace) -> Self {
        Self {
            carrier,
            host,
            ledger: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// What carries its packets.
    #[must_use]
    pub const fn carrier(&self) -> &C {
        &self.carrier
    }

    /// The router's namespace, where servers for attached containers listen, on 169.254.1.1.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] before the launch.
    pub async fn router_namespace(&self) -> Result<Namespace> {
        let session = self.launched("open the router").await?;
        Ok(session.router().namespace().clone())
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

    async fn launched(&self, operation: &'static str) -> Result<Arc<C::Session>> {
        let slot = self.running.lock().await;
        let session = slot.as_ref().map(|running| Arc::clone(&running.session));
        session.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the overlay is not launched")
                .operation(operation)
                .backend(C::NAME)
        })
    }

    /// Asks it of what runs, in whose name errors are.
    async fn ask<T>(
        &self,
        operation: &'static str,
        call: impl AsyncFnOnce(&C::Session) -> Result<T>,
    ) -> Result<T> {
        let session = self.launched(operation).await?;
        call(&session).await.map_err(named::<C>(operation))
    }

    async fn ledger(&self) -> Result<Arc<Ledger>> {
        let mut slot = self.ledger.lock().await;
        if let Some(ledger) = &*slot {
            return Ok(Arc::clone(ledger));
        }
        let file = &self.carrier.router().ledger;
        let ledger = Arc::new(Ledger::open(file, self.host.handle()?)?);
        *slot = Some(Arc::clone(&ledger));
        Ok(ledger)
    }

    async fn start(&self, membership: &Membership) -> Result<C::Session> {
        let host = self.host.handle()?;
        let mtu = self.carrier.mtu(&host, membership).await?;
        let ledger = self.ledger().await?;
        let mark = ledger.mark().await;
        let ground = Ground {
            membership: membership.clone(),
            host,
            ledger: Arc::clone(&ledger),
            mtu,
            config: self.carrier.router().clone(),
        };
        let outcome = self.carrier.launch(ground).await;
        if outcome.is_err()
            && let Err(failure) = ledger.roll_back(mark).await
        {
            tracing::error!(error = %failure, "the host could not be restored");
        }
        outcome
    }

    async fn come_up(&self, membership: &Membership) -> Result<Announcement> {
        let mut slot = self.running.lock().await;
        if let Some(running) = &mut *slot {
            let before = running.session.membership();
            let is_same =
                before.me.node == membership.me.node && before.cluster == membership.cluster;
            if is_same && !running.is_ending {
                let mtu = self.carrier.mtu(&self.host.handle()?, membership).await?;
                running.session.mend(membership, mtu).await?;
                return Ok(running.session.announcement());
            }
            running.end().await?;
            *slot = None;
        }
        let session = Arc::new(self.start(membership).await?);
        let announcement = session.announcement();
        *slot = Some(Running {
            tasks: Tasks::spawn(&session),
            session,
            is_ending: false,
        });
        Ok(announcement)
    }

    async fn go(&self) -> Result<()> {
        let session = self.launched("reset").await.ok();
        // Nothing of what runs may mend what is taken down.
        let stopped = self.stop().await;
        *self.running.lock().await = None;
        let let_go = match session {
            Some(session) => session.let_go().await,
            None => Ok(()),
        };
        let undone = self.ledger().await?.undo_all().await;
        let removed = self.carrier.remove(&self.host.handle()?).await;
        stopped.and(undone).and(removed).and(let_go)
    }
}

/// An error in the name of this call.
fn named<C: Carrier>(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.operation(operation).backend(C::NAME)
}

#[async_trait]
impl<C: Carrier> Overlay for RoutedOverlay<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn capabilities(&self) -> OverlayCapabilities {
        self.carrier.capabilities()
    }

    async fn preflight(&self, _: NodeAddr) -> Result<()> {
        let named = named::<C>("preflight");
        let is_running = self.running.lock().await.is_some();
        let config = self.carrier.router();
        let mut ours = self.carrier.links();
        ours.push(HOST_LINK);
        let host = self.host.handle().map_err(&named)?;
        let clashes = host
            .preflight(&config.networks, &config.resolvers, &ours)
            .await
            .map_err(&named)?;
        if let Some(clash) = clashes.into_iter().next() {
            return Err(named(Error::from(clash)));
        }
        let outcome = self.carrier.preflight(&self.host, is_running).await;
        outcome.map_err(named)
    }

    async fn launch(&self, membership: &Membership) -> Result<Announcement> {
        self.come_up(membership).await.map_err(named::<C>("launch"))
    }

    async fn connect(&self, peer: PeerSpec) -> Result<()> {
        self.ask("connect", async |session| session.connect(peer).await)
            .await
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        self.ask("nudge", async |session| session.nudge(node).await)
            .await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        self.ask("forget", async |session| session.forget(node).await)
            .await
    }

    async fn expose(&self, plane: Plane) -> Result<()> {
        self.ask("expose", async |session| {
            session.router().expose(plane, true).await
        })
        .await
    }

    async fn hide(&self, plane: Plane) -> Result<()> {
        self.ask("hide", async |session| {
            session.router().expose(plane, false).await
        })
        .await
    }

    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        self.ask("attach", async |session| {
            session.router().attach(attachment).await
        })
        .await
    }

    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        self.ask("detach", async |session| {
            session.router().detach(container, addr).await
        })
        .await
    }

    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        self.ask("list attached containers", async |session| {
            session.router().attached().await
        })
        .await
    }

    async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        self.ask("plug", async |session| session.router().plug(plug).await)
            .await
    }

    async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        self.ask("unplug", async |session| {
            session.router().unplug(endpoint).await
        })
        .await
    }

    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        self.ask("list links", async |session| {
            session.router().plugged().await
        })
        .await
    }

    async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        self.ask("allow wide addresses", async |session| {
            session.router().allow_wide(addrs).await
        })
        .await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.ask("list peers", async |session| Ok(session.peers().await))
            .await
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        self.ask("wait for a peer", async |session| {
            session.wait_reachable(node, limit).await
        })
        .await
    }

    async fn stop(&self) -> Result<()> {
        let mut slot = self.running.lock().await;
        if let Some(running) = &mut *slot {
            // Before it is let go: a call that is dropped here is finished by the next.
            running.end().await.map_err(named::<C>("stop"))?;
            *slot = None;
        }
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        self.go().await.map_err(named::<C>("reset"))
    }
}
