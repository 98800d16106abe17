//! Following the engine: the whole list first, then what its events tell of, and the whole list again after it was away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{Container, ContainerState};
use arpanet_core::watch::WatchHub;
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, watch};

use crate::client::Client;
use crate::keep::Keep;
use crate::spec::{self, Found};

/// Between attempts to reach an engine that is away.
const AGAIN: Duration = Duration::from_millis(100);
/// How many containers are asked for at once.
const AT_ONCE: usize = 16;
/// How many events are taken together.
const TOGETHER: usize = 256;
/// An engine without events is well: the connection is never given up for that.
pub(crate) const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// As an engine tells of a container that ended without it.
const ENDED: ContainerState = ContainerState::Exited { code: 137 };

/// What is known of the engine's containers.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) client: Client,
    pub(crate) keep: Keep,
    pub(crate) hub: WatchHub<ContainerName, Container>,
    /// By id. Held while containers are asked for and told, so that nothing older is told after something newer.
    names: Mutex<HashMap<String, ContainerName>>,
    /// Whether the list was read since this process began.
    pub(crate) read: watch::Sender<bool>,
}

impl Known {
    pub(crate) fn new(client: Client, keep: Keep) -> Self {
        let hub = WatchHub::new();
        hub.set_stale(true);
        Self {
            client,
            keep,
            hub,
            names: Mutex::new(HashMap::new()),
            read: watch::Sender::new(false),
        }
    }

    /// A container by its name or id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown one.
    pub(crate) async fn find(&self, name: &str) -> Result<Found> {
        let docker = self.client.docker().await?;
        let shown = docker
            .inspect_container(name, None)
            .await
            .map_err(|error| self.client.error(error))?;
        spec::found(shown, |id, labels| self.keep.apply(id, labels))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no container {name}")))
    }

    /// Whether arpanet2 made it, or it wants something of arpanet2.
    fn is_ours(&self, found: &Found) -> bool {
        found.is_own || self.keep.knows(&found.id)
    }

    /// All that arpanet2 made or looks after.
    pub(crate) async fn all(&self) -> Result<Vec<Found>> {
        let docker = self.client.docker().await?;
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let listed = docker
            .list_containers(Some(options))
            .await
            .map_err(|error| self.client.error(error))?;
        let ids: BTreeSet<String> = listed.into_iter().filter_map(|one| one.id).collect();
        self.keep.retain(|id| ids.contains(id))?;
        let all: Vec<Option<Found>> = stream::iter(ids)
            .map(async |id| there(self.find(&id).await))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let ours = all
            .into_iter()
            .flatten()
            .filter(|found| self.is_ours(found));
        Ok(ours.collect())
    }

    /// Reads the whole list.
    async fn read_all(&self) -> Result<()> {
        let mut names = self.names.lock().await;
        let all = self.all().await?;
        names.clear();
        let mut set = BTreeMap::new();
        for found in all {
            names.insert(found.id, found.container.name.clone());
            set.insert(found.container.name.clone(), found.container);
        }
        self.hub.replace(set);
        self.hub.set_stale(false);
        self.read.send_replace(true);
        Ok(())
    }

    /// Asks for one container, and tells how it is.
    pub(crate) async fn refresh(&self, id: &str) -> Result<()> {
        let mut names = self.names.lock().await;
        let found = there(self.find(id).await)?.filter(|found| self.is_ours(found));
        let now = found.as_ref().map(|found| &found.container.name);
        if let Some(before) = names.get(id).filter(|before| Some(*before) != now) {
            self.hub.remove(before);
        }
        match found {
            Some(found) => {
                names.insert(found.id, found.container.name.clone());
                self.hub
                    .upsert(found.container.name.clone(), found.container);
            }
            None => {
                names.remove(id);
            }
        }
        Ok(())
    }

    /// Notes what ended while the engine is away, and so can't say it: an engine that is stopped takes its containers with
    /// it, unless it is set to restore them live.
    async fn note_ended(&self) {
        let _names = self.names.lock().await;
        for (name, container) in self.hub.snapshot() {
            let Some(NetNamespace::Path(namespace)) = &container.namespace else {
                continue;
            };
            if container.state == ContainerState::Running && !namespace.exists() {
                let ended = container.state(ENDED).namespace(None);
                self.hub.upsert(name, ended);
            }
        }
    }

    /// Follows the engine until the connection ends.
    async fn follow(&self) -> Result<()> {
        let docker = self.client.docker().await?.with_timeout(NEVER);
        // Events since then are told again, so none is lost between the list and the subscription.
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.read_all().await?;
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let filters: HashMap<&str, Vec<&str>> = [("type", vec!["container", "network"])].into();
        let options = EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build();
        let mut events = docker.events(Some(options)).ready_chunks(TOGETHER);
        while let Some(together) = events.next().await {
            let mut ids = BTreeSet::new();
            for event in together {
                let event = event.map_err(|error| self.client.error(error))?;
                ids.extend(concerns(event));
            }
            for id in ids {
                self.refresh(&id).await?;
            }
        }
        Ok(())
    }
}

/// `None` for one that is gone meanwhile.
pub(crate) fn there<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The container that an event may have changed.
fn concerns(event: EventMessage) -> Option<String> {
    let action = event.action?;
    let actor = event.actor?;
    match action.as_str() {
        "connect" | "disconnect" => actor.attributes?.remove("container"),
        // What is done in one or with one does not change it.
        _ if action.starts_with("exec_") || action.starts_with("health_status: starting") => None,
        "attach" | "commit" | "copy" | "export" | "resize" | "top" | "archive-path"
        | "extract-to-dir" => None,
        _ => actor.id,
    }
}

/// Follows the engine for good.
async fn keep_following(known: Arc<Known>) {
    let mut is_told = false;
    loop {
        let outcome = known.follow().await;
        known.hub.set_stale(true);
        known.client.reset();
        known.note_ended().await;
        match outcome {
            Err(error) if !is_told => {
                tracing::warn!(%error, "the docker engine can't be followed");
                is_told = true;
            }
            Err(_) => {}
            Ok(()) => {
                tracing::info!("the docker engine ended its events");
                is_told = false;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows the engine as long as this is held.
#[derive(Debug)]
pub(crate) struct Following(tokio::task::JoinHandle<()>);

impl Following {
    pub(crate) fn start(known: &Arc<Known>) -> Self {
        Self(tokio::spawn(keep_following(Arc::clone(known))))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}
