//! One network on every engine: what one engine made or removed, the others do likewise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::discovery::{Record, RecordKey};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{AppNet, Discovery, Error, ErrorKind, NodeAddr, Result};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::shape::{EngineNetworks, Found, Shape};
use super::version::{self, PREFIX, Version};
use super::{NetworkDriver, state};

/// How soon an engine is looked at again that has not done yet what it was asked for.
const SOON: Duration = Duration::from_millis(50);
/// How seldom, where it goes on refusing.
const SELDOM: Duration = Duration::from_secs(5);
/// How long an engine may take between having asked the driver for a network and having it.
const MAKING: Duration = Duration::from_secs(10);
/// How long a network that is to be there may be missing from an engine that never gave it back. One that its user removes is
/// hidden by the engine before the driver is told; after this time the engine has lost it.
const LOST: Duration = Duration::from_secs(15);

/// Keeps the networks of this engine and of all others alike, as long as it is held.
#[derive(Debug)]
pub struct Spread {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    me: NodeAddr,
    discovery: Arc<dyn Discovery>,
    engine: EngineNetworks,
    path: PathBuf,
    /// What the engine has been given.
    driver: Mutex<Weak<NetworkDriver>>,
    known: Mutex<Known>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// What holds, as far as this node has heard.
    versions: BTreeMap<AppNet, Version>,
    /// Networks that this engine has just asked the driver for.
    fresh: BTreeMap<AppNet, Instant>,
    /// Networks that this engine was given, has not given back, and does not show.
    missing: BTreeMap<AppNet, Instant>,
    /// Versions of this node that are told.
    told: BTreeMap<AppNet, Version>,
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Spread {
    /// Follows what other nodes say, and has the engine at this socket do likewise, also after it or this process was away:
    /// what holds is kept in the file.
    ///
    /// # Errors
    /// Those of [`Discovery::watch_records`].
    pub async fn start(
        me: NodeAddr,
        discovery: Arc<dyn Discovery>,
        engine: impl Into<PathBuf>,
        file: impl Into<PathBuf>,
    ) -> Result<Self> {
        let path = file.into();
        // What can't be read is learned again from others, or from the engine.
        let versions = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let records = discovery.watch_records(PREFIX).await?;
        let shared = Arc::new(Shared {
            me,
            discovery,
            engine: EngineNetworks::new(engine.into()),
            path,
            driver: Mutex::default(),
            known: Mutex::new(Known {
                versions: versions.unwrap_or_default(),
                ..Known::default()
            }),
            woken: Notify::new(),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared), records));
        Ok(Self { shared, task })
    }

    /// The driver of this engine from now on: what the engine was given by it and has lost, it is given again.
    pub fn belongs_to(&self, driver: &Arc<NetworkDriver>) {
        *lock(&self.shared.driver) = Arc::downgrade(driver);
        self.shared.woken.notify_one();
    }

    /// This engine has asked the driver for a network, and has it in a moment.
    pub fn making(&self, net: AppNet) {
        self.shared.known().fresh.insert(net, Instant::now());
        self.shared.woken.notify_one();
    }

    /// Whether it is for all engines to have, as far as this node has heard.
    #[must_use]
    pub fn is_wanted(&self, net: AppNet) -> bool {
        let known = self.shared.known();
        let version = known.versions.get(&net);
        version.is_some_and(|version| version.shape.is_some())
    }

    /// The networks that all engines are to have, by their subnets, with their names.
    #[must_use]
    pub fn networks(&self) -> Vec<(AppNet, String)> {
        let known = self.shared.known();
        let wanted = known.versions.iter();
        wanted
            .filter_map(|(net, version)| Some((*net, version.shape.as_ref()?.name.clone())))
            .collect()
    }

    /// A user of this engine has removed a network: the others remove it too. A second call does nothing.
    ///
    /// # Errors
    /// When it can't be kept.
    pub fn removed(&self, net: AppNet) -> Result<()> {
        let mut known = self.shared.known();
        known.fresh.remove(&net);
        if let Some(version) = known.versions.get_mut(&net)
            && version.shape.is_some()
        {
            version.epoch += 1;
            version.shape = None;
            self.shared.save(&known)?;
        }
        drop(known);
        self.shared.woken.notify_one();
        Ok(())
    }
}

type Records = BTreeMap<(NodeAddr, RecordKey), Record>;

async fn follow(shared: Arc<Shared>, mut watch: Watch<(NodeAddr, RecordKey), Record>) {
    let mut records = Records::new();
    let mut pause = SOON;
    let mut complaint = String::new();
    loop {
        match shared.reconcile(&records).await {
            Ok(true) => {
                complaint.clear();
                pause = SELDOM;
            }
            Ok(false) => pause = SOON,
            Err(error) => {
                if complaint != error.to_string() {
                    complaint = error.to_string();
                    tracing::warn!(%error, "docker's networks differ from the cluster's");
                }
                pause = (pause * 2).min(SELDOM);
            }
        }
        tokio::select! {
            change = watch.next() => match change {
                Some(change) => take(&mut records, change),
                None => return,
            },
            () = shared.woken.notified() => pause = SOON,
            () = sleep(pause) => {}
        }
    }
}

fn take(records: &mut Records, change: Change<(NodeAddr, RecordKey), Record>) {
    match change {
        Change::Snapshot(all) => *records = all,
        Change::Upsert(key, record) => {
            records.insert(key, record);
        }
        Change::Removed(key) => {
            records.remove(&key);
        }
        // What was told stays the best known.
        _ => {}
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn save(&self, known: &Known) -> Result<()> {
        let text = serde_json::to_vec(&known.versions).map_err(std::io::Error::from);
        let saved = text.and_then(|text| state::replace(&self.path, &text));
        saved.map_err(|source| {
            let message = format!("{} can't be written", self.path.display());
            Error::new(ErrorKind::Internal, message).with_source(source)
        })
    }

    /// Makes the engine, and what this node says, agree with what holds. Whether nothing is left to be done.
    async fn reconcile(&self, records: &Records) -> Result<bool> {
        self.hear(records)?;
        // What was heard is said again first: it does not need the engine.
        self.tell().await?;
        let found = self.engine.list().await?;
        let done = self.learn(&found)?;
        self.tell().await?;
        let versions = self.known().versions.clone();
        let mut outcomes = Vec::new();
        for (net, version) in &versions {
            let here = found.iter().find(|found| found.net == *net);
            match (&version.shape, here) {
                (Some(shape), None) => outcomes.push(self.make(*net, shape).await),
                (None, Some(found)) if !self.known().fresh.contains_key(net) => {
                    tracing::info!(%net, name = found.shape.name, "removing the network from this engine");
                    outcomes.push(self.engine.remove(&found.id).await);
                }
                _ => {}
            }
        }
        outcomes.into_iter().collect::<Result<()>>()?;
        Ok(done)
    }

    fn driver(&self) -> Option<Arc<NetworkDriver>> {
        lock(&self.driver).upgrade()
    }

    /// Has the engine make a network that it does not show, unless it is about to give it back.
    async fn make(&self, net: AppNet, shape: &Shape) -> Result<()> {
        let missing = self.known().missing.get(&net).copied();
        match missing {
            Some(since) if since.elapsed() < LOST => return Ok(()),
            Some(_) => {
                tracing::warn!(%net, name = shape.name, "the engine has lost the network");
                if let Some(driver) = self.driver() {
                    driver.forget(net).await?;
                }
            }
            None => {}
        }
        tracing::info!(%net, name = shape.name, "making the network on this engine");
        self.engine.create(net, shape).await
    }

    /// Takes over what others say that is later than what is known.
    fn hear(&self, records: &Records) -> Result<()> {
        let said: Vec<(AppNet, NodeAddr, Version)> = records
            .iter()
            .filter(|((node, _), _)| *node != self.me)
            .filter_map(|((node, key), record)| {
                let version = serde_json::from_slice(&record.value).ok()?;
                Some((version::net_of(key)?, *node, version))
            })
            .collect();
        let mut known = self.known();
        let own = known
            .versions
            .iter()
            .map(|(net, version)| (*net, self.me, version));
        let theirs = said
            .iter()
            .map(|(net, node, version)| (*net, *node, version));
        let latest = version::latest(own.chain(theirs));
        if latest != known.versions {
            known.versions = latest;
            self.save(&known)?;
        }
        Ok(())
    }

    /// Takes over what this engine has that nobody has heard of. Whether it has all that it asked the driver for.
    fn learn(&self, found: &[Found]) -> Result<bool> {
        let given = self.driver().map(|driver| driver.networks());
        let is_shown = |net: &AppNet| found.iter().any(|one| one.net == *net);
        let missing = given.into_iter().flatten().filter(|net| !is_shown(net));
        let missing: BTreeSet<AppNet> = missing.collect();
        let mut known = self.known();
        let mut changed = false;
        for one in found {
            let is_fresh = known.fresh.remove(&one.net).is_some();
            let next = match known.versions.get(&one.net) {
                None => 1,
                // Made anew, after it was removed.
                Some(version) if version.shape.is_none() && is_fresh => version.epoch + 1,
                Some(_) => continue,
            };
            let version = Version {
                epoch: next,
                shape: Some(one.shape.clone()),
            };
            known.versions.insert(one.net, version);
            changed = true;
        }
        known.fresh.retain(|_, since| since.elapsed() < MAKING);
        known.missing.retain(|net, _| missing.contains(net));
        for net in missing {
            known.missing.entry(net).or_insert_with(Instant::now);
        }
        if changed {
            self.save(&known)?;
        }
        Ok(known.fresh.is_empty())
    }

    /// Says what holds, where that is not said yet.
    async fn tell(&self) -> Result<()> {
        let untold: Vec<(AppNet, Version)> = {
            let known = self.known();
            let untold = known.versions.iter();
            let untold = untold.filter(|(net, version)| known.told.get(*net) != Some(*version));
            untold
                .map(|(net, version)| (*net, version.clone()))
                .collect()
        };
        for (net, version) in untold {
            let value = serde_json::to_vec(&version).map_err(|source| {
                Error::new(ErrorKind::Internal, "a network can't be written").with_source(source)
            })?;
            self.discovery
                .publish(&version::key(net), Bytes::from(value))
                .await?;
            self.known().told.insert(net, version);
        }
        Ok(())
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
