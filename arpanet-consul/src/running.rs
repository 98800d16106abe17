//! What a started backend has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::discovery::{Instance, Selector};
use arpanet_core::watch::Watch;
use arpanet_core::{ErrorKind, InstanceId, Result};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::config::Consistency;
use crate::instances::{self, Following};
use crate::leadership::Leadership;
use crate::reading::{Answer, Reading};
use crate::registry::Registry;
use crate::told::{self, Told};
use crate::wire::ServiceEntry;

/// Where the catalogue is read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) leadership: Leadership,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    /// Whether the agent knows of a leader.
    pub(crate) leader: tokio::sync::watch::Receiver<bool>,
    /// Connections for watches of one service each.
    pub(crate) connections: Arc<Semaphore>,
    /// Ends every watch.
    pub(crate) cancel: CancellationToken,
}

impl Source {
    /// Beyond this index.
    pub(crate) fn beyond(&self, index: u64) -> Reading {
        Reading::beyond(self.consistency, index, self.wait).followed()
    }

    /// Reads in the mode that was asked for. With `default`, and without a leader, any server's answer will do, as for
    /// consul's own DNS; the answer tells.
    async fn read<'a, T>(
        &'a self,
        read: impl Fn(Reading) -> BoxFuture<'a, Result<Answer<T>>> + Send + Sync,
    ) -> Result<Answer<T>> {
        let stale = Reading::now(Consistency::Stale);
        if self.consistency != Consistency::Default {
            return read(Reading::now(self.consistency)).await;
        }
        if !*self.leader.borrow() {
            return read(stale).await;
        }
        match read(Reading::now(Consistency::Default)).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                read(stale).await.map_err(|_| error)
            }
            answer => answer,
        }
    }

    /// What a service has now.
    pub(crate) async fn service(&self, name: &str) -> Result<Answer<Vec<ServiceEntry>>> {
        let name: Arc<str> = name.into();
        self.read(move |reading| {
            let name = Arc::clone(&name);
            Box::pin(async move { self.client.health_service(&name, reading).await })
        })
        .await
    }

    /// The names of the cluster's services.
    pub(crate) async fn names(&self) -> Result<Answer<Vec<String>>> {
        let answer = self
            .read(|reading| Box::pin(self.client.service_names(reading)))
            .await?;
        Ok(Answer {
            value: instances::of_the_cluster(answer.value),
            index: answer.index,
            has_leader: answer.has_leader,
        })
    }
}

/// A watch that is there while somebody reads it.
#[derive(Debug)]
struct Shared {
    of_all: bool,
    told: Weak<told::Inner>,
    guard: Weak<DropGuard>,
}

impl Shared {
    fn following(&self) -> Option<Following> {
        Some(Following {
            told: Told::upgrade(&self.told)?,
            guard: self.guard.upgrade()?,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) membership: Membership,
    pub(crate) source: Source,
    pub(crate) registry: Arc<Registry>,
    watched: Mutex<Vec<Shared>>,
}

impl Running {
    pub(crate) fn new(membership: Membership, source: Source, registry: Arc<Registry>) -> Self {
        Self {
            membership,
            source,
            registry,
            watched: Mutex::default(),
        }
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Shared>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|shared| shared.guard.strong_count() > 0);
        watched
    }

    fn share(&self, following: &Following, of_all: bool) {
        self.watched().push(Shared {
            of_all,
            told: following.told.downgrade(),
            guard: Arc::downgrade(&following.guard),
        });
    }

    /// What a service has now, in this answer's own freshness; watches are told it too.
    pub(crate) async fn look(&self, service: &str) -> Result<Answer<Vec<ServiceEntry>>> {
        let answer = self.source.service(service).await?;
        if answer.has_leader {
            for shared in self.watched().iter().filter_map(Shared::following) {
                shared.told.overtake(service, &answer.value, answer.index);
            }
        }
        Ok(answer)
    }

    pub(crate) async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        // A watch of all that somebody reads already has what one of a service has.
        let shared = self
            .watched()
            .iter()
            .filter(|shared| shared.of_all)
            .find_map(Shared::following);
        let connection = Arc::clone(&self.source.connections).try_acquire_owned();
        let following = match (shared, &selector, connection) {
            (Some(shared), ..) => shared,
            (None, Selector::Service(service), Ok(connection)) => {
                let source = &self.source;
                let following = instances::of_service(source, service.as_str(), connection).await?;
                self.share(&following, false);
                following
            }
            (None, _, connection) => {
                drop(connection);
                let following = instances::of_all(&self.source).await?;
                self.share(&following, true);
                following
            }
        };
        let Following { told, guard } = following;
        Ok(told.hub().watch_where(move |_, instance| {
            // Ends with its last reader.
            let _ = &guard;
            selector.matches(instance)
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.source.cancel.cancel();
    }
}
