//! The trait, on the engine's API.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, Exec, ExecSpec, LogOptions, Output, Runtime,
    RuntimeCapabilities,
};
use arpanet_core::watch::Watch;
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use async_trait::async_trait;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::TryStreamExt;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::config::DockerConfig;
use crate::error::{BACKEND, own};
use crate::keep::Keep;
use crate::spec;
use crate::watch::{Following, Known, there};
use crate::{exec, logs};

/// How long a stop waits where the spec does not say.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What a stop takes beside its grace.
const STOP_EXTRA: Duration = Duration::from_secs(60);

/// How long the first list of an engine may take before a watch begins without it.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// Between two looks at a container that is being removed.
const LOOK: Duration = Duration::from_millis(20);

/// How long a removal by somebody else may take.
const REMOVAL: Duration = Duration::from_secs(30);

/// [`Runtime`] on a docker engine, Docker's own or Podman's. See the crate's documentation.
///
/// Clones are the same runtime. Dropping the last one leaves the containers as they are.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    known: Arc<Known>,
    _following: Following,
}

impl DockerRuntime {
    /// The engine that the configuration names. Nothing is asked yet: an engine that is away is followed as soon as it
    /// answers, and again after it was restarted. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], with its path, for a damaged file of labels.
    pub fn open(config: DockerConfig) -> Result<Self> {
        let keep = Keep::open(config.labels)?;
        let known = Arc::new(Known::new(Client::new(config.socket), keep));
        let following = Following::start(&known);
        Ok(Self {
            inner: Arc::new(Inner {
                known,
                _following: following,
            }),
        })
    }

    fn known(&self) -> &Arc<Known> {
        &self.inner.known
    }

    fn client(&self) -> &Client {
        &self.known().client
    }

    /// The engine's version, as `20.10.24`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it does not answer.
    pub async fn version(&self) -> Result<String> {
        let docker = self.client().docker().await?;
        let version = docker
            .version()
            .await
            .map_err(|error| self.client().error(error))?;
        Ok(version.version.unwrap_or_default())
    }

    /// Makes it, or finds the one that is there.
    async fn make(&self, name: &ContainerName, spec: &ContainerSpec) -> Result<Container> {
        let body = spec::body(name, spec)?;
        if let Some(found) = there(self.known().find(name.as_str()).await)? {
            let mut wanted = spec.clone();
            wanted.name = Some(name.clone());
            return match found.made_of {
                Some(made_of) if made_of == wanted => Ok(found.container),
                _ => Err(own(
                    ErrorKind::Conflict,
                    format!("there is another container called {name} in this engine"),
                )
                .with_hint("remove it first, or choose another name")),
            };
        }
        let docker = self.client().docker().await?;
        let options = CreateContainerOptionsBuilder::new()
            .name(name.as_str())
            .build();
        let made = docker.create_container(Some(options), body).await;
        match made.map_err(|error| self.client().error(error)) {
            Ok(made) => {
                self.known().refresh(&made.id).await?;
                Ok(self.known().find(&made.id).await?.container)
            }
            Err(error) => Err(error),
        }
    }

    async fn is_present(&self, image: &str) -> Result<bool> {
        let docker = self.client().docker().await?;
        let shown = docker.inspect_image(image).await;
        let shown = shown.map_err(|error| self.client().error(error));
        Ok(there(shown)?.is_some())
    }

    /// Tells the watchers before the engine's event does.
    async fn tell(&self, name: &ContainerName) {
        let id = match self.known().find(name.as_str()).await {
            Ok(found) => found.id,
            Err(_) => return,
        };
        if let Err(error) = self.known().refresh(&id).await {
            tracing::debug!(%name, %error, "a change is told by the engine's event");
        }
    }
}

/// Says what was being done.
fn during<T>(operation: &'static str, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error: Error| error.operation(operation).backend(BACKEND))
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        BACKEND
    }

    /// A container has no namespace before its start.
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::all().without_attach_before_start()
    }

    async fn pull(&self, image: &str) -> Result<()> {
        let pull = async {
            if self.is_present(image).await? {
                return Ok(());
            }
            let docker = self.client().docker().await?;
            // Without a tag the engine would fetch all of them.
            let last = image.rsplit('/').next().unwrap_or(image);
            let tag = if last.contains([':', '@']) {
                ""
            } else {
                "latest"
            };
            let mut options = CreateImageOptionsBuilder::new().from_image(image);
            if !tag.is_empty() {
                options = options.tag(tag);
            }
            let progress = docker.create_image(Some(options.build()), None, None);
            progress
                .try_for_each(|step| async move {
                    tracing::debug!(status = ?step.status, layer = ?step.id, "pulling");
                    Ok(())
                })
                .await
                .map_err(|error| self.client().error(error))
        };
        during("pull", pull.await)
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let create = async {
            let name = spec
                .name
                .clone()
                .ok_or_else(|| own(ErrorKind::InvalidInput, "a container needs a name"))?;
            match self.make(&name, spec).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let image = spec.image.as_deref().unwrap_or_default();
                    self.pull(image).await.map_err(|error| {
                        error.context(format!(
                            "the image {image} is not here, and can't be pulled"
                        ))
                    })?;
                    self.make(&name, spec).await
                }
                outcome => outcome,
            }
        };
        during("create", create.await)
    }

    async fn start(&self, name: &ContainerName) -> Result<()> {
        let start = async {
            let docker = self.client().docker().await?;
            docker
                .start_container(name.as_str(), None)
                .await
                .map_err(|error| self.client().error(error))?;
            self.tell(name).await;
            Ok(())
        };
        during("start", start.await)
    }

    async fn stop(&self, name: &ContainerName) -> Result<i32> {
        let stop = async {
            let found = self.known().find(name.as_str()).await?;
            let grace = found.container.spec.stop_grace.unwrap_or(STOP_GRACE);
            let docker = self
                .client()
                .docker()
                .await?
                .with_timeout(grace + STOP_EXTRA);
            let mut options = StopContainerOptionsBuilder::new();
            if found.is_own {
                options = options.t(spec::seconds(grace));
            }
            docker
                .stop_container(&found.id, Some(options.build()))
                .await
                .map_err(|error| self.client().error(error))?;
            self.tell(name).await;
            match self.known().find(&found.id).await?.container.state {
                ContainerState::Exited { code } => Ok(code),
                // It never ran.
                _ => Ok(0),
            }
        };
        during("stop", stop.await)
    }

    async fn remove(&self, name: &ContainerName) -> Result<()> {
        let remove = async {
            let Some(found) = there(self.known().find(name.as_str()).await)? else {
                return Ok(());
            };
            let docker = self.client().docker().await?;
            let options = RemoveContainerOptionsBuilder::new()
                .force(true)
                .v(true)
                .build();
            let removed = docker.remove_container(&found.id, Some(options)).await;
            match removed.map_err(|error| self.client().error(error)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // Somebody else is removing it.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.wait_gone(&found.id).await?
                }
                Err(error) => return Err(error),
            }
            self.known().refresh(&found.id).await
        };
        during("remove", remove.await)
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Container> {
        let found = during("inspect", self.known().find(name.as_str()).await)?;
        Ok(found.container)
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let all = during("list", self.known().all().await)?;
        let mut containers: Vec<Container> = all.into_iter().map(|found| found.container).collect();
        containers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(containers)
    }

    /// An engine that does not answer within five seconds is watched without a first list: the watch is
    /// [stale](arpanet_core::watch::Change::Stale) until it does.
    async fn watch(&self) -> Result<Watch<ContainerName, Container>> {
        let mut read = self.known().read.subscribe();
        let _ = tokio::time::timeout(FIRST_LIST, read.wait_for(|read| *read)).await;
        Ok(self.known().hub.watch())
    }

    async fn logs(
        &self,
        name: &ContainerName,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>> {
        let found = during("logs", self.known().find(name.as_str()).await)?;
        Ok(logs::read(Arc::clone(self.known()), found, options))
    }

    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        during("exec", exec::exec(self.known(), name, spec).await)
    }

    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        let set = async {
            let found = self.known().find(name.as_str()).await?;
            self.known().keep.set(&found.id, label, value)?;
            self.known().refresh(&found.id).await
        };
        during("set a label", set.await)
    }

    async fn bridge_address(&self) -> Result<Option<Ipv4Addr>> {
        let look = async {
            let docker = self.client().docker().await?;
            let shown = docker.inspect_network("bridge", None).await;
            let shown = there(shown.map_err(|error| self.client().error(error)))?;
            let pools = shown
                .and_then(|bridge| bridge.ipam?.config)
                .unwrap_or_default();
            Ok(pools
                .into_iter()
                .find_map(|pool| pool.gateway?.parse().ok()))
        };
        during("find the bridge", look.await)
    }
}

impl DockerRuntime {
    async fn wait_gone(&self, id: &str) -> Result<()> {
        let gone = async {
            let mut looks = tokio::time::interval(LOOK);
            while there(self.known().find(id).await)?.is_some() {
                looks.tick().await;
            }
            Ok(())
        };
        tokio::time::timeout(REMOVAL, gone)
            .await
            .unwrap_or_else(|_| {
                Err(own(
                    ErrorKind::Timeout,
                    format!("the container {id} is not removed in {REMOVAL:?}"),
                ))
            })
    }
}
