//! A rolling restart: one container after the other, and none before the last one answers again.

use std::collections::BTreeSet;
use std::time::Duration;

use arpanet_core::discovery::{Discovery, Health, Instance, Selector};
use arpanet_core::runtime::Runtime;
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{ContainerName, Error, ErrorKind, InstanceId, Result, ServiceName};

/// Restarts the containers of a service on this host one by one. Each has to be in the catalogue again within `limit`
/// before the next one is stopped. Agents register what they run, so nothing is registered here.
///
/// # Errors
/// [`ErrorKind::Timeout`] names the container that did not come back; those after it were not touched. Otherwise those of
/// the layers.
pub async fn restart(
    discovery: &dyn Discovery,
    runtime: &dyn Runtime,
    service: &ServiceName,
    limit: Duration,
) -> Result<Vec<ContainerName>> {
    let mut done = Vec::new();
    for container in runtime.list().await? {
        let provides = container.spec.service.as_ref();
        if provides.is_none_or(|provided| provided.name != *service) {
            continue;
        }
        let name = container.name.as_str();
        let mut instance = Followed::new(discovery, service, name).await?;
        runtime.stop(&container.name).await?;
        // Nobody is sent there any more before it starts again.
        instance.becomes(false, limit).await?;
        runtime.start(&container.name).await?;
        instance.becomes(true, limit).await?;
        done.push(container.name);
    }
    Ok(done)
}

/// The instances of one container, as the catalogue tells of them.
struct Followed<'a> {
    container: &'a str,
    changes: Watch<InstanceId, Instance>,
    passing: BTreeSet<InstanceId>,
}

impl<'a> Followed<'a> {
    async fn new(
        discovery: &dyn Discovery,
        service: &ServiceName,
        container: &'a str,
    ) -> Result<Self> {
        let selector = Selector::Service(service.clone());
        Ok(Self {
            container,
            changes: discovery.watch(selector).await?,
            passing: BTreeSet::new(),
        })
    }

    /// Waits until traffic goes there, or does not.
    async fn becomes(&mut self, passing: bool, limit: Duration) -> Result<()> {
        let name = self.container;
        let waited = tokio::time::timeout(limit, async {
            // The first change is a snapshot: nothing is known before it.
            while let Some(change) = self.changes.next().await {
                self.note(change);
                if self.passing.is_empty() != passing {
                    return Ok(());
                }
            }
            Err(Error::new(ErrorKind::Unavailable, "discovery has stopped"))
        });
        let is = if passing { "in" } else { "out of" };
        waited.await.unwrap_or_else(|_| {
            let message = format!("{name} was not {is} the catalogue within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, message)
                .with_hint("the containers after it were left as they are"))
        })
    }

    fn note(&mut self, change: Change<InstanceId, Instance>) {
        match change {
            Change::Snapshot(all) => {
                self.passing.clear();
                all.into_values().for_each(|instance| self.see(instance));
            }
            Change::Upsert(_, instance) => self.see(instance),
            Change::Removed(id) => {
                self.passing.remove(&id);
            }
            _ => {}
        }
    }

    fn see(&mut self, instance: Instance) {
        // An agent's ids are NODE:CONTAINER:IP.
        let mine = instance.id.as_str().split(':').nth(1) == Some(self.container);
        if mine && instance.health == Health::Passing {
            self.passing.insert(instance.id);
        } else {
            self.passing.remove(&instance.id);
        }
    }
}
