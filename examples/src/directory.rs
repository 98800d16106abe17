//! Discovery over a shared directory: a backend of one's own, for clusters whose hosts mount one file system anyway.
//!
//! Every node writes one page, `A.B.json`, and reads those of the others. A page has a beat that its node counts up; one
//! whose beat has stood still for a second is of a dead node. No clocks are compared, and no locks are held: a page has
//! one writer, and takes the place of the one before in one rename.
//!
//! It admits nobody, so its clusters are those whose memberships are handed out by other means.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::discovery::{
    Discovery, DiscoveryCapabilities, Health, Instance, Member, MemberState, Record, RecordKey,
    Selector, ServiceSummary, Spread, summarize,
};
use arpanet_core::roster::RosterEntry;
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often a node writes its page and reads the others'.
const BEAT: Duration = Duration::from_millis(100);

/// For how long a page may stand still.
const SUSPECT: Duration = Duration::from_millis(500);
const DOWN: Duration = Duration::from_secs(1);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Page {
    beat: u64,
    instances: BTreeMap<InstanceId, Instance>,
    records: BTreeMap<RecordKey, Vec<u8>>,
}

/// A page as it was read last, and when it last was another.
#[derive(Debug)]
struct Seen {
    page: Page,
    moved: Instant,
}

/// Discovery over a shared directory.
#[derive(Debug, Clone)]
pub struct DirectoryDiscovery {
    directory: PathBuf,
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Debug)]
struct Running {
    directory: PathBuf,
    membership: Membership,
    own: Page,
    seen: BTreeMap<NodeAddr, Seen>,
    instances: WatchHub<InstanceId, Instance>,
    members: WatchHub<NodeAddr, Member>,
    records: WatchHub<(NodeAddr, RecordKey), Record>,
    beating: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(beating) = &self.beating {
            beating.abort();
        }
        self.instances.close();
        self.members.close();
        self.records.close();
    }
}

/// A fault of the file system in the terms of the library.
fn unavailable(what: &str, source: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{what}: {source}"))
        .backend("directory")
        .with_source(source)
}

impl Running {
    fn me(&self) -> NodeAddr {
        self.membership.me.node
    }

    fn page_of(&self, node: NodeAddr) -> PathBuf {
        self.directory.join(format!("{node}.json"))
    }

    /// Stands for a node that was forgotten.
    fn tombstone_of(&self, node: NodeAddr) -> PathBuf {
        self.directory.join(format!("{node}.forgotten"))
    }

    fn members(&self) -> impl Iterator<Item = &RosterEntry> {
        let holders = self.membership.roster.holders();
        holders.filter(|entry| !self.tombstone_of(entry.node).exists())
    }

    /// Changes this node's page, and shows it to all.
    fn say(&mut self, change: impl FnOnce(&mut Page)) -> Result<()> {
        change(&mut self.own);
        self.own.beat += 1;
        let text = serde_json::to_vec(&self.own).map_err(io::Error::from);
        let new = self.directory.join(format!("{}.new", self.me()));
        text.and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, self.page_of(self.me())))
            .map_err(|error| unavailable("the node's page can't be written", error))?;
        self.read(Instant::now());
        Ok(())
    }

    /// Reads all pages, and tells the watchers what is different.
    fn read(&mut self, now: Instant) {
        let nodes: Vec<NodeAddr> = self.members().map(|one| one.node).collect();
        for node in nodes {
            let page = std::fs::read(self.page_of(node))
                .ok()
                .and_then(|text| serde_json::from_slice::<Page>(&text).ok());
            match (page, self.seen.get(&node)) {
                (Some(page), Some(seen)) if seen.page == page => {}
                (Some(page), _) => {
                    self.seen.insert(node, Seen { page, moved: now });
                }
                // It left: a page is only ever removed by its node, or when that is forgotten.
                (None, _) => {
                    self.seen.remove(&node);
                }
            }
        }
        self.tell(now);
    }

    fn state(&self, node: NodeAddr, now: Instant) -> MemberState {
        match self.seen.get(&node).map(|seen| now - seen.moved) {
            Some(_) if node == self.me() => MemberState::Alive,
            Some(still) if still < SUSPECT => MemberState::Alive,
            Some(still) if still < DOWN => MemberState::Suspect,
            _ => MemberState::Down,
        }
    }

    fn tell(&self, now: Instant) {
        let mut instances = BTreeMap::new();
        let mut records = BTreeMap::new();
        for (node, seen) in &self.seen {
            let down = self.state(*node, now) == MemberState::Down;
            for (id, instance) in &seen.page.instances {
                let shown = match down {
                    true => instance.clone().health(Health::Suspended),
                    false => instance.clone(),
                };
                instances.insert(id.clone(), shown);
            }
            for (key, value) in &seen.page.records {
                let record = Record::new(Bytes::from(value.clone())).suspended(down);
                records.insert((*node, key.clone()), record);
            }
        }
        let members = self.members().map(|entry| {
            let state = self.state(entry.node, now);
            let member = Member::new(entry.node, entry.name.clone(), entry.role);
            let member = member.at(entry.endpoint).state(state);
            (entry.node, member.reachable(state != MemberState::Down))
        });
        self.members.replace(members.collect());
        self.instances.replace(instances);
        self.records.replace(records);
    }

    /// Nobody confirms anything here: the others read it within a beat.
    fn spread(&self) -> Spread {
        let living = self
            .members
            .snapshot()
            .into_values()
            .filter(|member| member.state != MemberState::Down && member.node != self.me());
        Spread::unconfirmed_by(living.map(|member| member.node).collect())
    }
}

impl DirectoryDiscovery {
    /// Discovery over this directory, which is there and which all nodes of the cluster can write to.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            running: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on the running node. No lock is held across an await, so that a dropped call is done or was never begun.
    fn running<R>(&self, act: impl FnOnce(&mut Running) -> Result<R>) -> Result<R> {
        match &mut *self.lock() {
            Some(running) => act(running),
            None => Err(
                Error::new(ErrorKind::Unavailable, "discovery is not started").backend("directory"),
            ),
        }
    }

    async fn beat(running: Weak<Mutex<Option<Running>>>) {
        loop {
            tokio::time::sleep(BEAT).await;
            let Some(running) = running.upgrade() else {
                return;
            };
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = &mut *running else { return };
            // A page that could not be written is written with the next beat; the others see it stand still meanwhile.
            if running.say(|_| ()).is_err() {
                running.read(Instant::now());
            }
        }
    }
}

#[async_trait]
impl Discovery for DirectoryDiscovery {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        DiscoveryCapabilities::all().without_admission()
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        let mut slot = self.lock();
        if slot
            .as_ref()
            .is_some_and(|running| running.membership == *membership)
        {
            return Ok(());
        }
        let mut running = Running {
            directory: self.directory.clone(),
            membership: membership.clone(),
            own: Page {
                beat: 0,
                instances: BTreeMap::new(),
                records: BTreeMap::new(),
            },
            seen: BTreeMap::new(),
            instances: WatchHub::new(),
            members: WatchHub::new(),
            records: WatchHub::new(),
            beating: None,
        };
        if running.tombstone_of(running.me()).exists() {
            let message = format!("{} was forgotten by its cluster", running.me());
            return Err(Error::new(ErrorKind::PermissionDenied, message).backend("directory"));
        }
        running.say(|_| ())?;
        let beating = tokio::spawn(Self::beat(Arc::downgrade(&self.running)));
        running.beating = Some(beating.abort_handle());
        *slot = Some(running);
        Ok(())
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.running(|running| {
            if instance.node != running.me() {
                let message = format!("{} runs on {}, not here", instance.id, instance.node);
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            running.say(|page| {
                page.instances.insert(instance.id.clone(), instance);
            })?;
            Ok(running.spread())
        })
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        self.running(|running| {
            running.say(|page| {
                page.instances.remove(id);
            })
        })
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        self.running(|running| {
            Ok(running.instances.with(|all| {
                all.values()
                    .filter(|one| one.service == *service && one.health == Health::Passing)
                    .cloned()
                    .collect()
            }))
        })
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        self.running(|running| Ok(running.instances.with(|all| summarize(all.values()))))
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.running(|running| Ok(running.members.snapshot().into_values().collect()))
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        self.running(|running| {
            Ok(running
                .instances
                .watch_where(move |_, instance| selector.matches(instance)))
        })
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.running(|running| Ok(running.members.watch()))
    }

    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        let whole = !key.is_empty() && key.len() <= 128 && key.split('/').all(is_word);
        self.running(|running| {
            if !whole || value.len() > 16 * 1024 {
                let message = format!("{key:?} with {} bytes is no record", value.len());
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            running.say(|page| {
                page.records.insert(key.to_owned(), value.to_vec());
            })?;
            Ok(running.spread())
        })
    }

    async fn retract(&self, key: &str) -> Result<()> {
        self.running(|running| {
            running.say(|page| {
                page.records.remove(key);
            })
        })
    }

    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        let prefix = prefix.to_owned();
        self.running(|running| {
            Ok(running
                .records
                .watch_where(move |(_, key), _| key.starts_with(&prefix)))
        })
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        self.running(|running| {
            if running.membership.roster.holder(node).is_none() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no node {node}"),
                ));
            }
            let alive = running.state(node, Instant::now()) != MemberState::Down;
            if alive && node != running.me() {
                return Err(Error::new(ErrorKind::Conflict, format!("{node} is alive")));
            }
            if node == running.me()
                && let Some(beating) = running.beating.take()
            {
                beating.abort();
            }
            std::fs::write(running.tombstone_of(node), [])
                .map_err(|error| unavailable("a member can't be forgotten", error))?;
            remove(running, node)
        })
    }

    async fn leave(&self, _: Duration) -> Result<()> {
        match self.lock().take() {
            Some(mut running) => {
                let me = running.me();
                remove(&mut running, me)
            }
            None => Ok(()),
        }
    }

    async fn stop(&self) -> Result<()> {
        *self.lock() = None;
        Ok(())
    }
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic())
}

fn remove(running: &mut Running, node: NodeAddr) -> Result<()> {
    match std::fs::remove_file(running.page_of(node)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(unavailable("a page can't be removed", error))
        }
        _ => {
            running.read(Instant::now());
            Ok(())
        }
    }
}
