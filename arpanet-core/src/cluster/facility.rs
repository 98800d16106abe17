//! What a node serves while it is up.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

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
}

impl FacilityContext {
    pub(super) const fn new(membership: Membership, discovery: Arc<dyn Discovery>) -> Self {
        Self {
            membership,
            discovery,
        }
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
