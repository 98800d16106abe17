//! The trait, on the engine.

use std::future::Future;
use std::sync::Arc;

use arpanet_core::runtime::{
    Container, ContainerSpec, Exec, ExecSpec, LogOptions, Output, Runtime, RuntimeCapabilities,
};
use arpanet_core::watch::Watch;
use arpanet_core::{ContainerName, ErrorKind, Result};
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::config::ProcessConfig;
use crate::engine::{self, Engine};
use crate::error::{BACKEND, own};
use crate::{exec, logs};

/// [`Runtime`] that runs commands of the host, each in namespaces of its own. See the crate's documentation.
///
/// Clones are the same runtime. Dropping the last one leaves the containers running; the next runtime on the same folder
/// finds them.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    engine: Arc<Engine>,
}

impl ProcessRuntime {
    /// Takes the state folder, and looks after the containers in it: those that run are adopted, those that ended
    /// meanwhile have their exit code, and those that were killed with the machine or with their shim have 137. Of these
    /// the ones that are to run always are started again.
    ///
    /// Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], after two seconds, while another runtime, of any process, has the folder;
    /// [`ErrorKind::Corrupt`] and [`ErrorKind::Incompatible`], with its path, for a file that can't be read.
    pub async fn open(config: ProcessConfig) -> Result<Self> {
        let engine = Engine::open(config)
            .await
            .map_err(|error| error.operation("open the process runtime"))?;
        Ok(Self { engine })
    }
}

/// Runs a change in its container's turn. The turn is waited for by the caller, so that a call that follows one which was
/// dropped comes behind it; the change itself runs to its end.
async fn in_turn<T: Send + 'static>(
    engine: &Arc<Engine>,
    name: &ContainerName,
    operation: &'static str,
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let turn = engine.turn(name).await;
    let change = async move {
        let outcome = change.await;
        drop(turn);
        outcome
    };
    whole(operation, change).await
}

/// Runs a change to its end, also when the caller does not wait for it.
async fn whole<T: Send + 'static>(
    operation: &'static str,
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| Err(own(ErrorKind::Internal, error.to_string())))
        .map_err(|error| error.operation(operation).backend(BACKEND))
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        // Where a spec names no servers, nothing is put in the place of the host's /etc/resolv.conf: there is nothing to change.
        RuntimeCapabilities::all()
            .without_images()
            .without_resolver()
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let name = engine::check(spec).map_err(|error| error.operation("create"))?;
        let change = Arc::clone(&self.engine).create(name.clone(), spec.clone());
        in_turn(&self.engine, &name, "create", change).await
    }

    async fn start(&self, name: &ContainerName) -> Result<()> {
        let change = Arc::clone(&self.engine).start(name.clone());
        in_turn(&self.engine, name, "start", change).await
    }

    async fn stop(&self, name: &ContainerName) -> Result<i32> {
        whole("stop", Arc::clone(&self.engine).stop(name.clone())).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<()> {
        let change = Arc::clone(&self.engine).remove(name.clone());
        in_turn(&self.engine, name, "remove", change).await
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Container> {
        Ok(self.engine.entry(name)?.container())
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let entries = self.engine.entries();
        Ok(entries.iter().map(|entry| entry.container()).collect())
    }

    async fn watch(&self) -> Result<Watch<ContainerName, Container>> {
        Ok(self.engine.hub().watch())
    }

    async fn logs(
        &self,
        name: &ContainerName,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>> {
        Ok(logs::read(self.engine.entry(name)?, options))
    }

    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        let (engine, of, label) = (Arc::clone(&self.engine), name.clone(), label.to_owned());
        // Writes a small file, as a create does.
        let change = async move { engine.entry(&of)?.set_label(&label, value) };
        in_turn(&self.engine, name, "set a label", change).await
    }

    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        let entry = self.engine.entry(name)?;
        whole("exec", exec::exec(entry, spec.clone())).await
    }
}
