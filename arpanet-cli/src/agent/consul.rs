//! Consul as a part of the node: its process in the router's namespace, where 10.253.A.B is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arpanet_consul::agent::{ConsulAgentConfig, Spawn};
use arpanet_consul::{ConsulAgent, ConsulConfig, ConsulDiscovery, ConsulKeyValue, HostedConsul};
use arpanet_core::addr::CONSUL_HTTP_PORT;
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::discovery::{LayeredDiscovery, Member, MemberState};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{Discovery, Error, ErrorKind, KeyValue, NodeAddr, Result};
use arpanet_netlink::{Namespace, Transport, holder_of_port};
use async_trait::async_trait;
use tokio::task::AbortHandle;

use super::forward::Forward;
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
    /// [`NotFound`](arpanet_core::ErrorKind::NotFound) where there is no consul program.
    pub(super) fn new(
        context: &Context,
        me: NodeAddr,
        domain: &str,
        members: Arc<dyn Discovery>,
        is_new: bool,
    ) -> Result<Self> {
        if is_new {
            require_no_other()?;
        }
        let program = host::consul(context.config.consul.as_deref())?;
        let paths = &context.paths;
        let socket = paths.consul_socket();
        let config = ConsulConfig::default()
            .address(format!("unix:{}", socket.display()))
            // The members' own discovery knows sooner who is gone, and who is back.
            .node_health(false);
        let recursors = host::upstreams().into_iter().map(|server| server.ip());
        let agent = ConsulAgentConfig::new(program, paths.consul(), socket)
            .domain(domain)
            .recursors(recursors);
        let agent = Arc::new(ConsulAgent::new(agent, spawn(paths.router()))?);
        let hosted = HostedConsul::new(Arc::clone(&agent), ConsulDiscovery::new(config.clone())?);
        Ok(Self {
            discovery: LayeredDiscovery::new(members, Arc::new(hosted)),
            key_value: Arc::new(ConsulKeyValue::new(config)?),
            facility: ConsulFacility::new(me, agent),
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

/// What this host has of consul: its HTTP port on the loopback; and that it meets the others again as soon as they are back.
#[derive(Debug)]
pub(super) struct ConsulFacility {
    agent: Arc<ConsulAgent>,
    forward: Forward,
    meeting: Mutex<Option<AbortHandle>>,
}

impl ConsulFacility {
    fn new(me: NodeAddr, agent: Arc<ConsulAgent>) -> Self {
        // Where programs of this host look for it.
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, CONSUL_HTTP_PORT));
        let to = SocketAddr::from((me.discovery(), CONSUL_HTTP_PORT));
        Self {
            agent,
            forward: Forward::new(from, to),
            meeting: Mutex::default(),
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has consul meet every server that comes up: by itself it looks after half a minute.
async fn meet(agent: Arc<ConsulAgent>, me: NodeAddr, mut members: Watch<NodeAddr, Member>) {
    let is_met = |member: &Member| {
        member.node != me && member.role.admits() && member.state == MemberState::Alive
    };
    let mut alive = std::collections::BTreeSet::new();
    while let Some(change) = members.next().await {
        let come: Vec<NodeAddr> = match change {
            Change::Snapshot(set) => set.into_values().filter(is_met).map(|it| it.node).collect(),
            Change::Upsert(_, member) if is_met(&member) => vec![member.node],
            Change::Upsert(node, member) if member.state == MemberState::Down => {
                alive.remove(&node);
                continue;
            }
            Change::Removed(node) => {
                alive.remove(&node);
                continue;
            }
            _ => continue,
        };
        for node in come.into_iter().filter(|node| alive.insert(*node)) {
            if let Err(error) = agent.join(&[node.discovery()]).await {
                tracing::debug!(%error, %node, "consul there does not answer yet");
            }
        }
    }
}

#[async_trait]
impl Facility for ConsulFacility {
    fn name(&self) -> &'static str {
        "consul"
    }

    async fn start(&self, context: &FacilityContext) -> Result<()> {
        if let Err(error) = self.forward.start().await {
            // The node itself does without.
            tracing::error!(%error, "consul is not at the loopback of this host");
        }
        let members = context.discovery.watch_members().await?;
        let me = context.membership.me.node;
        let task = tokio::spawn(meet(Arc::clone(&self.agent), me, members));
        if let Some(before) = self.meeting().replace(task.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.forward.stop();
        if let Some(task) = self.meeting().take() {
            task.abort();
        }
        Ok(())
    }
}
