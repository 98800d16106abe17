use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the engine is, and what is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DockerConfig {
    /// The engine's socket.
    pub socket: PathBuf,
    /// The file that keeps changed labels, which the engine can't; without one they are gone with this process.
    pub labels: Option<PathBuf>,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            labels: None,
        }
    }
}

impl DockerConfig {
    /// With this socket.
    #[must_use]
    pub fn socket(mut self, socket: impl AsRef<Path>) -> Self {
        self.socket = socket.as_ref().to_owned();
        self
    }

    /// With this file for changed labels.
    #[must_use]
    pub fn labels(mut self, file: impl AsRef<Path>) -> Self {
        self.labels = Some(file.as_ref().to_owned());
        self
    }
}
