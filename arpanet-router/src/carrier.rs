//! What an overlay has of its own: how packets get from one host's router to another's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, OverlayCapabilities, PeerSpec, PeerStatus};
use arpanet_core::{NodeAddr, Result};
use arpanet_netlink::{Ledger, Namespace, Netlink};
use async_trait::async_trait;

use crate::{Router, RouterConfig, Uplink};

/// What carries packets between the routers of hosts. A [`RoutedOverlay`](crate::RoutedOverlay) on it is a whole overlay.
#[async_trait]
pub trait Carrier: fmt::Debug + Send + Sync + 'static {
    /// The overlay's name, in errors and in what it is asked by.
    const NAME: &'static str;
    /// What can be set.
    type Config;
    /// What runs from a launch to the stop.
    type Session: Session;

    /// Made of that configuration, on the host in whose namespace the caller is. Changes nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](arpanet_core::ErrorKind::InvalidInput) for a configuration that can't be.
    fn new(config: Self::Config, host: &Namespace) -> Result<Self>
    where
        Self: Sized;

    /// What the router is made of.
    fn router(&self) -> &RouterConfig;

    /// What it can do.
    fn capabilities(&self) -> OverlayCapabilities;

    /// Links of the host that are its own, and clash with nothing.
    fn links(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Looks for what would make a launch fail, beside clashes of addresses. Changes nothing.
    ///
    /// # Errors
    /// What is in the way.
    async fn preflight(&self, host: &Namespace, is_running: bool) -> Result<()>;

    /// The MTU inside, in bytes.
    ///
    /// # Errors
    /// Where the host can't be read.
    async fn mtu(&self, host: &Netlink, membership: &Membership) -> Result<u16>;

    /// Starts. What is in the ledger is rolled back by the caller if it fails; all else it takes back itself.
    ///
    /// # Errors
    /// Those of [`Overlay::launch`](arpanet_core::Overlay::launch).
    async fn launch(&self, ground: Ground) -> Result<Self::Session>;

    /// Removes what it leaves on the host beside what is in the ledger, also of a process that was killed.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn remove(&self, _host: &Netlink) -> Result<()> {
        Ok(())
    }
}

/// What a launch stands on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ground {
    /// Whose overlay it is.
    pub membership: Membership,
    /// The host.
    pub host: Netlink,
    /// Where changes to the host are written down.
    pub ledger: Arc<Ledger>,
    /// The MTU inside, in bytes.
    pub mtu: u16,
    pub(crate) config: RouterConfig,
}

impl Ground {
    /// Makes the router with this uplink, or mends the one that an earlier process left.
    ///
    /// # Errors
    /// Those of [`Router::launch`].
    pub async fn router(&self, uplink: Uplink) -> Result<Router> {
        let (host, ledger) = (self.host.clone(), Arc::clone(&self.ledger));
        Router::launch(
            &self.config,
            uplink,
            host,
            ledger,
            self.membership.me.node,
            self.mtu,
        )
        .await
    }
}

/// What runs from a launch to the stop. Its methods promise what those of [`Overlay`](arpanet_core::Overlay) do.
#[async_trait]
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// Whose overlay it is.
    fn membership(&self) -> &Membership;

    /// What isolates it.
    fn router(&self) -> &Router;

    /// What the others have to be told.
    fn announcement(&self) -> Announcement;

    /// Makes good what happened to it, with this MTU inside, in bytes: the second launch.
    ///
    /// # Errors
    /// As the first.
    async fn mend(&self, membership: &Membership, mtu: u16) -> Result<()>;

    /// Adds or changes a peer.
    ///
    /// # Errors
    /// Those of [`Overlay::connect`](arpanet_core::Overlay::connect).
    async fn connect(&self, peer: PeerSpec) -> Result<()>;

    /// Tries a peer again at once.
    ///
    /// # Errors
    /// Those of [`Overlay::nudge`](arpanet_core::Overlay::nudge).
    async fn nudge(&self, node: NodeAddr) -> Result<()>;

    /// Removes a peer.
    ///
    /// # Errors
    /// Those of [`Overlay::forget`](arpanet_core::Overlay::forget).
    async fn forget(&self, node: NodeAddr) -> Result<()>;

    /// How its peers are.
    async fn peers(&self) -> Vec<PeerStatus>;

    /// Waits until a peer answers.
    ///
    /// # Errors
    /// Those of [`Overlay::wait_reachable`](arpanet_core::Overlay::wait_reachable).
    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()>;

    /// One round of what goes on by itself, every 2 s.
    async fn tend(&self);

    /// Ends what does not outlive the process. A call that was dropped is finished by the next.
    ///
    /// # Errors
    /// What could not be ended.
    async fn stop(&self) -> Result<()>;

    /// Takes back, for a reset, what was told to others that go on.
    ///
    /// # Errors
    /// What could not be told.
    async fn let_go(&self) -> Result<()> {
        Ok(())
    }
}
