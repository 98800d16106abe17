//! Programs of images as a part of the host.

use std::collections::HashMap;
use std::path::Path;

use arpanet_core::runtime::{HostEngine, HostProgram, PullReporter, PullRequest};
use arpanet_core::{ErrorKind, Result};
use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt;

use crate::DockerConfig;
use crate::client::{Client, LOOK, WORK};
use crate::error::own;
use crate::{image, spec};

/// Over the network, its packets, its namespaces and its modules; not over disks and devices.
const RIGHTS: [&str; 5] = [
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_PTRACE",
];
/// How much of what it writes is kept, twice.
const LARGEST_LOG: &str = "1m";
/// How many lines are its last words.
const LAST: &str = "20";

/// Runs [`HostProgram`]s on a docker engine.
#[derive(Debug)]
pub struct HostPrograms {
    client: Client,
}

impl HostPrograms {
    /// On this engine. Asks it nothing yet.
    #[must_use]
    pub fn new(config: &DockerConfig) -> Self {
        Self {
            client: Client::new(config.socket.clone()),
        }
    }

    /// Whether an image is here.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the engine does not answer.
    pub async fn has(&self, image: &str) -> Result<bool> {
        spec::check_image(image)?;
        Ok(image::known(&self.client, image).await?.is_some())
    }

    /// Makes an image present; whether it was not here before.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`](arpanet_core::Runtime::pull).
    pub async fn pull(&self, image: &str) -> Result<bool> {
        spec::check_image(image)?;
        let request = PullRequest::new(image);
        let pulled = image::pull(&self.client, &request, &PullReporter::default()).await?;
        Ok(pulled.is_new)
    }

    async fn run(&self, program: &HostProgram) -> Result<i32> {
        self.pull(&program.image).await?;
        self.take_away(&program.name).await?;
        let options = CreateContainerOptionsBuilder::default()
            .name(&program.name)
            .build();
        let body = body(program);
        self.client
            .ask(WORK, |docker| async move {
                docker.create_container(Some(options), body).await
            })
            .await?;
        let name = program.name.as_str();
        self.client
            .ask(WORK, |docker| async move {
                docker
                    .start_container(name, None::<StartContainerOptions>)
                    .await
            })
            .await?;
        let seen = self.client.inspect(name).await?;
        let id = seen.state.and_then(|state| state.pid).unwrap_or_default();
        match i32::try_from(id) {
            Ok(id) if id > 0 => Ok(id),
            _ => {
                let message = format!(
                    "the container {name} of the image {} ended as it started",
                    program.image
                );
                let words = self.told(name).await.unwrap_or_default();
                let error = own(ErrorKind::Unavailable, message);
                Err(match words.is_empty() {
                    true => error,
                    false => error.with_source(own(ErrorKind::Unavailable, words)),
                })
            }
        }
    }

    async fn take_away(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let removed = self
            .client
            .ask(WORK, |docker| async move {
                docker.remove_container(name, Some(options)).await
            })
            .await;
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn told(&self, name: &str) -> Result<String> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(LAST)
            .build();
        let read = self
            .client
            .ask(LOOK, |docker| async move {
                docker
                    .inspect_container(name, None::<InspectContainerOptions>)
                    .await?;
                let mut told = String::new();
                let mut pieces = docker.logs(name, Some(options));
                while let Some(piece) = pieces.next().await {
                    if let LogOutput::StdOut { message }
                    | LogOutput::StdErr { message }
                    | LogOutput::Console { message } = piece?
                    {
                        told.push_str(&String::from_utf8_lossy(&message));
                    }
                }
                Ok(told)
            })
            .await;
        match read {
            Ok(told) => Ok(told.lines().map(str::trim).collect::<Vec<_>>().join("; ")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl HostEngine for HostPrograms {
    async fn start(&self, program: &HostProgram) -> Result<i32> {
        let started = self.run(program).await;
        started.map_err(|error| error.operation("start a program of the host"))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let removed = self.take_away(name).await;
        removed.map_err(|error| error.operation("end a program of the host"))
    }

    async fn words(&self, name: &str) -> Result<String> {
        let told = self.told(name).await;
        told.map_err(|error| error.operation("read logs"))
    }
}

fn body(program: &HostProgram) -> ContainerCreateBody {
    let bind = |folder: &Path| format!("{0}:{0}", folder.display());
    let env = program.env.0.iter();
    let size = [("max-size", LARGEST_LOG), ("max-file", "2")];
    let size = size.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ContainerCreateBody {
        image: Some(program.image.clone()),
        cmd: Some(program.arguments.clone()),
        env: Some(env.map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: program
            .workdir
            .as_ref()
            .map(|folder| folder.display().to_string()),
        host_config: Some(HostConfig {
            cap_add: Some(RIGHTS.map(str::to_owned).to_vec()),
            // Else the kernel's settings can't be written, and links of the host not be made.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            security_opt: Some(vec![
                "apparmor=unconfined".to_owned(),
                "seccomp=unconfined".to_owned(),
            ]),
            network_mode: Some("host".to_owned()),
            pid_mode: Some("host".to_owned()),
            binds: Some(program.folders.iter().map(|folder| bind(folder)).collect()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from(size)),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_part_of_the_host_and_what_it_writes_is_bounded() {
        let program = HostProgram::new("router", "some/router:1")
            .arguments(["--port".to_owned(), "6783".to_owned()])
            .env("SECRET", "Pears")
            .folder("/var/lib/router")
            .workdir("/var/lib/router");
        assert!(!format!("{program:?}").contains("Pears"));
        let body = body(&program);
        let host = body.host_config.unwrap();
        assert!(host.cap_add.unwrap().contains(&"NET_ADMIN".to_owned()));
        assert_eq!(host.privileged, None);
        assert_eq!(
            (host.network_mode.as_deref(), host.pid_mode.as_deref()),
            (Some("host"), Some("host"))
        );
        assert_eq!(host.binds.unwrap(), ["/var/lib/router:/var/lib/router"]);
        assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "1m");
        assert_eq!(host.restart_policy, None);
        assert_eq!(body.cmd.unwrap(), ["--port", "6783"]);
        assert_eq!(body.env.unwrap(), ["SECRET=Pears"]);
    }
}
