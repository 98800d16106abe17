//! A container that a node has on its own engine for a program of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arpanet_core::runtime::{PullReporter, PullRequest};
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use serde::{Deserialize, Serialize};

use crate::client::{Client, WORK};
use crate::config::DockerConfig;
use crate::error::own;
use crate::image;
use crate::spec::check_image;

/// The label that has the [`PartConfig`] of a part, by which it is known again.
const LABEL: &str = "arpanet.part";

/// Waits for its end, and takes what was left behind in its namespaces.
const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done";

/// What a part is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PartConfig {
    /// The container's name on the engine.
    pub name: ContainerName,
    /// The image; it needs a POSIX shell and `sleep`.
    pub image: String,
    /// Folders and files of the host, which are in the container under the same paths.
    pub folders: Vec<PathBuf>,
    /// A named volume, and where it is in the container.
    pub volume: Option<(String, PathBuf)>,
}

impl PartConfig {
    /// A container with nothing of the host.
    pub fn new(name: ContainerName, image: impl Into<String>) -> Self {
        Self {
            name,
            image: image.into(),
            folders: Vec::new(),
            volume: None,
        }
    }

    /// With this folder, or file, of the host.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folders.push(folder.as_ref().to_owned());
        self
    }

    /// With this volume there.
    #[must_use]
    pub fn volume(mut self, name: impl Into<String>, at: impl AsRef<Path>) -> Self {
        self.volume = Some((name.into(), at.as_ref().to_owned()));
        self
    }
}

/// A container without any network and without any capability, whose own program only waits: the program that it is for is
/// put into its namespaces by the caller. It is in no list of [`DockerRuntime`](crate::DockerRuntime), is never attached, and is
/// started again by nobody but the caller.
#[derive(Debug)]
pub struct Part {
    client: Client,
    config: PartConfig,
}

impl Part {
    /// On this engine. Nothing is asked yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what can't be an image's name.
    pub fn new(engine: &DockerConfig, config: PartConfig) -> Result<Self> {
        check_image(&config.image)?;
        Ok(Self {
            client: Client::new(engine.socket.clone()),
            config,
        })
    }

    /// Makes its image present. A second call does nothing.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`](arpanet_core::Runtime::pull).
    pub async fn prepare(&self) -> Result<()> {
        let request = PullRequest::new(&self.config.image);
        let pulled = image::pull(&self.client, &request, &PullReporter::default()).await;
        pulled.map(drop)
    }

    /// Has it run, made anew where it is not as it should be, with what its volume has; its first process, as the engine
    /// numbers it. A second call does nothing.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) for a container of that name that somebody else made; those of
    /// [`prepare`](Self::prepare); [`InvalidInput`](ErrorKind::InvalidInput) for an image without a shell.
    pub async fn run(&self) -> Result<i32> {
        let name = self.config.name.as_str();
        let known = match self.look().await? {
            Some(seen) if self.is_as_wanted(&seen)? => Some(seen),
            Some(_) => {
                self.remove_container().await?;
                None
            }
            None => None,
        };
        if let Some(pid) = known.as_ref().and_then(running) {
            return Ok(pid);
        }
        if known.is_none() {
            self.prepare().await?;
            let options = CreateContainerOptionsBuilder::default().name(name).build();
            let body = self.body()?;
            let made = self.client.ask(WORK, |docker| async move {
                docker.create_container(Some(options), body).await
            });
            made.await?;
        }
        let started = self.client.ask(WORK, |docker| async move {
            docker
                .start_container(name, None::<StartContainerOptions>)
                .await
        });
        started.await.map_err(|error| {
            let message = format!("the container {name} can't be started");
            own(error.kind(), message)
                .with_source(error)
                .with_hint("its image needs a shell, as consul's own has one")
        })?;
        let seen = self.look().await?;
        seen.as_ref().and_then(running).ok_or_else(|| {
            let message = format!("the container {name} does not stay");
            own(ErrorKind::Unavailable, message)
        })
    }

    /// Ends it, and all that is in it. A second call does nothing, nor does one where there is none.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the engine does not answer.
    pub async fn stop(&self) -> Result<()> {
        let name = self.config.name.as_str();
        let now = StopContainerOptionsBuilder::default().t(1).build();
        let stopped = self.client.ask(WORK, |docker| async move {
            docker.stop_container(name, Some(now)).await
        });
        gone_is_fine(stopped.await)
    }

    /// Removes it, and its volume. A second call does nothing.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the engine does not answer; [`Conflict`](ErrorKind::Conflict) when somebody
    /// else uses the volume.
    pub async fn remove(&self) -> Result<()> {
        if let Some(seen) = self.look().await? {
            self.is_as_wanted(&seen)?;
            self.remove_container().await?;
        }
        let Some((volume, _)) = &self.config.volume else {
            return Ok(());
        };
        let forced = RemoveVolumeOptionsBuilder::default().force(true).build();
        let removed = self.client.ask(WORK, |docker| async move {
            docker.remove_volume(volume, Some(forced)).await
        });
        gone_is_fine(removed.await)
    }

    async fn look(&self) -> Result<Option<ContainerInspectResponse>> {
        match self.client.inspect(self.config.name.as_str()).await {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn remove_container(&self) -> Result<()> {
        let name = self.config.name.as_str();
        let forced = RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = self.client.ask(WORK, |docker| async move {
            docker.remove_container(name, Some(forced)).await
        });
        gone_is_fine(removed.await)
    }

    /// Whether a part is of this very config.
    ///
    /// # Errors
    /// For a container that is no part.
    fn is_as_wanted(&self, seen: &ContainerInspectResponse) -> Result<bool> {
        let labels = seen
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        let Some(written) = labels.and_then(|labels| labels.get(LABEL)) else {
            let name = &self.config.name;
            let message = format!("there is a container {name} that another docker client made");
            return Err(own(ErrorKind::Conflict, message).with_hint("remove or rename that one"));
        };
        Ok(serde_json::from_str(written).ok().as_ref() == Some(&self.config))
    }

    fn body(&self) -> Result<ContainerCreateBody> {
        let written = serde_json::to_string(&self.config).map_err(|error| {
            own(ErrorKind::Internal, "the part can't be written down").with_source(error)
        })?;
        let path = |path: &Path| Some(path.display().to_string());
        let folders = self.config.folders.iter().map(|folder| Mount {
            typ: Some(MountType::BIND),
            source: path(folder),
            target: path(folder),
            ..Mount::default()
        });
        let volume = self.config.volume.iter().map(|(name, at)| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.clone()),
            target: path(at),
            ..Mount::default()
        });
        Ok(ContainerCreateBody {
            image: Some(self.config.image.clone()),
            entrypoint: Some(["sh", "-c", WAIT].map(str::to_owned).to_vec()),
            cmd: Some(Vec::new()),
            user: Some("0".to_owned()),
            labels: Some(HashMap::from([(LABEL.to_owned(), written)])),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                mounts: Some(folders.chain(volume).collect()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        })
    }
}

/// The first process of one that runs.
fn running(seen: &ContainerInspectResponse) -> Option<i32> {
    let state = seen.state.as_ref()?;
    let pid = i32::try_from(state.pid?).ok()?;
    (state.running == Some(true) && pid > 0).then_some(pid)
}

fn gone_is_fine(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
