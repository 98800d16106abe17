//! A real engine, and a cluster that is one namespace in the place of the overlay's router.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use arpanet_core::addr::ROUTER_ADDRESS;
use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, AppNet, Cluster, EndpointId, Error, ErrorKind, Result};
use arpanet_docker::driver::{
    self, DriverServer, KeeperConfig, NetworkDriver, Networks, Review, Spread,
};
use arpanet_lab::Engine;
use arpanet_netlink::{MacAddr, Namespace, Netlink, Route, VethEnd};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::engines::have;

/// Whether this machine has an engine to be started. Says why not, and fails where one is promised.
pub(crate) fn has_engine() -> bool {
    have("docker", "/usr/sbin/dockerd")
}

/// A cluster of one host. Its router is a namespace that has 169.254.1.1 and the containers' links.
#[derive(Debug)]
pub(crate) struct OneHost {
    host: Netlink,
    pub(crate) router: Netlink,
    pub(crate) spread: OnceLock<Spread>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    networks: Vec<AppNet>,
    reserved: Vec<AppAddr>,
    plugged: BTreeMap<EndpointId, (AppAddr, Plugged)>,
}

impl OneHost {
    async fn new(host: &Namespace) -> Self {
        let router = Namespace::create().unwrap().handle().unwrap();
        router.set_up("lo", true).await.unwrap();
        let address = Ipv4Net::from(ROUTER_ADDRESS);
        router.add_address("lo", address).await.unwrap();
        let forward = [("net.ipv4.ip_forward", "1")];
        router.namespace().set_sysctls(&forward).unwrap();
        Self {
            host: host.handle().unwrap(),
            router,
            spread: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    pub(crate) fn networks(&self) -> Vec<AppNet> {
        self.known.lock().unwrap().networks.clone()
    }

    pub(crate) fn reserved(&self) -> Vec<AppAddr> {
        self.known.lock().unwrap().reserved.clone()
    }

    pub(crate) async fn links(&self) -> usize {
        self.router.links().await.unwrap().len() - 1
    }
}

#[async_trait]
impl Networks for OneHost {
    async fn choose(&self) -> Result<AppNet> {
        "10.7.0.0/16".parse()
    }

    async fn make(&self, net: AppNet) -> Result<()> {
        let networks = &mut self.known.lock().unwrap().networks;
        if net == "10.66.0.0/16".parse().unwrap() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "10.66.0.0/16 overlaps the network old",
            ));
        }
        if !networks.contains(&net) {
            networks.push(net);
        }
        if let Some(spread) = self.spread.get() {
            spread.making(net);
        }
        Ok(())
    }

    async fn remove(&self, net: AppNet) -> Result<()> {
        let networks = &mut self.known.lock().unwrap().networks;
        networks.retain(|other| *other != net);
        match self.spread.get() {
            Some(spread) => spread.removed(net),
            None => Ok(()),
        }
    }

    async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr> {
        let reserved = &mut self.known.lock().unwrap().reserved;
        let first = u32::from(net.cidr().network());
        let ip = ip.unwrap_or_else(|| {
            (first + 2..)
                .map(Ipv4Addr::from)
                .find(|ip| reserved.iter().all(|other| other.ip() != *ip))
                .unwrap()
        });
        let addr = AppAddr::new(Ipv4Net::new(ip, net.cidr().prefix_len()).unwrap())?;
        if !reserved.contains(&addr) {
            reserved.push(addr);
        }
        Ok(addr)
    }

    async fn release(&self, addr: AppAddr) -> Result<()> {
        let reserved = &mut self.known.lock().unwrap().reserved;
        reserved.retain(|other| *other != addr);
        Ok(())
    }

    async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        if let Some((_, plugged)) = self.known.lock().unwrap().plugged.get(&plug.endpoint) {
            return Ok(plugged.clone());
        }
        let ip = plug.addr.ip();
        let link = format!("ap{:08x}", u32::from(ip));
        let [a, b, c, d] = ip.octets();
        let mac = plug.mac.unwrap_or([2, 0xa2, a, b, c, d]);
        let end = |namespace| {
            VethEnd::new(&link, namespace)
                .mac(MacAddr::new(mac))
                .mtu(1400)
                .no_arp()
        };
        let (near, far) = (self.router.namespace(), self.host.namespace());
        self.router.add_veth(&end(near), &end(far)).await?;
        self.router.set_up(&link, true).await?;
        let route = Route::new(Ipv4Net::from(ip)).link(&link);
        self.router.set_routes(&[route]).await?;
        let plugged = Plugged::new(link, mac);
        let known = &mut self.known.lock().unwrap().plugged;
        known.insert(plug.endpoint.clone(), (plug.addr, plugged.clone()));
        Ok(plugged)
    }

    async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        let plugged = self.known.lock().unwrap().plugged.remove(endpoint);
        match plugged {
            Some((_, plugged)) => self.router.delete_link(&plugged.link).await,
            None => Ok(()),
        }
    }

    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        let plugged = &self.known.lock().unwrap().plugged;
        Ok(plugged
            .iter()
            .map(|(id, (addr, _))| (id.clone(), *addr))
            .collect())
    }
}

/// The driver's process: it answers while it is started.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) driver: Arc<NetworkDriver>,
    cluster: Arc<OneHost>,
    folder: PathBuf,
    socket: PathBuf,
    server: Option<DriverServer>,
}

impl Agent {
    fn new(folder: PathBuf, socket: PathBuf, cluster: &Arc<OneHost>) -> Self {
        Self {
            driver: open_driver(&folder, cluster),
            cluster: Arc::clone(cluster),
            folder,
            socket,
            server: None,
        }
    }

    pub(crate) async fn start(&mut self) {
        self.driver = open_driver(&self.folder, &self.cluster);
        if let Some(spread) = self.cluster.spread.get() {
            spread.belongs_to(&self.driver);
        }
        let journal = self.folder.join("journal");
        let server = DriverServer::start(Arc::clone(&self.driver), &self.socket, Some(&journal));
        self.server = Some(server.await.unwrap());
    }

    /// Returns once somebody connects to where the agent would answer, and is turned away.
    pub(crate) async fn wait_until_asked(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        listener.accept().await.unwrap();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

/// Read by each test with one engine, written by one with several: those measure what engines do in seconds.
static ENGINES: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// No other test's engine while it is held.
pub(crate) async fn alone() -> OwnedRwLockWriteGuard<()> {
    Arc::clone(&ENGINES).write_owned().await
}

/// An engine that has the driver.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) cluster: Arc<OneHost>,
    agent: Option<Agent>,
    keepers: Vec<Task>,
    folder: TempDir,
    _turn: Option<OwnedRwLockReadGuard<()>>,
}

#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Site {
    /// The agent has the plugin's socket itself.
    pub(crate) async fn start() -> Self {
        let turn = Arc::clone(&ENGINES).read_owned().await;
        Self::with_agent(Some(turn)).await
    }

    /// One of several, in a test that is alone.
    pub(crate) async fn start_alone(_alone: &OwnedRwLockWriteGuard<()>) -> Self {
        Self::with_agent(None).await
    }

    async fn with_agent(turn: Option<OwnedRwLockReadGuard<()>>) -> Self {
        let mut site = Self::bare(turn).await;
        let folder = site.folder.path().to_owned();
        let agent = Agent::new(folder, site.plugin_socket(), &site.cluster);
        site.agent = Some(agent);
        site.start_agent().await;
        site
    }

    /// A keeper has it, and hands on to the agent.
    pub(crate) async fn start_kept(patience: Duration) -> Self {
        let turn = Arc::clone(&ENGINES).read_owned().await;
        let mut site = Self::bare(Some(turn)).await;
        site.start_keeper(patience).await;
        site.agent = Some(site.agent());
        site.start_agent().await;
        site
    }

    async fn bare(turn: Option<OwnedRwLockReadGuard<()>>) -> Self {
        let engine = Engine::start().await.unwrap();
        let cluster = Arc::new(OneHost::new(&engine.namespace().unwrap()).await);
        Self {
            engine,
            cluster,
            agent: None,
            keepers: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            _turn: turn,
        }
    }

    /// An agent behind the keeper, not started.
    pub(crate) fn agent(&self) -> Agent {
        let folder = self.folder.path().to_owned();
        Agent::new(folder, self.folder.path().join("agent.sock"), &self.cluster)
    }

    pub(crate) fn take(&mut self, agent: Agent) {
        self.agent = Some(agent);
    }

    pub(crate) async fn start_keeper(&mut self, patience: Duration) {
        let config = KeeperConfig::new(
            self.plugin_socket(),
            self.folder.path().join("agent.sock"),
            self.folder.path().join("journal"),
        );
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let keeper = tokio::spawn(async move {
            let keeping = driver::keep(config.patience(patience), || ready.send(()).unwrap());
            keeping.await.unwrap();
        });
        is_ready.await.unwrap();
        self.keepers.push(Task(keeper));
    }

    pub(crate) fn driver(&self) -> &NetworkDriver {
        &self.agent.as_ref().unwrap().driver
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent.as_mut().unwrap().server = None;
    }

    pub(crate) async fn start_agent(&mut self) {
        self.agent.as_mut().unwrap().start().await;
    }

    /// Where the engine looks for the plugin, as seen from here.
    pub(crate) fn plugin_socket(&self) -> PathBuf {
        let socket = self.engine.socket();
        socket.parent().unwrap().join("docker/plugins/arpanet.sock")
    }

    /// The driver's process ends and another one begins.
    pub(crate) async fn restart_driver(&mut self) {
        self.stop_agent();
        self.start_agent().await;
    }

    /// Lets go of what the engine has lost.
    pub(crate) fn review(&self) -> Review {
        let driver = &self.agent.as_ref().unwrap().driver;
        Review::start(Arc::clone(driver), self.engine.socket())
    }

    /// Keeps this engine's networks like those of the node's cluster.
    pub(crate) async fn spread(&self, node: &Cluster) {
        let discovery = Arc::clone(node.discovery());
        let file = self.folder.path().join("spread.json");
        let spread = Spread::start(node.me(), discovery, self.engine.socket(), file);
        let spread = spread.await.unwrap();
        spread.belongs_to(&self.agent.as_ref().unwrap().driver);
        self.cluster.spread.set(spread).unwrap();
    }

    fn docker_output(&self, args: &[&str]) -> Output {
        Command::new("/usr/bin/docker")
            .arg("--host")
            .arg(format!("unix://{}", self.engine.socket().display()))
            .args(args)
            .output()
            .unwrap()
    }

    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let output = self.docker_output(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What docker says when it refuses.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.docker_output(args);
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap().trim().to_owned()
    }

    pub(crate) fn create_network(&self, name: &str, subnet: &str) {
        self.docker(&[
            "network",
            "create",
            "-d",
            "arpanet",
            "--ipam-driver",
            "arpanet",
            "--subnet",
            subnet,
            name,
        ]);
    }
}

fn open_driver(folder: &Path, cluster: &Arc<OneHost>) -> Arc<NetworkDriver> {
    let networks = Arc::clone(cluster) as Arc<dyn Networks>;
    NetworkDriver::open(folder.join("driver.json"), networks).unwrap()
}
