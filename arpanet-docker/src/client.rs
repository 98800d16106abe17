//! The connection to the engine: made when it is needed, and again after the engine was away.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::{Error, Result};
use bollard::Docker;
use bollard::errors::Error as Engine;

use crate::error;

/// How long the engine may take to begin an answer, in seconds.
const PATIENCE: u64 = 120;

/// The engine at a socket. Nothing is asked before the first use.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    docker: Mutex<Option<Docker>>,
}

impl Client {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            docker: Mutex::new(None),
        }
    }

    fn cached(&self) -> MutexGuard<'_, Option<Docker>> {
        self.docker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, in the version of its API that both know.
    pub(crate) async fn docker(&self) -> Result<Docker> {
        let cached = self.cached().clone();
        if let Some(docker) = cached {
            return Ok(docker);
        }
        let path = self.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, PATIENCE, bollard::API_DEFAULT_VERSION)
            .map_err(|error| self.error(error))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|error| self.error(error))?;
        *self.cached() = Some(docker.clone());
        Ok(docker)
    }

    /// The next use finds out anew which version the engine speaks.
    pub(crate) fn reset(&self) {
        *self.cached() = None;
    }

    pub(crate) fn error(&self, error: Engine) -> Error {
        error::engine(self.socket(), error)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}
