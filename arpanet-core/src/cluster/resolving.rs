//! Whom the containers of this host ask for names: the router, as long as they are attached.

use std::collections::BTreeSet;

use super::Node;
use super::plan::Wanted;
use super::reconcile::{Applied, Outcome};
use crate::addr::ROUTER_ADDRESS;
use crate::overlay::{AttachAddr, NetNamespace};
use crate::runtime::{ContainerState, Resolver};
use crate::{ContainerName, ErrorKind, Result};

/// A container as it was when it was told whom to ask: it is told again in another namespace, since that is another start,
/// and with other addresses, since engines write their own anew when a container joins a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asks {
    namespace: NetNamespace,
    addrs: BTreeSet<AttachAddr>,
}

impl Node {
    /// Whom attached containers ask, and where they look for short names.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver::new([ROUTER_ADDRESS]).search(format!("service.{}", self.domain))
    }

    /// Has a running container ask the router while it has an address here, and those that it had before when it has none
    /// any more.
    pub(super) async fn resolve(&self, applied: &mut Applied, container: &Wanted) -> Result<()> {
        if container.state != ContainerState::Running || !self.changes_resolvers() {
            return Ok(());
        }
        let name = &container.name;
        let namespace = &container.namespace;
        let is_attached = |addr: &AttachAddr| {
            let attached = applied.attached.as_ref();
            let at = attached.and_then(|attached| attached.get(&(name.clone(), *addr)));
            at.is_some_and(|at| at.as_ref() == Some(namespace))
        };
        let addrs: BTreeSet<AttachAddr> = container.attach_addrs().filter(is_attached).collect();
        let asks = Some(Asks {
            namespace: namespace.clone(),
            addrs,
        })
        .filter(|asks| !asks.addrs.is_empty());
        match (&asks, applied.resolving.get(name)) {
            (Some(_), Some(told)) if *told == asks => return Ok(()),
            (None, None) => return Ok(()),
            _ => {}
        }
        self.ask(name, asks.is_some()).await?;
        match asks {
            Some(asks) => applied.resolving.insert(name.clone(), Some(asks)),
            None => applied.resolving.remove(name),
        };
        Ok(())
    }

    /// Has containers that are none of the cluster's any more ask those that they had before.
    pub(super) async fn release_resolvers(
        &self,
        applied: &mut Applied,
        wanted: &[Wanted],
        outcome: &mut Outcome,
    ) {
        let wanted: BTreeSet<&ContainerName> =
            wanted.iter().map(|container| &container.name).collect();
        let told = applied.resolving.keys();
        let left: Vec<ContainerName> = told
            .filter(|name| !wanted.contains(name))
            .cloned()
            .collect();
        for name in left {
            let released = match self.changes_resolvers() {
                true => self.ask(&name, false).await,
                false => Ok(()),
            };
            match released {
                Ok(()) => {
                    applied.resolving.remove(&name);
                }
                Err(error) => {
                    outcome.releases.insert(name, error);
                }
            }
        }
    }

    /// Has the containers of this host ask those that they had before, since the overlay goes.
    pub(super) async fn stop_resolving(&self) -> Result<()> {
        if !self.changes_resolvers() {
            return Ok(());
        }
        let told: Vec<ContainerName> = {
            let applied = self.applied.lock().await;
            applied.resolving.keys().cloned().collect()
        };
        let mut outcomes = Vec::new();
        for name in told {
            outcomes.push(self.ask(&name, false).await);
        }
        outcomes.into_iter().collect()
    }

    fn changes_resolvers(&self) -> bool {
        let runtime = self.runtime.as_ref();
        runtime.is_some_and(|runtime| runtime.capabilities().resolver)
    }

    async fn ask(&self, name: &ContainerName, router: bool) -> Result<()> {
        let resolver = router.then(|| self.resolver());
        match self.runtime()?.set_resolver(name, resolver).await {
            Ok(asks) => {
                tracing::debug!(%name, router, asks, "told a container whom to ask for names");
                Ok(())
            }
            // It has ended meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {
                tracing::debug!(%name, %error, "a container could not be told whom to ask for names");
                Ok(())
            }
            Err(error) => Err(error.context("it can't be told whom to ask for names")),
        }
    }
}
