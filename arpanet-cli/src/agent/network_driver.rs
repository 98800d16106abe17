//! Docker's network driver as a part of the node: what engines ask, done by this cluster.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, AppNet, Cluster, EndpointId, Error, ErrorKind, Result};
use arpanet_docker::driver::{self, DriverServer, KeeperConfig, NetworkDriver, Networks};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

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
        self.cluster()?.require_apart(net)
    }

    async fn remove(&self, _: AppNet) -> Result<()> {
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
    cluster: Arc<OnceLock<Cluster>>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    _server: DriverServer,
    watching: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl DockerNetworks {
    /// The driver at the place where engines look for it. Nothing is started.
    pub(crate) fn new(paths: &Paths) -> Self {
        Self {
            paths: paths.clone(),
            socket: driver::SOCKET.into(),
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

    async fn start(&self, _: &FacilityContext) -> Result<()> {
        if self.running().is_some() {
            return Ok(());
        }
        self.keep().await?;
        let networks = Arc::new(OfCluster {
            cluster: Arc::clone(&self.cluster),
        });
        let driver = NetworkDriver::open(self.paths.driver(), networks)?;
        let journal = self.paths.driver_journal();
        let server = DriverServer::start(driver, self.paths.driver_socket(), Some(&journal));
        let server = server.await?;
        let keeping = Keeping::new(&self.paths, &self.socket);
        *self.running() = Some(Running {
            _server: server,
            watching: tokio::spawn(keeping.watch()),
        });
        Ok(())
    }

    /// The keeper stays, for what the engine has to end.
    async fn stop(&self) -> Result<()> {
        self.running().take();
        Ok(())
    }
}

/// Sees to it that there is a keeper.
#[derive(Debug)]
struct Keeping {
    paths: Paths,
    socket: PathBuf,
}

impl Keeping {
    fn new(paths: &Paths, socket: &std::path::Path) -> Self {
        Self {
            paths: paths.clone(),
            socket: socket.to_owned(),
        }
    }

    /// Begins another keeper where there is none, or one of another version.
    async fn ensure(&self) -> Result<()> {
        let present = driver::hello(&self.socket).await;
        if present.as_deref() == Some(driver::KEEPER_VERSION) {
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
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| failed().with_source(source))?;
        let began = Instant::now();
        while driver::hello(&self.socket).await.as_deref() != Some(driver::KEEPER_VERSION) {
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

/// Runs the hidden command `plugin-keeper`: its socket, the agent's, and the journal.
pub(crate) async fn keep(args: &[std::ffi::OsString]) -> Result<()> {
    // Away from whoever started it. Fails only where it leads a session already.
    let _ = nix::unistd::setsid();
    let [socket, agent, journal] = args else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "this is a part of the agent and not for use by hand",
        ));
    };
    driver::keep(KeeperConfig::new(socket, agent, journal), || {}).await
}
