//! The backends that a node is made of.

use std::sync::Arc;

use arpanet_core::{Cluster, Error, ErrorKind, Result};
use arpanet_join::Verifier;
use arpanet_netlink::{Ledger, Namespace};

use super::api::Resolve;
use super::order::Me;
use super::state::Settings;
use crate::commands::Context;

/// A node put together from its backends.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) cluster: Cluster,
    resolver: Arc<dyn Resolve>,
}

impl Stack {
    /// Puts the embedded stack together.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: the overlay's backend is not finished, so no node can be brought up yet.
    #[expect(
        clippy::unused_async,
        reason = "the finished backends connect to what they need"
    )]
    pub(super) async fn build(
        context: &Context,
        me: &Me,
        settings: Settings,
        verifier: Option<Verifier>,
    ) -> Result<Self> {
        let _ = (context, settings, verifier);
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "node {} can't be brought up: this version has no overlay yet",
                me.node
            ),
        ))
    }

    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::clone(&self.resolver)
    }
}

/// Takes back what any earlier agent changed on this host, by the ledger that it kept.
pub(crate) async fn clean_host(context: &Context) -> Result<()> {
    let path = context.paths.ledger();
    if !path.exists() {
        return Ok(());
    }
    Ledger::open(path, Namespace::current()?.handle()?)?
        .undo_all()
        .await
}
