//! Consul as a part of the node: its process in the router's namespace, where 10.253.A.B is.

pub(crate) mod container;
mod home;
mod meeting;
mod names;
mod turning;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arpanet_consul::agent::{ConsulAgentConfig, Spawn};
use arpanet_consul::{ConsulAgent, ConsulConfig, ConsulDiscovery, ConsulKeyValue, HostedConsul};
use arpanet_core::addr::CONSUL_HTTP_PORT;
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::discovery::LayeredDiscovery;
use arpanet_core::roster::Role;
use arpanet_core::{Discovery, Error, ErrorKind, KeyValue, Result};
use arpanet_netlink::{Namespace, Transport, holder_of_port};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

pub(super) use self::home::Home;
use self::meeting::meet;
pub(super) use self::names::Names;
use self::turning::Turning;
use super::consul_access::Access;
use super::loopback::Loopback;
use crate::commands::Context;
use crate::host;

/// What a node with consul is made of.
#[derive(Debug)]
pub(super) struct Consul {
    pub(super) discovery: LayeredDiscovery,
    pub(super) key_value: Arc<dyn KeyValue>,
    pub(super) facility: ConsulFacility,
}

impl Consul {
    /// Services in consul, over what knows the members. Nothing is started.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) where another consul is at this host's port.
    pub(super) fn new(
        context: &Context,
        home: Home,
        domain: &str,
        members: Arc<dyn Discovery>,
        is_new: bool,
    ) -> Result<Self> {
        if is_new {
            require_no_other()?;
        }
        let paths = &context.paths;
        let socket = home.socket(context);
        let access = Access::of(&context.config)?;
        let mut config = ConsulConfig::default()
            .address(format!("unix:{}", socket.display()))
            // The members' own discovery knows sooner who is gone, and who is back.
            .node_health(false);
        let recursors = host::upstreams().into_iter().map(|server| server.ip());
        let mut agent = ConsulAgentConfig::new(home.program(), paths.consul(), socket)
            .domain(domain)
            .recursors(recursors);
        if let Some(datacenter) = access.datacenter {
            agent = agent.datacenter(datacenter);
        }
        if let Some(token) = access.token {
            config = config.token(token.clone());
            agent = agent.token(token);
        }
        let has_certificates = access.tls.is_some();
        if let Some(tls) = access.tls {
            agent = agent.tls(tls);
        }
        let agent = ConsulAgent::new(agent, home.spawning(&paths.router()))?;
        let agent = Arc::new(agent.connecting(Arc::new(connect)));
        let hosted = HostedConsul::new(Arc::clone(&agent), ConsulDiscovery::new(config.clone())?);
        Ok(Self {
            discovery: LayeredDiscovery::new(members, Arc::new(hosted)),
            key_value: Arc::new(ConsulKeyValue::new(config)?),
            facility: ConsulFacility::new(agent, has_certificates),
        })
    }
}

/// A consul of the host's own stays as it is, and two can't be at one port.
fn require_no_other() -> Result<()> {
    let Some(holder) = holder_of_port(Transport::Tcp, CONSUL_HTTP_PORT) else {
        return Ok(());
    };
    let message = format!("TCP port {CONSUL_HTTP_PORT} is in use by {holder}");
    Err(Error::new(ErrorKind::Conflict, message).with_hint(
        "a node runs a consul of its own, which that port of the loopback leads to: end the other, or do with --discovery gossip",
    ))
}

/// Starts a command in the router's namespace.
fn spawn(router: PathBuf) -> Spawn {
    Arc::new(move |command| {
        let router = Namespace::open(&router).map_err(std::io::Error::other)?;
        router
            .run(|| command.spawn())
            .map_err(std::io::Error::other)?
    })
}

/// How long a connection to this node's own consul may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where the agents of servers answer each other and clients, and where all of them do, to datagrams too.
const RPC_PORT: u16 = 8300;
const SERF_PORT: u16 = 8301;
/// Its HTTP API by TLS, where there are certificates.
const HTTPS_PORT: u16 = 8501;

/// Reaches this node's consul by the host's link into the router.
fn connect(at: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&at, PATIENCE)
}

/// What this host has of consul: its ports on the loopback; and that it meets the others again as soon as they are back.
#[derive(Debug)]
pub(super) struct ConsulFacility {
    agent: Arc<ConsulAgent>,
    loopback: Loopback,
    has_certificates: bool,
    following: Mutex<Vec<AbortHandle>>,
}

impl ConsulFacility {
    fn new(agent: Arc<ConsulAgent>, has_certificates: bool) -> Self {
        Self {
            agent,
            has_certificates,
            loopback: Loopback::default(),
            following: Mutex::default(),
        }
    }

    /// Follows these from now on, and nothing else.
    fn follow(&self, tasks: Vec<AbortHandle>) {
        let mut following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for before in std::mem::replace(&mut *following, tasks) {
            before.abort();
        }
    }
}

/// The ports of this host's consul, but for DNS, which the node serves itself.
fn ports(role: Role, has_certificates: bool) -> Vec<(Transport, u16)> {
    use Transport::{Tcp, Udp};
    let rpc = role.admits().then_some((Tcp, RPC_PORT));
    let https = has_certificates.then_some((Tcp, HTTPS_PORT));
    let all = [
        Some((Tcp, SERF_PORT)),
        Some((Udp, SERF_PORT)),
        Some((Tcp, CONSUL_HTTP_PORT)),
        rpc,
        https,
    ];
    all.into_iter().flatten().collect()
}

#[async_trait]
impl Facility for ConsulFacility {
    fn name(&self) -> &'static str {
        "consul"
    }

    async fn start(&self, context: &FacilityContext) -> Result<()> {
        let info = &context.membership.me;
        let me = info.node;
        // Where programs of this host look for it. The node itself does without.
        let ports = ports(info.role, self.has_certificates);
        self.loopback.start(me.discovery(), &ports, context).await;
        let members = context.discovery.watch_members().await?;
        let turned = Arc::new(Notify::new());
        let meeting = meet(Arc::clone(&self.agent), me, members, Arc::clone(&turned));
        let mut tasks = vec![tokio::spawn(meeting)];
        match context.discovery.watch_keys().await {
            Ok(keys) => {
                let known = context.membership.key.clone();
                let following = Turning::new(Arc::clone(&self.agent), info.role, known, turned);
                tasks.push(tokio::spawn(following.follow(keys)));
            }
            // It stays what it is.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
        self.follow(tasks.iter().map(JoinHandle::abort_handle).collect());
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.loopback.stop();
        self.follow(Vec::new());
        Ok(())
    }
}
