//! [`Discovery`] over an engine.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::admission::{Credential, Keys, Membership, Secret};
use arpanet_core::discovery::{
    Discovery, DiscoveryCapabilities, Health, Instance, Member, Record, RecordKey, Selector,
    ServiceSummary, Spread, summarize,
};
use arpanet_core::watch::Watch;
use arpanet_core::{
    Datagrams, Error, ErrorKind, InstanceId, NodeAddr, Result, Roster, RosterEntry, ServiceName,
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::catalogue::{instance_key, record_key, write_instance};
use crate::config::GossipConfig;
use crate::engine::{Engine, Outcome, Refusals, Ticket};
use crate::keep::StateFile;
use crate::running::{Running, apart};

const BACKEND: &str = "gossip";

/// Discovery by gossip: the nodes tell each other, and no engine is needed beside them.
///
/// It speaks over any [`Datagrams`]: the side channel of the tunnel's port, or a socket of its own
/// ([`UdpDatagrams`](crate::UdpDatagrams)). Start and stop as the trait says; dropping it stops it without a word.
pub struct GossipDiscovery {
    config: GossipConfig,
    key: Secret<32>,
    transport: Arc<dyn Datagrams>,
    file: Option<StateFile>,
    running: Mutex<Option<Arc<Running>>>,
    /// Held while it starts or ends.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for GossipDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipDiscovery")
            .field("config", &self.config)
            .field("transport", &self.transport)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl GossipDiscovery {
    /// One for the node whose identity has this secret key (the seed of an ed25519 key), over this transport. It keeps
    /// nothing on disk.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for timings that do not fit together.
    pub fn new(
        config: GossipConfig,
        key: Secret<32>,
        transport: Arc<dyn Datagrams>,
    ) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            key,
            transport,
            file: None,
            running: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Keeps in this file, readable by its owner alone, what helps the next start: who vouched for the roster, where the
    /// others were, and how often this node has started. Nothing in it is secret.
    ///
    /// A damaged file is refused by [`start`](Discovery::start) with its path. A file that can't be written is logged as
    /// an error and tried again every 10 s, and gossip goes on.
    #[must_use]
    pub fn keep_in(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(StateFile::new(file.into()));
        self
    }

    /// What this run has refused so far, by reason.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while it does not run.
    pub fn refusals(&self) -> Result<Refusals> {
        let refusals = self
            .current()
            .and_then(|running| running.driver.call(|engine, _| engine.refusals()));
        refusals.map_err(|error| of("tell refusals", error))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run, ready or expelled.
    fn current(&self) -> Result<Arc<Running>> {
        let running = self.slot().clone();
        let running = running
            .filter(|running| !running.is_leaving())
            .ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "gossip does not run on this node")
            })?;
        running.check_running()?;
        Ok(running)
    }

    /// The run of a node that takes part.
    fn member(&self) -> Result<Arc<Running>> {
        let running = self.current()?;
        running.check()?;
        Ok(running)
    }

    async fn settle(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Engine, Duration) -> Result<Ticket>,
    ) -> Result<Spread> {
        let settled = async {
            match self.member()?.driver.settle(act).await? {
                Outcome::Spread { unconfirmed } => Ok(Spread::unconfirmed_by(unconfirmed)),
                Outcome::Refused(error) => Err(error),
            }
        };
        settled.await.map_err(|error| of(operation, error))
    }

    fn read<R>(&self, operation: &'static str, act: impl FnOnce(&Running) -> R) -> Result<R> {
        match self.member() {
            Ok(running) => Ok(act(&running)),
            Err(error) => Err(of(operation, error)),
        }
    }
}

fn of(operation: &'static str, error: Error) -> Error {
    error.operation(operation).backend(BACKEND)
}

#[async_trait]
impl Discovery for GossipDiscovery {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        let all = DiscoveryCapabilities::all();
        if self.config.keep_key {
            all
        } else {
            all.with_turning_keys()
        }
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        let _turn = self.turn.lock().await;
        let before = self.slot().clone();
        let running = match before {
            // Also one whose start was dropped halfway.
            Some(running) if running.is_of(membership) => {
                let keys = membership.keys();
                running
                    .driver
                    .call(|engine, now| engine.take_keys(now, keys))
                    .map_err(|error| of("start", error))?;
                running
            }
            before => {
                if let Some(before) = before {
                    before.stop().await;
                    *self.slot() = None;
                }
                let running = Running::begin(
                    self.config.clone(),
                    membership,
                    &self.key,
                    Arc::clone(&self.transport),
                    self.file.clone(),
                )
                .await
                .map_err(|error| of("start", error))?;
                let running = Arc::new(running);
                *self.slot() = Some(Arc::clone(&running));
                running
            }
        };
        let ready = running.ready().await;
        if ready.is_err() {
            running.stop().await;
            *self.slot() = None;
        }
        ready.map_err(|error| of("start", error))
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.settle("register", |engine, now| {
            if instance.node != engine.node() {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "{} runs on {}, and {} can register its own only",
                        instance.id,
                        instance.node,
                        engine.node()
                    ),
                ));
            }
            engine.publish(now, &instance_key(&instance.id), write_instance(&instance))
        })
        .await
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        self.settle("deregister", |engine, now| {
            Ok(engine.retract(now, &instance_key(id)))
        })
        .await
        .map(drop)
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        self.read("lookup", |running| {
            running.catalogue.instances.with(|instances| {
                instances
                    .values()
                    .filter(|instance| {
                        instance.service == *service && instance.health == Health::Passing
                    })
                    .cloned()
                    .collect()
            })
        })
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        self.read("list services", |running| {
            running
                .catalogue
                .instances
                .with(|instances| summarize(instances.values()))
        })
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.read("list members", |running| {
            running
                .catalogue
                .members
                .with(|members| members.values().cloned().collect())
        })
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        self.read("watch", |running| {
            running
                .catalogue
                .instances
                .watch_where(move |_, instance| selector.matches(instance))
        })
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.read("watch members", |running| running.catalogue.members.watch())
    }

    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        self.settle("publish", |engine, now| {
            engine.publish(now, &record_key(key)?, value)
        })
        .await
    }

    async fn retract(&self, key: &str) -> Result<()> {
        self.settle("retract", |engine, now| {
            // What can't be a key was never said.
            let key = record_key(key).unwrap_or_default();
            Ok(engine.retract(now, &key))
        })
        .await
        .map(drop)
    }

    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        let prefix = prefix.to_owned();
        self.read("watch records", |running| {
            running
                .catalogue
                .records
                .watch_where(move |(_, key), _| key.starts_with(&prefix))
        })
    }

    async fn admit(&self, entry: RosterEntry) -> Result<()> {
        self.settle("admit", |engine, now| engine.admit(now, entry))
            .await
            .map(drop)
    }

    async fn roster(&self) -> Result<Roster> {
        self.current()
            .and_then(|running| running.driver.call(|engine, _| engine.roster().clone()))
            .map_err(|error| of("tell the roster", error))
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let forgotten = async {
            let running = self.current()?;
            match running
                .driver
                .settle(|engine, now| engine.forget(now, node))
                .await?
            {
                Outcome::Spread { .. } => Ok(()),
                Outcome::Refused(error) => Err(error),
            }
        };
        forgotten.await.map_err(|error| of("forget", error))
    }

    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        self.settle("turn the key over", |engine, now| {
            engine.turn_over(now, credential)
        })
        .await
    }

    async fn watch_keys(&self) -> Result<watch::Receiver<Keys>> {
        self.current()
            .map(|running| running.keys.clone())
            .map_err(|error| of("tell the key", error))
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Some(running) = self.slot().clone() else {
            return Ok(());
        };
        let for_good = running.is_expelled();
        running.leave(limit).await;
        *self.slot() = None;
        match self.file.clone() {
            Some(file) if for_good => apart(move || file.remove())
                .await
                .map_err(|error| of("leave", error)),
            _ => Ok(()),
        }
    }

    async fn stop(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Some(running) = self.slot().clone() else {
            return Ok(());
        };
        running.stop().await;
        *self.slot() = None;
        Ok(())
    }
}
