//! `Discovery` on a consul process that is this node's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::discovery::{
    Discovery, DiscoveryCapabilities, Instance, Member, Selector, ServiceSummary, Spread,
};
use arpanet_core::roster::Role;
use arpanet_core::watch::Watch;
use arpanet_core::{InstanceId, NodeAddr, Result, ServiceName};
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::agent::ConsulAgent;
use crate::backend::ConsulDiscovery;

/// [`ConsulDiscovery`] with the process that it asks: started with it, and ended with it.
///
/// - `stop` leaves the process running: the next start finds it.
/// - `leave` takes a client out of consul's cluster. A server's process ends and stays a member of it, since its data is to be
///   there again when it returns; after [`forget`](Discovery::forget) of this node it leaves too.
#[derive(Debug)]
pub struct HostedConsul {
    agent: Arc<ConsulAgent>,
    discovery: ConsulDiscovery,
    role: Mutex<Option<Role>>,
    is_forgotten: AtomicBool,
}

impl HostedConsul {
    /// Asking this process, by its socket. Nothing is started.
    #[must_use]
    pub fn new(agent: Arc<ConsulAgent>, discovery: ConsulDiscovery) -> Self {
        Self {
            agent,
            discovery,
            role: Mutex::default(),
            is_forgotten: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Discovery for HostedConsul {
    fn name(&self) -> &'static str {
        self.discovery.name()
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        self.discovery.capabilities()
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        *self.role.lock().await = Some(membership.me.role);
        self.is_forgotten.store(false, Ordering::Relaxed);
        self.agent.start(membership).await?;
        self.discovery.start(membership).await
    }

    async fn start_on_overlay(&self, returning: bool) -> Result<()> {
        self.discovery.start_on_overlay(returning).await
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.discovery.register(instance).await
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        self.discovery.deregister(id).await
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        self.discovery.lookup(service).await
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        self.discovery.services().await
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.discovery.members().await
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        self.discovery.watch(selector).await
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.discovery.watch_members().await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        if self.agent.node().await == Some(node) {
            // Also where discovery did not come up: its server may be one already.
            self.is_forgotten.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.discovery.forget(node).await
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        // Without a leader each instance would take its time.
        let told = match tokio::time::timeout(limit, self.discovery.leave(limit)).await {
            Ok(told) => told,
            Err(_) => {
                tracing::warn!("consul was not told in time of what is gone");
                Ok(())
            }
        };
        let role = self.role.lock().await.take();
        let leaves = role == Some(Role::Client) || self.is_forgotten.swap(false, Ordering::Relaxed);
        let ended = match leaves {
            true => self.agent.leave().await,
            false => self.agent.stop().await,
        };
        told.and(ended)
    }

    async fn stop(&self) -> Result<()> {
        let stopped = self.discovery.stop().await;
        self.agent.release().await;
        stopped
    }
}
