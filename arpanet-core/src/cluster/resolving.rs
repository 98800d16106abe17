//! Whom the containers of this host ask for names: the router, as long as they are attached.
//!
//! Runtimes are told beside the reconciliation, one call a container at a time: an engine that is busy keeps nobody from
//! being attached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Node;
use super::plan::Wanted;
use super::reconcile::{Applied, Outcome};
use crate::addr::ROUTER_ADDRESS;
use crate::overlay::{AttachAddr, NetNamespace};
use crate::runtime::{ContainerState, Resolver};
use crate::{ContainerName, Error, ErrorKind, Result, Runtime};

/// Whom a container is to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    /// The router. It is told again in another namespace, since that is another start, and with other addresses, since
    /// engines write their own anew when a container joins a network.
    Router(NetNamespace, BTreeSet<AttachAddr>),
    /// Those that its engine named.
    Engines,
    /// Not known: an earlier process may have told it.
    Unknown,
}

#[derive(Debug)]
enum Progress {
    UnderWay,
    Done,
    Failed(Error),
}

#[derive(Debug)]
struct Told {
    whom: Whom,
    progress: Progress,
}

/// What the containers were told; shared with the calls that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolving(Arc<Mutex<BTreeMap<ContainerName, Told>>>);

impl Resolving {
    fn told(&self) -> MutexGuard<'_, BTreeMap<ContainerName, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was told.
    pub(super) fn clear(&self) {
        self.told().clear();
    }

    /// A container was detached: if it is attached nowhere else, it is to be told.
    pub(super) fn doubt(&self, name: &ContainerName) {
        self.told().entry(name.clone()).or_insert(Told {
            whom: Whom::Unknown,
            progress: Progress::Done,
        });
    }
}

/// Tells one container, and again while it is to ask somebody else by then.
struct Teller {
    resolving: Resolving,
    runtime: Arc<dyn Runtime>,
    router: Resolver,
    name: ContainerName,
    kick: Arc<Notify>,
}

impl Teller {
    async fn run(self) {
        loop {
            let Some(whom) = self.whom() else { return };
            let router = matches!(whom, Whom::Router(..)).then(|| self.router.clone());
            let said = tell(&*self.runtime, &self.name, router).await;
            let mut told = self.resolving.told();
            let Some(entry) = told.get_mut(&self.name) else {
                return;
            };
            if entry.whom != whom {
                continue;
            }
            match said {
                Ok(()) if whom == Whom::Engines => {
                    told.remove(&self.name);
                }
                Ok(()) => entry.progress = Progress::Done,
                Err(error) => {
                    entry.progress = Progress::Failed(error);
                    self.kick.notify_one();
                }
            }
            return;
        }
    }

    fn whom(&self) -> Option<Whom> {
        let told = self.resolving.told();
        told.get(&self.name).map(|entry| entry.whom.clone())
    }
}

async fn tell(runtime: &dyn Runtime, name: &ContainerName, router: Option<Resolver>) -> Result<()> {
    match runtime.set_resolver(name, router).await {
        Ok(asks) => {
            tracing::debug!(%name, asks, "told a container whom to ask for names");
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

impl Node {
    /// Whom attached containers ask, and where they look for short names.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver::new([ROUTER_ADDRESS]).search(format!("service.{}", self.domain))
    }

    /// Has a running container ask the router while it has an address here, and those that it had before when it has none
    /// any more.
    ///
    /// # Errors
    /// What came of it the last time; it is tried again.
    pub(super) fn resolve(&self, applied: &Applied, container: &Wanted) -> Result<()> {
        let name = &container.name;
        if container.state != ContainerState::Running {
            return Ok(());
        }
        let is_attached = |addr: &AttachAddr| {
            let attached = applied.attached.as_ref();
            let at = attached.and_then(|attached| attached.get(&(name.clone(), *addr)));
            at.is_some_and(|at| at.as_ref() == Some(&container.namespace))
        };
        let addrs: BTreeSet<AttachAddr> = container.attach_addrs().filter(is_attached).collect();
        match addrs.is_empty() {
            true => self.has_ask(name, Whom::Engines),
            false => self.has_ask(name, Whom::Router(container.namespace.clone(), addrs)),
        }
    }

    fn has_ask(&self, name: &ContainerName, whom: Whom) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        if !runtime.capabilities().resolver {
            return Ok(());
        }
        let mut told = self.resolving.told();
        let before = match told.get_mut(name) {
            None if whom == Whom::Engines => return Ok(()),
            None => None,
            Some(entry) => {
                let is_new = std::mem::replace(&mut entry.whom, whom.clone()) != whom;
                match std::mem::replace(&mut entry.progress, Progress::UnderWay) {
                    // Who tells it finds what is to be told now.
                    Progress::UnderWay => return Ok(()),
                    Progress::Done if !is_new => {
                        entry.progress = Progress::Done;
                        return Ok(());
                    }
                    Progress::Done => None,
                    Progress::Failed(error) => Some(error),
                }
            }
        };
        told.entry(name.clone()).or_insert(Told {
            whom,
            progress: Progress::UnderWay,
        });
        drop(told);
        let teller = Teller {
            resolving: self.resolving.clone(),
            runtime: Arc::clone(runtime),
            router: self.resolver(),
            name: name.clone(),
            kick: Arc::clone(&self.kick),
        };
        tokio::spawn(teller.run());
        before.map_or(Ok(()), Err)
    }

    /// Has containers that are none of the cluster's any more ask those that they had before.
    pub(super) fn release_resolvers(&self, wanted: &[Wanted], outcome: &mut Outcome) {
        let wanted: BTreeSet<&ContainerName> =
            wanted.iter().map(|container| &container.name).collect();
        let left: Vec<ContainerName> = {
            let told = self.resolving.told();
            let names = told.keys();
            names
                .filter(|name| !wanted.contains(name))
                .cloned()
                .collect()
        };
        for name in left {
            if let Err(error) = self.has_ask(&name, Whom::Engines) {
                outcome.releases.insert(name, error);
            }
        }
    }

    /// Has the containers of this host ask those that they had before, since the overlay goes.
    pub(super) async fn stop_resolving(&self) -> Result<()> {
        let told = std::mem::take(&mut *self.resolving.told());
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let mut outcomes = Vec::new();
        for name in told.into_keys() {
            if runtime.capabilities().resolver {
                // After a call that is under way: changes of one container keep their order.
                outcomes.push(tell(&**runtime, &name, None).await);
            }
        }
        outcomes.into_iter().collect()
    }
}
