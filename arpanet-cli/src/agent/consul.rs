//! Consul as a part of the node: its process in the router's namespace, where 10.253.A.B is.

pub(crate) mod container;
mod home;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arpanet_consul::agent::{ConsulAgentConfig, Spawn};
use arpanet_consul::{ConsulAgent, ConsulConfig, ConsulDiscovery, ConsulKeyValue, HostedConsul};
use arpanet_core::addr::CONSUL_HTTP_PORT;
use arpanet_core::admission::{ClusterKey, Keys};
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::discovery::{LayeredDiscovery, Member, MemberState};
use arpanet_core::roster::Role;
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{Discovery, Error, ErrorKind, KeyValue, NodeAddr, Result};
use arpanet_netlink::{Namespace, Transport, holder_of_port};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

pub(super) use self::home::Home;
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

/// Between two tries to give a key to all of consul's agents: one may be about to be found dead.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a connection to this node's own consul may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where the agents of servers answer each other and clients, and where all of them do. Their datagrams are among agents only.
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
fn ports(role: Role, has_certificates: bool) -> Vec<u16> {
    let rpc = role.admits().then_some(RPC_PORT);
    let https = has_certificates.then_some(HTTPS_PORT);
    let all = [Some(SERF_PORT), Some(CONSUL_HTTP_PORT), rpc, https];
    all.into_iter().flatten().collect()
}

/// Has consul's gossip follow the cluster's key, each time that it turns.
async fn follow_keys(agent: Arc<ConsulAgent>, known: ClusterKey, mut keys: watch::Receiver<Keys>) {
    let mut known = Some(known);
    loop {
        let key = keys.borrow_and_update().key.clone();
        let is_known = known.take().is_some_and(|known| known == key);
        let turned = async {
            while !is_known && let Err(error) = agent.turn_key(&key).await {
                tracing::debug!(%error, "not all of consul's agents have the cluster's key yet");
                tokio::time::sleep(AGAIN).await;
            }
        };
        let changed = tokio::select! {
            () = turned => keys.changed().await,
            changed = keys.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Has consul meet every server that comes up: by itself it looks after half a minute.
async fn meet(agent: Arc<ConsulAgent>, me: NodeAddr, mut members: Watch<NodeAddr, Member>) {
    let mut met = Met::default();
    while let Some(change) = members.next().await {
        for node in met.come(me, change) {
            if let Err(error) = agent.join(&[node.discovery()]).await {
                tracing::debug!(%error, %node, "consul there does not answer yet");
            }
        }
    }
}

/// The servers that were met since they came up.
#[derive(Debug, Default)]
struct Met(BTreeSet<NodeAddr>);

impl Met {
    /// Those that are to be met now.
    fn come(&mut self, me: NodeAddr, change: Change<NodeAddr, Member>) -> Vec<NodeAddr> {
        let is_server = |member: &Member| {
            member.node != me && member.role.admits() && member.state == MemberState::Alive
        };
        let come: Vec<NodeAddr> = match change {
            Change::Snapshot(set) => {
                // Whoever it does not have, or has as down, went meanwhile.
                let is_down = |node: &NodeAddr| {
                    set.get(node)
                        .is_none_or(|member| member.state == MemberState::Down)
                };
                self.0.retain(|node| !is_down(node));
                let servers = set.into_values().filter(is_server);
                servers.map(|member| member.node).collect()
            }
            Change::Upsert(_, member) if is_server(&member) => vec![member.node],
            Change::Upsert(node, member) if member.state == MemberState::Down => {
                self.0.remove(&node);
                return Vec::new();
            }
            Change::Removed(node) => {
                self.0.remove(&node);
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        let is_new = |node: &NodeAddr| self.0.insert(*node);
        come.into_iter().filter(is_new).collect()
    }
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
        let mut tasks = vec![tokio::spawn(meet(Arc::clone(&self.agent), me, members))];
        match context.discovery.watch_keys().await {
            Ok(keys) => {
                let known = context.membership.key.clone();
                let following = follow_keys(Arc::clone(&self.agent), known, keys);
                tasks.push(tokio::spawn(following));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str, role: Role, state: MemberState) -> Member {
        let node: NodeAddr = text.parse().unwrap();
        let name = format!("node{}", node.octets()[1]).parse().unwrap();
        let mut member = Member::new(node, name, role);
        member.state = state;
        member
    }

    fn set(members: &[Member]) -> Change<NodeAddr, Member> {
        let members = members.iter().cloned();
        Change::Snapshot(members.map(|member| (member.node, member)).collect())
    }

    #[test]
    fn servers_are_met_once_each_time_that_they_come_up() {
        use MemberState::{Alive, Down, Suspect};
        let [me, other]: [NodeAddr; 2] = ["0.1", "0.2"].map(|node| node.parse().unwrap());
        let own = member("0.1", Role::Boot, Alive);
        let server = |state| member("0.2", Role::Server, state);
        let client = member("0.3", Role::Client, Alive);
        let mut met = Met::default();
        let first = set(&[own.clone(), server(Alive), client.clone()]);
        assert_eq!(met.come(me, first.clone()), [other]);
        assert_eq!(met.come(me, first), []);
        for (state, come) in [(Suspect, 0), (Alive, 0), (Down, 0), (Alive, 1)] {
            let change = Change::Upsert(other, server(state));
            assert_eq!(met.come(me, change).len(), come, "{state:?}");
        }
        assert_eq!(met.come(me, Change::Upsert(client.node, client)), []);
        // What a snapshot does not have, or has as down, is met again.
        for gone in [set(std::slice::from_ref(&own)), set(&[own, server(Down)])] {
            assert_eq!(met.come(me, gone), []);
            assert_eq!(met.come(me, set(&[server(Alive)])), [other]);
        }
        assert_eq!(met.come(me, Change::Removed(other)), []);
        assert_eq!(met.come(me, set(&[server(Alive)])), [other]);
    }
}
