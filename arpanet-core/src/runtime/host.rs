//! Programs of images that are a part of the host, and no containers of the cluster.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;

use super::Environment;
use crate::Result;

/// A program of an image that is a part of the host: in the host's network and among its processes, with the rights
/// that changing the network takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostProgram {
    /// What its container is called, alone on this host.
    pub name: String,
    /// The image, whose own program it is.
    pub image: String,
    /// The program's arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub env: Environment,
    /// Folders of the host that it has at the same place.
    pub folders: Vec<PathBuf>,
    /// The folder that it starts in; the image's own where there is none.
    pub workdir: Option<PathBuf>,
}

impl HostProgram {
    /// This image's, by that name.
    #[must_use]
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            ..Self::default()
        }
    }

    /// With these arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = String>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.0.insert(name.into(), value.into());
        self
    }

    /// With this folder of the host.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folders.push(folder.into());
        self
    }

    /// Starting in this folder.
    #[must_use]
    pub fn workdir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.workdir = Some(folder.into());
        self
    }
}

/// An engine that runs such programs. It does not start them again when they end: whoever wants them does.
#[async_trait]
pub trait HostEngine: fmt::Debug + Send + Sync + 'static {
    /// Makes its image present, and runs it in the place of one with its name. Returns the number of its process, on the host.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`](super::Runtime::pull), and of the engine.
    async fn start(&self, program: &HostProgram) -> Result<i32>;

    /// Ends the program with this name and removes what the engine has of it. A second call does nothing.
    ///
    /// # Errors
    /// Those of the engine.
    async fn remove(&self, name: &str) -> Result<()>;

    /// The last that it wrote; empty where there is none of that name.
    ///
    /// # Errors
    /// Those of the engine.
    async fn words(&self, name: &str) -> Result<String>;
}
