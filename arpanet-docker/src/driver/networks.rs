//! What the driver needs of the cluster.

use std::fmt;
use std::net::Ipv4Addr;

use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, AppNet, EndpointId, Result};
use async_trait::async_trait;

/// The cluster as the network driver sees it.
///
/// Every call is idempotent: engines repeat calls whose answer was lost, and so does the driver when it comes back. Taking
/// back what is not there succeeds.
#[async_trait]
pub trait Networks: fmt::Debug + Send + Sync + 'static {
    /// A network that nobody uses, for an engine that names none.
    ///
    /// # Errors
    /// [`Exhausted`](arpanet_core::ErrorKind::Exhausted) when all are taken.
    async fn choose(&self) -> Result<AppNet>;

    /// An engine is about to have this network. The same again is nothing new.
    ///
    /// # Errors
    /// [`Conflict`](arpanet_core::ErrorKind::Conflict) when it overlaps another one of the cluster, which is named.
    async fn make(&self, net: AppNet) -> Result<()>;

    /// The engine of this host has this network no more.
    ///
    /// # Errors
    /// None of its own.
    async fn remove(&self, net: AppNet) -> Result<()>;

    /// Takes an address for this host, any free one or this. One that this host has reserved already is reserved again.
    ///
    /// # Errors
    /// [`Conflict`](arpanet_core::ErrorKind::Conflict) when another container has it, which is named;
    /// [`Exhausted`](arpanet_core::ErrorKind::Exhausted) when the network is full.
    async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr>;

    /// Gives an address back.
    ///
    /// # Errors
    /// None of its own.
    async fn release(&self, addr: AppAddr) -> Result<()>;

    /// Makes a link for the engine to move: [`Overlay::plug`](arpanet_core::Overlay::plug).
    ///
    /// # Errors
    /// Those of the overlay.
    async fn plug(&self, plug: &Plug) -> Result<Plugged>;

    /// Removes a link: [`Overlay::unplug`](arpanet_core::Overlay::unplug).
    ///
    /// # Errors
    /// Those of the overlay.
    async fn unplug(&self, endpoint: &EndpointId) -> Result<()>;

    /// The endpoints that have a link: [`Overlay::plugged`](arpanet_core::Overlay::plugged).
    ///
    /// # Errors
    /// Those of the overlay.
    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>>;
}
