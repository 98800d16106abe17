use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DockerConfig {
    /// The engine's socket.
    pub socket: PathBuf,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
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
}
