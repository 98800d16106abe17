//! What a node serves while it is up.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::ClusterEvent;
use crate::admission::Membership;
use crate::{Discovery, Result};

/// What a facility may use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FacilityContext {
    /// Which node of which cluster.
    pub membership: Membership,
    /// The catalogue.
    pub discovery: Arc<dyn Discovery>,
    events: broadcast::Sender<ClusterEvent>,
}

impl FacilityContext {
    pub(super) const fn new(
        membership: Membership,
        discovery: Arc<dyn Discovery>,
        events: broadcast::Sender<ClusterEvent>,
    ) -> Self {
        Self {
            membership,
            discovery,
            events,
        }
    }

    /// Tells the node's operator, in a sentence, of something that could not be brought about and is tried again.
    pub fn trouble(&self, what: impl Into<String>) {
        let event = ClusterEvent::Trouble { what: what.into() };
        tracing::warn!(?event);
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

/// Something that a node serves while it is up: DNS, its docker API. A node is ready once all of its facilities are.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Facility: fmt::Debug + Send + Sync + 'static {
    /// Its name, as in "`NAME` failed to start".
    fn name(&self) -> &'static str;

    /// Serves from now on; returns when it answers. A second call does nothing.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when a port can't be had, naming who holds it.
    async fn start(&self, context: &FacilityContext) -> Result<()>;

    /// Stops serving. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn stop(&self) -> Result<()>;
}
