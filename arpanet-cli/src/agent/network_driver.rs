//! Docker's network driver as a part of the node: what engines ask, done by this cluster.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, AppNet, Cluster, EndpointId, Error, ErrorKind, Result};
use arpanet_docker::driver::{
    self, DriverServer, KeeperConfig, NetworkDriver, Networks, Review, Spread,
};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::commands::Context;
use crate::host;
use crate::paths::Paths;

/// How long a new keeper may take to have its socket.
const BEGINNING: Duration = Duration::from_secs(5);
/// How often it is seen whether it is still there.
const LOOKING: Duration = Duration::from_secs(2);

/// The cluster, for the driver.
#[derive(Debug)]
struct OfCluster {
    cluster: Arc<OnceLock<Cluster>>,
    /// None until the driver has brought back what was there before.
    spread: Arc<OnceLock<Spread>>,
}

impl OfCluster {
    fn cluster(&self) -> Result<&Cluster> {
        self.cluster
            .get()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the node is not put together yet"))
    }
}

#[async_trait]
impl Networks for OfCluster {
    async fn choose(&self) -> Result<AppNet> {
        self.cluster()?.free_network()
    }

    async fn make(&self, net: AppNet) -> Result<()> {
        self.cluster()?.require_apart(net)?;
        if let Some(spread) = self.spread.get() {
            spread.making(net);
        }
        Ok(())
    }

    async fn remove(&self, net: AppNet) -> Result<()> {
        if let Some(spread) = self.spread.get() {
            // Otherwise it is removed because another host has removed it.
            if spread.is_wanted(net) {
                self.cluster()?.require_unused_elsewhere(net)?;
            }
            spread.removed(net)?;
        }
        Ok(())
    }

    async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr> {
        self.cluster()?.reserve(net, ip).await
    }

    async fn release(&self, addr: AppAddr) -> Result<()> {
        self.cluster()?.release(addr).await
    }

    async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        self.cluster()?.overlay().plug(plug).await
    }

    async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        self.cluster()?.overlay().unplug(endpoint).await
    }

    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        self.cluster()?.overlay().plugged().await
    }
}

/// The driver, with the process that keeps its socket.
#[derive(Debug)]
pub(crate) struct DockerNetworks {
    paths: Paths,
    socket: PathBuf,
    engine: PathBuf,
    cluster: Arc<OnceLock<Cluster>>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    _server: DriverServer,
    _review: Review,
    driver: Arc<NetworkDriver>,
    spread: Arc<OnceLock<Spread>>,
    watching: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl DockerNetworks {
    /// The driver at the place where engines look for it, for the engine at this socket. Nothing is started.
    pub(crate) fn new(paths: &Paths, engine: PathBuf) -> Self {
        Self {
            paths: paths.clone(),
            socket: driver::SOCKET.into(),
            engine,
            cluster: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// The node that it is a part of, once that is put together.
    pub(crate) fn belongs_to(&self, cluster: &Cluster) {
        let _ = self.cluster.set(cluster.clone());
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The networks that all engines are to have, by their subnets, with their names.
    pub(crate) fn networks(&self) -> Vec<(AppNet, String)> {
        let running = self.running();
        let spread = running.as_ref().and_then(|running| running.spread.get());
        spread.map(Spread::networks).unwrap_or_default()
    }

    /// Has a keeper at the socket: as early as can be, for an engine that starts at the same time.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when none comes.
    pub(crate) async fn keep(&self) -> Result<()> {
        Keeping::new(&self.paths, &self.socket).ensure().await
    }
}

#[async_trait]
impl Facility for DockerNetworks {
    fn name(&self) -> &'static str {
        "docker's network driver"
    }

    async fn start(&self, context: &FacilityContext) -> Result<()> {
        if self.running().is_some() {
            return Ok(());
        }
        self.keep().await?;
        let spread = Arc::new(OnceLock::new());
        let networks = Arc::new(OfCluster {
            cluster: Arc::clone(&self.cluster),
            spread: Arc::clone(&spread),
        });
        // Before the driver answers: what is made or removed is to be heard of.
        let node = context.membership.me.node;
        let discovery = Arc::clone(&context.discovery);
        let spreading = Spread::start(node, discovery, &self.engine, self.paths.docker_networks());
        let _ = spread.set(spreading.await?);
        let driver = NetworkDriver::open(self.paths.driver(), networks)?;
        if let Some(spread) = spread.get() {
            spread.belongs_to(&driver);
        }
        let journal = self.paths.driver_journal();
        let server = DriverServer::start(
            Arc::clone(&driver),
            self.paths.driver_socket(),
            Some(&journal),
        );
        let server = server.await?;
        let keeping = Keeping::new(&self.paths, &self.socket);
        *self.running() = Some(Running {
            _server: server,
            _review: Review::start(Arc::clone(&driver), &self.engine),
            driver,
            spread,
            watching: tokio::spawn(keeping.watch()),
        });
        Ok(())
    }

    /// The keeper stays where the engine has networks, for what it has to end.
    async fn stop(&self) -> Result<()> {
        let Some(running) = self.running().take() else {
            return Ok(());
        };
        let is_used = !running.driver.networks().is_empty();
        drop(running);
        match is_used {
            true => Ok(()),
            false => driver::end(&self.socket).await,
        }
    }
}

/// Removes the driver from the engine for good: its networks, whoever is in them, and then what keeps its socket. An engine
/// that does not answer keeps its networks, and says so when they are used.
///
/// # Errors
/// When the socket can't be removed.
pub(crate) async fn clean(context: &Context) -> Result<()> {
    let socket = Path::new(driver::SOCKET);
    if driver::hello(socket).await.is_some()
        && let Err(error) = driver::remove_networks(&context.config.docker().socket).await
    {
        tracing::warn!(%error, "docker's networks could not be removed");
    }
    driver::end(socket).await
}

/// Sees to it that there is a keeper.
#[derive(Debug)]
struct Keeping {
    paths: Paths,
    socket: PathBuf,
    version: String,
}

impl Keeping {
    fn new(paths: &Paths, socket: &Path) -> Self {
        Self {
            paths: paths.clone(),
            socket: socket.to_owned(),
            version: format!("{} {}", driver::KEEPER_VERSION, host::build()),
        }
    }

    /// Begins another keeper where there is none, or one of another version.
    async fn ensure(&self) -> Result<()> {
        let present = driver::hello(&self.socket).await;
        if present.as_ref() == Some(&self.version) {
            return Ok(());
        }
        let failed = || {
            Error::new(
                ErrorKind::Unavailable,
                format!("nobody keeps docker's socket {}", self.socket.display()),
            )
        };
        let mut keeper = Command::new(host::program()?)
            .arg("plugin-keeper")
            .arg(&self.socket)
            .arg(self.paths.driver_socket())
            .arg(self.paths.driver_journal())
            .arg(&self.version)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| failed().with_source(source))?;
        let began = Instant::now();
        while driver::hello(&self.socket).await.as_ref() != Some(&self.version) {
            let ended = keeper.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > BEGINNING {
                return Err(failed());
            }
            sleep(Duration::from_millis(5)).await;
        }
        // Reaped at its end, which is after this process's where all is well.
        tokio::task::spawn_blocking(move || keeper.wait());
        Ok(())
    }

    async fn watch(self) {
        loop {
            sleep(LOOKING).await;
            if let Err(error) = self.ensure().await {
                tracing::warn!(%error, "docker finds no driver");
            }
        }
    }
}

/// Runs the hidden command `plugin-keeper`: its socket, the agent's, the journal, and its version.
pub(crate) async fn keep(args: &[std::ffi::OsString]) -> Result<()> {
    // Away from whoever started it. Fails only where it leads a session already.
    let _ = nix::unistd::setsid();
    let [socket, agent, journal, version] = args else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "this is a part of the agent and not for use by hand",
        ));
    };
    let config = KeeperConfig::new(socket, agent, journal);
    driver::keep(config.version(version.to_string_lossy()), || {}).await
}
