//! `Discovery` on a consul agent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::discovery::{
    Discovery, DiscoveryCapabilities, Health, Instance, Member, MemberState, Selector,
    ServiceSummary, Spread, summarize,
};
use arpanet_core::watch::Watch;
use arpanet_core::{Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::check::ServiceCheck;
use crate::client::Client;
use crate::config::{ConsulConfig, ms};
use crate::error::{BACKEND, own};
use crate::leadership::Leadership;
use crate::reading::Answer;
use crate::registry::{Registration, Registry};
use crate::running::{Running, Source};
use crate::starting::{come_up, spawn_tasks};
use crate::translate::{by_id, is_reserved, to_instance};
use crate::wire::{SerfMember, ServiceEntry};
use crate::{instances, members};

/// How long after the leader, or another backend that says who lives, the local agent may notice a death: longer on a busy host.
const SERF_LAG: Duration = Duration::from_secs(20);

/// [`Discovery`] by the consul agent of this node.
///
/// It has no records and admits nobody: what consul lives on, the overlay, needs both before consul can be there, so another
/// backend underneath has them.
#[derive(Debug)]
pub struct ConsulDiscovery {
    config: ConsulConfig,
    client: Client,
    leadership: Leadership,
    running: Mutex<Option<Arc<Running>>>,
    /// Of two starts at once the later one waits.
    starting: tokio::sync::Mutex<()>,
}

impl ConsulDiscovery {
    /// By this agent. Nothing is asked yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names what can't be used of the config or of the files that it names.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::over(Client::new(&config)?, config))
    }

    pub(crate) fn over(client: Client, config: ConsulConfig) -> Self {
        Self {
            leadership: Leadership::new(client.clone()),
            client,
            config,
            running: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
        }
    }

    /// What it has once this registry is up.
    fn run(&self, membership: &Membership, registry: Registry) -> Running {
        let source = Source {
            client: self.client.clone(),
            leadership: self.leadership.clone(),
            consistency: self.config.consistency,
            wait: ms(self.config.wait_ms),
            leader: self.leadership.follow(),
            connections: Arc::new(Semaphore::new(self.config.watch_connections as usize)),
            cancel: CancellationToken::new(),
        };
        Running::new(membership.clone(), source, Arc::new(registry))
    }

    /// Takes it that this registry is up.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn begin(&self, membership: &Membership, registry: Registry) {
        self.slot()
            .replace(Arc::new(self.run(membership, registry)));
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, operation: &'static str) -> Result<Arc<Running>> {
        self.slot().clone().ok_or_else(|| {
            own(
                ErrorKind::Unavailable,
                "discovery does not run on this node",
            )
            .operation(operation)
        })
    }

    /// Registers an instance as [`register`](Discovery::register) does, with checks that consul runs beside: the instance is
    /// critical while one of them fails. A second call replaces the checks too; `register` takes them away.
    ///
    /// # Errors
    /// As of [`register`](Discovery::register), and [`InvalidInput`](ErrorKind::InvalidInput) for a check that this agent
    /// does not take.
    pub async fn register_with_checks(
        &self,
        instance: Instance,
        checks: Vec<ServiceCheck>,
    ) -> Result<Spread> {
        const OPERATION: &str = "register";
        let running = self.running(OPERATION)?;
        let me = running.membership.me.node;
        let refused =
            |message: String| Err(own(ErrorKind::InvalidInput, message).operation(OPERATION));
        if instance.node != me {
            return refused(format!(
                "{} runs on {}, and {me} can register its own only",
                instance.id, instance.node
            ));
        }
        if is_reserved(instance.service.as_str()) {
            return refused(format!(
                "a service can't be called {}: consul has one",
                instance.service
            ));
        }
        // What is out of reach can't say so itself.
        let instance = match instance.health {
            Health::Passing => instance,
            _ => instance.health(Health::Critical),
        };
        running
            .registry
            .register(Registration { instance, checks })
            .await
            .map_err(|error| error.operation(OPERATION))?;
        Ok(Spread::default())
    }

    /// Waits, but not for long, until none of these nodes answers the local agent.
    async fn gone_from_serf(&self, names: &[&str]) -> Result<bool> {
        let end = Instant::now() + SERF_LAG;
        loop {
            let serf = self.client.serf_members().await?;
            let is_there = |one: &SerfMember| one.is_alive() && names.contains(&one.name.as_str());
            if !serf.iter().any(is_there) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            tokio::time::sleep(SERF_LAG / 80).await;
        }
    }
}

/// Instances of entries; without a leader those of nodes that this node's agent does not reach count as out of reach.
async fn shown(source: &Source, answer: Answer<Vec<ServiceEntry>>) -> Result<Vec<Instance>> {
    let serf = if answer.has_leader || !source.client.node_health {
        None
    } else {
        Some(source.client.serf_members().await?)
    };
    let reached =
        |serf: &[SerfMember], at: &str| serf.iter().any(|one| one.name == at && one.is_alive());
    let instances = answer.value.iter().filter_map(|entry| {
        let instance = to_instance(entry)?;
        Some(match &serf {
            Some(serf) if !reached(serf, &entry.node.node) => instance.health(Health::Suspended),
            _ => instance,
        })
    });
    Ok(by_id(instances).into_values().collect())
}

#[async_trait]
impl Discovery for ConsulDiscovery {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        DiscoveryCapabilities::all()
            .without_records()
            .without_admission()
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        let named = |error: Error| error.operation("start discovery");
        let _starting = self.starting.lock().await;
        let before = self.slot().clone();
        if let Some(running) = before {
            let is_same = running.membership.me == membership.me
                && running.membership.identity == membership.identity
                && running.membership.cluster == membership.cluster;
            if is_same {
                return Ok(());
            }
            self.slot().take();
        }
        let registry = match come_up(&self.client, &self.config, membership).await {
            Ok(registry) => registry,
            Err(error) => {
                // An agent that does not answer has nothing of this either, or drops it without signs of life.
                let _ = self
                    .client
                    .deregister_service(crate::translate::MEMBER)
                    .await;
                let _ = self
                    .client
                    .deregister_check(crate::translate::HEARTBEAT)
                    .await;
                return Err(named(error));
            }
        };
        let left = registry.kept().await.map_err(named)?;
        let running = self.run(membership, registry);
        let left = left.into_iter().map(|(id, _)| id).collect();
        let (heartbeat, inherit) = (self.config.heartbeat_ms, self.config.inherit_ms);
        spawn_tasks(&running, ms(heartbeat), ms(inherit), left);
        self.slot().replace(Arc::new(running));
        Ok(())
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.register_with_checks(instance, Vec::new()).await
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        let running = self.running("deregister")?;
        running
            .registry
            .deregister(id)
            .await
            .map_err(|error| error.operation("deregister"))
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        let named = |error: Error| error.operation("lookup");
        let running = self.running("lookup")?;
        let answer = running.look(service.as_str()).await.map_err(named)?;
        let mut found = shown(&running.source, answer).await.map_err(named)?;
        found.retain(|instance| instance.health == Health::Passing);
        Ok(found)
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        let named = |error: Error| error.operation("list services");
        let running = self.running("list services")?;
        let names = running.source.names().await.map_err(named)?;
        let all = instances::all(&running.source, names.value)
            .await
            .map_err(named)?;
        let mut found = Vec::new();
        for (_, answer) in all {
            found.extend(shown(&running.source, answer).await.map_err(named)?);
        }
        Ok(summarize(&found))
    }

    async fn members(&self) -> Result<Vec<Member>> {
        let named = |error: Error| error.operation("list members");
        let running = self.running("list members")?;
        let nodes = members::nodes(&running.source).await.map_err(named)?;
        let serf = self.client.serf_members().await.map_err(named)?;
        let seen = members::seen(&nodes.value, &serf, nodes.has_leader);
        Ok(seen.into_values().collect())
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        let running = self.running("watch")?;
        let watch = running.watch(selector).await;
        watch.map_err(|error| error.operation("watch"))
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        let running = self.running("watch members")?;
        let watch = members::watch(&running.source).await;
        watch.map_err(|error| error.operation("watch members"))
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let named = |error: Error| error.operation("forget");
        let running = self.running("forget")?;
        if node == running.membership.me.node {
            // Its address is not consul's to give; the rest goes as it leaves.
            return Ok(());
        }
        let nodes = members::nodes(&running.source).await.map_err(named)?;
        let serf = self.client.serf_members().await.map_err(named)?;
        let at: Vec<&str> = nodes
            .value
            .iter()
            .filter(|(_, member)| member.node == node)
            .map(|(at, _)| at.as_str())
            .collect();
        if at.is_empty() {
            if running.membership.roster.entry(node).is_some() {
                return Ok(());
            }
            let message = format!("there never was a node {node}");
            return Err(named(own(ErrorKind::NotFound, message)));
        }
        let seen = members::seen(&nodes.value, &serf, nodes.has_leader);
        // Where another backend says who lives, its sign of life may not have run out.
        let is_alive = self.client.node_health
            && seen
                .get(&node)
                .is_some_and(|member| member.state != MemberState::Down);
        // The catalogue may know a moment before the local agent does.
        if is_alive || !self.gone_from_serf(&at).await.map_err(named)? {
            return Err(named(own(ErrorKind::Conflict, format!("{node} is alive")))
                .with_hint("stop it there, its consul too, or wait until it is down"));
        }
        for at in at {
            self.client.force_leave(at).await.map_err(named)?;
            self.client.deregister_node(at).await.map_err(named)?;
        }
        Ok(())
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        let running = self.slot().take();
        let Some(running) = running else {
            return Ok(());
        };
        running.source.cancel.cancel();
        running
            .registry
            .leave(limit)
            .await
            .map_err(|error| error.operation("leave"))
    }

    async fn stop(&self) -> Result<()> {
        if let Some(running) = self.slot().take() {
            running.source.cancel.cancel();
        }
        Ok(())
    }
}
