//! Asking the engine.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use bollard::errors::Error as Failure;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::error::engine;

/// For what the engine only has to look up.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// For what the engine has to do, drivers and disks included.
pub(crate) const WORK: Duration = Duration::from_secs(180);

/// Between two looks at what passes soon.
const PAUSE: Duration = Duration::from_millis(10);

/// How many questions about containers are open at a time.
const SIDE_BY_SIDE: usize = 32;

/// The engine at a socket. Every request has a connection of its own, so an engine that was restarted is found again.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    negotiated: Mutex<Option<Docker>>,
    slots: Semaphore,
}

impl Client {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            negotiated: Mutex::new(None),
            slots: Semaphore::const_new(SIDE_BY_SIDE),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn negotiated(&self) -> MutexGuard<'_, Option<Docker>> {
        self.negotiated
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, in a version that both sides speak.
    pub(crate) async fn engine(&self, limit: Duration) -> Result<Docker> {
        let known = self.negotiated().clone();
        let docker = match known {
            Some(docker) => docker,
            None => {
                let path = self.socket.to_string_lossy();
                let fresh = Docker::connect_with_unix(&path, LOOK.as_secs(), API_DEFAULT_VERSION)
                    .map_err(|failure| self.failed(failure))?;
                // The limit is for the head of the answer only, and an engine that is just starting may hang in between.
                let docker = tokio::time::timeout(LOOK, fresh.negotiate_version())
                    .await
                    .unwrap_or(Err(Failure::RequestTimeoutError))
                    .map_err(|failure| self.failed(failure))?;
                self.negotiated().replace(docker.clone());
                docker
            }
        };
        Ok(docker.with_timeout(limit))
    }

    /// What a failure means. One that does not come from the engine itself may be its end; the next may be another version.
    pub(crate) fn failed(&self, failure: Failure) -> Error {
        let error = engine(&self.socket, failure);
        if error.kind() == ErrorKind::Unavailable {
            self.negotiated().take();
        }
        error
    }

    /// One question and its answer.
    pub(crate) async fn ask<T, F>(
        &self,
        limit: Duration,
        question: impl FnOnce(Docker) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let docker = self.engine(limit).await?;
        tokio::time::timeout(limit, question(docker))
            .await
            .unwrap_or(Err(Failure::RequestTimeoutError))
            .map_err(|failure| self.failed(failure))
    }

    /// All there is to know about a container, by its id or its name. The engine takes the beginning of an id too.
    pub(crate) async fn inspect(&self, which: &str) -> Result<ContainerInspectResponse> {
        let _slot = self.slots.acquire().await;
        let due = Instant::now() + LOOK;
        loop {
            let asked = self.ask(LOOK, |docker| async move {
                docker
                    .inspect_container(which, None::<InspectContainerOptions>)
                    .await
            });
            match asked.await {
                Err(error) if passes(&error, due) => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// The ids of all containers, running or not.
    pub(crate) async fn ids(&self) -> Result<Vec<String>> {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let due = Instant::now() + LOOK;
        let listed = loop {
            let all = all.clone();
            let asked = self.ask(LOOK, |docker| async move {
                docker.list_containers(Some(all)).await
            });
            match asked.await {
                Err(error) if passes(&error, due) => sleep(PAUSE).await,
                answer => break answer?,
            }
        };
        Ok(listed.into_iter().filter_map(|one| one.id).collect())
    }
}

/// Whether only a container is between two states: Podman calls it `stopped` when it has ended and is not yet taken down, for
/// which docker has no word. It passes.
fn passes(error: &Error, due: Instant) -> bool {
    error.kind() == ErrorKind::Incompatible
        && Instant::now() < due
        && std::error::Error::source(error)
            .is_some_and(|source| source.to_string().contains("variant `stopped`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("docker.sock"));
        let error = client.ids().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("docker.sock"));
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = Client::new(socket).inspect("w1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().is_some());
    }
}
