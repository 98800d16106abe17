//! One run of a node, from its start to its stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arpanet_core::admission::{Keys, Membership, Secret};
use arpanet_core::roster::{ClusterId, Identity};
use arpanet_core::{Datagrams, Error, ErrorKind, NodeAddr, Result, RosterEntry};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::catalogue::{Catalogue, Told};
use crate::config::GossipConfig;
use crate::driver::{Driver, News, Sink};
use crate::engine::{Engine, Event, GossipState};
use crate::keep::StateFile;

/// Between two writes of what is kept, so that a cluster that comes up at once is not written down node by node.
const BETWEEN_WRITES: Duration = Duration::from_millis(500);
/// Until a write that failed is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(10);
/// How long the last datagrams may take to be handed to the transport.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How far it has come.
#[derive(Debug, Clone, Default)]
struct Phase {
    /// Its catalogue is filled, or nobody was there to fill it.
    ready: bool,
    /// What it keeps was written for the first time, or could not be.
    kept: bool,
    /// Its address is not its own any more.
    expelled: Option<RosterEntry>,
    /// The transport is closed.
    lost: bool,
}

/// What wakes and ends the one that writes down what is kept.
#[derive(Debug, Default)]
struct Signals {
    changed: Notify,
    ending: Notify,
    ends: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: NodeAddr,
    identity: Identity,
    cluster: ClusterId,
    pub(crate) driver: Arc<Driver>,
    pub(crate) catalogue: Catalogue,
    phase: watch::Receiver<Phase>,
    pub(crate) keys: watch::Receiver<Keys>,
    leaving: AtomicBool,
    signals: Arc<Signals>,
    keeper: Mutex<Option<Keeper>>,
}

/// The task that writes down what is kept; it ends when this is dropped.
#[derive(Debug)]
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// Begins; [`ready`](Self::ready) tells when it has got somewhere.
    pub(crate) async fn begin(
        config: GossipConfig,
        membership: &Membership,
        key: &Secret<32>,
        transport: Arc<dyn Datagrams>,
        file: Option<StateFile>,
    ) -> Result<Self> {
        let (cluster, identity) = (membership.cluster, membership.identity);
        let state = match file.clone() {
            Some(file) => apart(move || file.load(cluster, identity)).await?,
            None => GossipState::default(),
        };
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(|source| {
            Error::new(ErrorKind::Internal, "the system gives no randomness").with_source(source)
        })?;
        let catalogue = Catalogue::default();
        let signals = Arc::new(Signals::default());
        let (phase, watched) = watch::channel(Phase {
            kept: file.is_none(),
            ..Phase::default()
        });
        let phase = Arc::new(phase);
        let (told_keys, keys) = watch::channel(membership.keys());
        let sink = sink(
            membership.me.node,
            identity,
            catalogue.clone(),
            told_keys,
            Arc::clone(&phase),
            Arc::clone(&signals),
        );
        let driver = Arc::new(Driver::spawn(transport, sink, |now| {
            Engine::new(config, membership, key, &state, now, seed)
        })?);
        let keeper = file.map(|file| {
            let task = keep(
                file,
                (cluster, identity),
                Arc::clone(&driver),
                phase,
                Arc::clone(&signals),
            );
            Keeper(tokio::spawn(task))
        });
        Ok(Self {
            node: membership.me.node,
            identity,
            cluster,
            driver,
            catalogue,
            phase: watched,
            keys,
            leaving: AtomicBool::new(false),
            signals,
            keeper: Mutex::new(keeper),
        })
    }

    /// Whether this is the run of this membership.
    pub(crate) fn is_of(&self, membership: &Membership) -> bool {
        self.identity == membership.identity
            && self.cluster == membership.cluster
            && self.node == membership.me.node
            && !self.is_leaving()
            && !self.phase.borrow().lost
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn is_expelled(&self) -> bool {
        self.phase.borrow().expelled.is_some()
    }

    /// Waits until the catalogue answers.
    pub(crate) async fn ready(&self) -> Result<()> {
        let mut phase = self.phase.clone();
        let ended = phase
            .wait_for(|phase| phase.expelled.is_some() || phase.lost || (phase.ready && phase.kept))
            .await
            .map(drop);
        match ended {
            Ok(()) => self.check(),
            Err(_) => Err(lost()),
        }
    }

    /// Whether this node may take part and its catalogue answers.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_running()?;
        match &self.phase.borrow().expelled {
            Some(entry) => Err(self.expulsion(entry)),
            None => Ok(()),
        }
    }

    /// Whether it answers at all.
    pub(crate) fn check_running(&self) -> Result<()> {
        let phase = self.phase.borrow();
        if phase.lost {
            return Err(lost());
        }
        if phase.expelled.is_none() && !(phase.ready && phase.kept) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "gossip is still starting on this node",
            ));
        }
        Ok(())
    }

    fn expulsion(&self, entry: &RosterEntry) -> Error {
        if entry.identity == self.identity {
            Error::new(
                ErrorKind::PermissionDenied,
                format!("{} was forgotten by its cluster", self.node),
            )
            .with_hint("reset this node and join again")
        } else {
            Error::new(
                ErrorKind::Conflict,
                format!("the address {} is held by {}", self.node, entry.name),
            )
            .with_hint("reset this node and join with another address")
        }
    }

    /// Tells the others that this node leaves, and stops. Dropped halfway, another call goes on.
    pub(crate) async fn leave(&self, limit: Duration) {
        self.leaving.store(true, Ordering::Relaxed);
        if !self.is_expelled() {
            let told = async {
                // What it had said in its last life is known then, and can be taken back.
                self.ready().await?;
                self.driver
                    .settle(|engine, now| Ok(engine.leave(now)))
                    .await
            };
            // Not told in time, or nobody there to tell: both are no failure.
            let _ = tokio::time::timeout(limit, told).await;
        }
        self.end_keeper().await;
        if self
            .driver
            .call(|engine, now| engine.finish_leave(now))
            .is_ok()
        {
            self.driver.finish(LAST_WORDS).await;
        }
        self.catalogue.close();
    }

    /// Stops without a word.
    pub(crate) async fn stop(&self) {
        self.end_keeper().await;
        self.driver.stop().await;
        self.catalogue.close();
    }

    /// Lets what is kept be written a last time.
    async fn end_keeper(&self) {
        self.signals.ends.store(true, Ordering::Release);
        self.signals.ending.notify_one();
        let mut keeper = self.keeper.lock().await;
        if let Some(keeper) = keeper.as_mut() {
            // What it ended with was logged.
            let _ = (&mut keeper.0).await;
        }
        *keeper = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.catalogue.close();
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unavailable, "gossip has lost its transport")
        .with_hint("does the tunnel run, and is its UDP port still bound?")
}

/// Shows what happens.
fn sink(
    node: NodeAddr,
    identity: Identity,
    catalogue: Catalogue,
    keys: watch::Sender<Keys>,
    phase: Arc<watch::Sender<Phase>>,
    signals: Arc<Signals>,
) -> Sink {
    let mut told = Told::default();
    Box::new(move |news| {
        let event = match news {
            News::Event(event) => event,
            News::Lost => {
                catalogue.set_stale(true);
                phase.send_modify(|phase| phase.lost = true);
                return;
            }
        };
        match &event {
            Event::Ready { filled } => {
                tracing::debug!(filled, "gossip is ready");
                phase.send_modify(|phase| phase.ready = true);
                signals.changed.notify_one();
            }
            Event::Roster(entry) => {
                if entry.node == node && entry.identity == identity && !entry.forgotten {
                    catalogue.set_stale(false);
                    phase.send_modify(|phase| phase.expelled = None);
                }
                signals.changed.notify_one();
            }
            Event::Keys(new) => {
                keys.send_replace(new.clone());
            }
            Event::Member(_) => signals.changed.notify_one(),
            Event::Expelled(entry) => {
                tracing::error!(%node, holder = %entry.name, forgotten = entry.forgotten, "this node's address is not its own any more");
                catalogue.set_stale(true);
                phase.send_modify(|phase| phase.expelled = Some(entry.clone()));
            }
            Event::Foreign { from, tag } => {
                let tag = format!("{:08x}", u32::from_be_bytes(*tag));
                tracing::warn!(%from, %tag, "a node of another cluster sends here: two clusters never merge");
            }
            _ => {}
        }
        catalogue.note(&mut told, event);
    })
}

/// Writes down what is kept, whenever it has changed.
async fn keep(
    file: StateFile,
    (cluster, identity): (ClusterId, Identity),
    driver: Arc<Driver>,
    phase: Arc<watch::Sender<Phase>>,
    signals: Arc<Signals>,
) {
    let mut written = None;
    loop {
        let ends = signals.ends.load(Ordering::Acquire);
        let Ok(state) = driver.call(|engine, _| engine.state()) else {
            return;
        };
        let mut failed = false;
        if written.as_ref() != Some(&state) {
            let (file, kept) = (file.clone(), state.clone());
            match apart(move || file.save(cluster, identity, kept)).await {
                Ok(()) => written = Some(state),
                Err(error) => {
                    failed = true;
                    tracing::error!(%error, source = ?std::error::Error::source(&error), "what gossip keeps for the next start can't be written; gossip itself goes on");
                }
            }
        }
        phase.send_modify(|phase| phase.kept = true);
        if ends {
            return;
        }
        tokio::select! {
            () = signals.changed.notified() => {}
            () = signals.ending.notified() => continue,
            () = tokio::time::sleep(WRITE_AGAIN), if failed => {}
        }
        tokio::select! {
            () = signals.ending.notified() => {}
            () = tokio::time::sleep(BETWEEN_WRITES) => {}
        }
    }
}

/// Does what may wait for a disk where it holds up nobody.
pub(crate) async fn apart<R: Send + 'static>(
    act: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(act).await.map_err(|source| {
        Error::new(ErrorKind::Internal, "a task ended early").with_source(source)
    })?
}
