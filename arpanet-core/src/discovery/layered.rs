//! One discovery made of two: nodes in one backend, services in another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::merging::Merging;
use super::{
    Discovery, DiscoveryCapabilities, Health, Instance, Member, MemberState, Record, RecordKey,
    Selector, ServiceSummary, Spread, summarize,
};
use crate::admission::{Credential, Keys, Membership};
use crate::roster::{Roster, RosterEntry};
use crate::watch::{Change, Watch, WatchHub};
use crate::{Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName};

/// How soon a returning node tries a catalogue again that could not be started.
const RETRY: Duration = Duration::from_secs(1);

/// How long a returning node waits for its catalogue before it goes on without.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// How long a change that the catalogue took may need to be seen in it.
const SEEN_LIMIT: Duration = Duration::from_secs(2);

/// How long a node that gives itself up takes to tell the catalogue.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// What a node that leaves has at least to tell the others, after the catalogue took its time.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Services in one backend and all else in another. Who is in the cluster, and what nodes say of themselves, has to be known
/// before there is an overlay; an engine like Consul lives on the overlay.
///
/// - Members, the roster, admission and records are the lower backend's; instances are the catalogue's.
/// - The catalogue is started by [`start_on_overlay`](Discovery::start_on_overlay). What is registered before then is
///   handed to it when it is up.
/// - Lookups and watches are answered here, by the last that the catalogue told: they go on, [`Stale`](Change::Stale), while
///   it is out of reach.
/// - An instance is suspended where the catalogue says so, and while its node is down, or no member, for the lower
///   backend: so a node that dies leaves lookups as fast as the faster of the two finds out.
#[derive(Debug)]
pub struct LayeredDiscovery {
    shared: Arc<Shared>,
}

struct Shared {
    members: Arc<dyn Discovery>,
    catalogue: Arc<dyn Discovery>,
    run: Mutex<Option<Run>>,
}

/// From a start to a stop.
struct Run {
    membership: Membership,
    hub: WatchHub<InstanceId, Instance>,
    /// What was registered and is to be handed to the catalogue as soon as it is up.
    due: BTreeMap<InstanceId, Instance>,
    catalogue: Phase,
}

enum Phase {
    Down,
    /// Tried until it is up.
    Returning(AbortHandle),
    /// Followed.
    Up(AbortHandle),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("members", &self.members)
            .field("catalogue", &self.catalogue)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// Follows it no more.
    fn end_catalogue(&mut self) {
        match std::mem::replace(&mut self.catalogue, Phase::Down) {
            Phase::Down => {}
            Phase::Returning(task) | Phase::Up(task) => task.abort(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end_catalogue();
        self.hub.close();
    }
}

/// What the catalogue is followed by, with what they have told so far.
struct Sources {
    instances: Watch<InstanceId, Instance>,
    members: Watch<NodeAddr, Member>,
    merging: Merging,
}

impl Sources {
    fn tell(&self, hub: &WatchHub<InstanceId, Instance>, changed: BTreeSet<InstanceId>) {
        for id in changed {
            match self.merging.instance(&id) {
                Some(instance) => hub.upsert(id, instance),
                None => hub.remove(&id),
            }
        }
    }
}

impl LayeredDiscovery {
    /// Services in `catalogue`, all else in `members`. Neither is started.
    #[must_use]
    pub fn new(members: Arc<dyn Discovery>, catalogue: Arc<dyn Discovery>) -> Self {
        Self {
            shared: Arc::new(Shared {
                members,
                catalogue,
                run: Mutex::default(),
            }),
        }
    }
}

impl Shared {
    /// Nothing panics while it holds this lock, so a poisoned run is whole.
    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Run) -> Result<R>,
    ) -> Result<R> {
        let outcome = match self.lock().as_mut() {
            Some(run) => act(run),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "discovery does not run on this node",
            )),
        };
        outcome.map_err(|error| error.operation(operation).backend(self.catalogue.name()))
    }

    fn hub(&self, operation: &'static str) -> Result<WatchHub<InstanceId, Instance>> {
        self.read(operation, |run| Ok(run.hub.clone()))
    }

    /// Starts the catalogue and hands it what is due; what it is followed by.
    async fn begin(&self, membership: &Membership, returning: bool) -> Result<Sources> {
        let mut membership = membership.clone();
        // It may have turned since, which the members told this node as it came up.
        match self.members.watch_keys().await {
            Ok(keys) => membership.key = keys.borrow().key.clone(),
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
        self.catalogue.start(&membership).await?;
        self.catalogue.start_on_overlay(returning).await?;
        let mut sources = Sources {
            instances: self.catalogue.watch(Selector::All).await?,
            members: self.members.watch_members().await?,
            merging: Merging::default(),
        };
        let closed = || Error::new(ErrorKind::Unavailable, "the catalogue ended");
        let first = sources.members.next().await.ok_or_else(closed)?;
        sources.merging.follow_members(first);
        let first = sources.instances.next().await.ok_or_else(closed)?;
        sources.merging.follow_instances(first);
        Ok(sources)
    }

    /// From here on the catalogue is asked directly. Hands over what is due, until nothing is.
    async fn go_up(&self, sources: Sources) -> Result<()> {
        loop {
            let due: Vec<Instance> =
                self.read("start", |run| Ok(run.due.values().cloned().collect()))?;
            for instance in &due {
                match self.catalogue.register(instance.clone()).await {
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => tracing::warn!(%error, id = %instance.id, "not registered"),
                    Ok(_) => {}
                }
            }
            let mut run = self.lock();
            let Some(run) = run.as_mut() else {
                return Ok(());
            };
            // What was replaced meanwhile is still due.
            run.due
                .retain(|id, now| !due.iter().any(|told| told.id == *id && told == now));
            if run.due.is_empty() {
                sources.tell(&run.hub, sources.merging.ids());
                run.hub.set_stale(false);
                let following = follow(run.hub.clone(), sources);
                run.catalogue = Phase::Up(tokio::spawn(following).abort_handle());
                return Ok(());
            }
        }
    }

    /// Waits until a change that the catalogue took is seen in it; not while it is out of reach.
    async fn seen(
        &self,
        id: &InstanceId,
        is_there: impl Fn(Option<&Instance>) -> bool,
    ) -> Result<()> {
        let hub = self.hub("wait")?;
        let only = id.clone();
        let mut watch = hub.watch_where(move |id, _| *id == only);
        let seen = async {
            while let Some(change) = watch.next().await {
                let there = match &change {
                    Change::Snapshot(set) => is_there(set.get(id)),
                    Change::Upsert(_, instance) => is_there(Some(instance)),
                    Change::Removed(_) => is_there(None),
                    Change::Stale => return false,
                    Change::Fresh => false,
                };
                if there {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(SEEN_LIMIT, seen).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the catalogue took the change of {id}, and does not show it yet"),
            )
            .with_hint(
                "it is out of reach, or has no leader: it tells of the change as soon as it can",
            )),
        }
    }

    /// Gives this node's place in the catalogue up. What is registered from then on waits for another start.
    async fn leave_catalogue(&self, me: NodeAddr, is_up: bool) -> Result<()> {
        // One that did not come up may have come half way.
        let forgotten = match self.catalogue.forget(me).await {
            Err(_) if !is_up => Ok(()),
            outcome => outcome,
        };
        if let Some(run) = self.lock().as_mut() {
            run.end_catalogue();
        }
        let left = self.catalogue.leave(LEAVE_LIMIT).await;
        forgotten.and(left)
    }

    /// Everybody who is there, since nobody is told yet.
    async fn unconfirmed(&self) -> Result<Spread> {
        let members = self.members.members().await?;
        let living = members
            .into_iter()
            .filter(|member| member.state != MemberState::Down)
            .map(|member| member.node);
        Ok(Spread::unconfirmed_by(living.collect()))
    }
}

/// Tells readers what both sources say, until one of them ends.
async fn follow(hub: WatchHub<InstanceId, Instance>, mut sources: Sources) {
    loop {
        tokio::select! {
            change = sources.instances.next() => {
                let Some(change) = change else { break };
                let (changed, stale) = sources.merging.follow_instances(change);
                sources.tell(&hub, changed);
                if let Some(stale) = stale {
                    hub.set_stale(stale);
                }
            }
            change = sources.members.next() => {
                let Some(change) = change else { break };
                let changed = sources.merging.follow_members(change);
                sources.tell(&hub, changed);
            }
        }
    }
    hub.set_stale(true);
}

/// Tries until the catalogue of a returning node is up.
async fn come_back(shared: Weak<Shared>, membership: Membership, told: oneshot::Sender<()>) {
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let up = async {
            let sources = shared.begin(&membership, true).await?;
            shared.go_up(sources).await
        };
        match up.await {
            Ok(()) => {
                // Nobody waits any more: fine.
                let _ = told.send(());
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the catalogue does not come up, and is tried again")
            }
        }
        drop(shared);
        tokio::time::sleep(RETRY).await;
    }
}

#[async_trait]
impl Discovery for LayeredDiscovery {
    fn name(&self) -> &'static str {
        self.shared.catalogue.name()
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        self.shared.members.capabilities()
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        self.shared.members.start(membership).await?;
        let mut run = self.shared.lock();
        if run.is_none() {
            let hub = WatchHub::new();
            hub.set_stale(true);
            *run = Some(Run {
                membership: membership.clone(),
                hub,
                due: BTreeMap::new(),
                catalogue: Phase::Down,
            });
        }
        Ok(())
    }

    async fn start_on_overlay(&self, returning: bool) -> Result<()> {
        let shared = &self.shared;
        let membership = shared.read("start on the overlay", |run| {
            Ok(match run.catalogue {
                Phase::Down => Some(run.membership.clone()),
                Phase::Returning(_) | Phase::Up(_) => None,
            })
        })?;
        let Some(membership) = membership else {
            return Ok(());
        };
        if !returning {
            let sources = shared.begin(&membership, false).await?;
            return shared.go_up(sources).await;
        }
        let (told, up) = oneshot::channel();
        shared.read("start on the overlay", |run| {
            let coming = come_back(Arc::downgrade(shared), membership, told);
            run.catalogue = Phase::Returning(tokio::spawn(coming).abort_handle());
            Ok(())
        })?;
        // Too late is no failure: it goes on.
        let _ = tokio::time::timeout(RETURN_LIMIT, up).await;
        Ok(())
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        let waits = self.shared.read("register", |run| {
            if instance.node != run.membership.me.node {
                let message = format!("{} is an instance of another node", instance.id);
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            let waits = !matches!(run.catalogue, Phase::Up(_));
            if waits {
                run.due.insert(instance.id.clone(), instance.clone());
            }
            Ok(waits)
        })?;
        if waits {
            return self.shared.unconfirmed().await;
        }
        let spread = self.shared.catalogue.register(instance.clone()).await?;
        let as_told = |seen: Option<&Instance>| {
            // Of its health, its node may know worse.
            seen.is_some_and(|seen| seen.clone().health(instance.health) == instance)
        };
        self.shared.seen(&instance.id, as_told).await?;
        Ok(spread)
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        let waits = self.shared.read("deregister", |run| {
            let waits = !matches!(run.catalogue, Phase::Up(_));
            run.due.remove(id);
            Ok(waits)
        })?;
        if waits {
            return Ok(());
        }
        self.shared.catalogue.deregister(id).await?;
        self.shared.seen(id, |seen| seen.is_none()).await
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        let hub = self.shared.hub("lookup")?;
        Ok(hub.with(|instances| {
            let instances = instances.values();
            instances
                .filter(|it| it.service == *service && it.health == Health::Passing)
                .cloned()
                .collect()
        }))
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        let hub = self.shared.hub("list services")?;
        Ok(hub.with(|instances| summarize(instances.values())))
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.shared.members.members().await
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        let hub = self.shared.hub("watch")?;
        Ok(hub.watch_where(move |_, instance| selector.matches(instance)))
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.shared.members.watch_members().await
    }

    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        self.shared.members.publish(key, value).await
    }

    async fn retract(&self, key: &str) -> Result<()> {
        self.shared.members.retract(key).await
    }

    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        self.shared.members.watch_records(prefix).await
    }

    async fn admit(&self, entry: RosterEntry) -> Result<()> {
        self.shared.members.admit(entry).await
    }

    async fn roster(&self) -> Result<Roster> {
        self.shared.members.roster().await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let shared = &self.shared;
        let (is_me, is_up) = shared.read("forget", |run| {
            let is_up = matches!(run.catalogue, Phase::Up(_));
            Ok((node == run.membership.me.node, is_up))
        })?;
        if is_me {
            // The overlay of those who forget this node leads here no more: the catalogue is left before.
            let catalogue = shared.leave_catalogue(node, is_up).await;
            return shared.members.forget(node).await.and(catalogue);
        }
        shared.members.forget(node).await?;
        if !is_up {
            return Ok(());
        }
        match shared.catalogue.forget(node).await {
            // The catalogue may never have heard of it, and still see a node that died a moment ago.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                tracing::debug!(%error, %node, "the catalogue does not forget");
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        self.shared.members.turn_over(credential).await
    }

    async fn watch_keys(&self) -> Result<tokio::sync::watch::Receiver<Keys>> {
        self.shared.members.watch_keys().await
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        *self.shared.lock() = None;
        let catalogue = self.shared.catalogue.leave(limit).await;
        let left = limit.saturating_sub(begun.elapsed()).max(LAST_WORDS);
        let members = self.shared.members.leave(left).await;
        catalogue.and(members)
    }

    async fn stop(&self) -> Result<()> {
        *self.shared.lock() = None;
        let catalogue = self.shared.catalogue.stop().await;
        let members = self.shared.members.stop().await;
        catalogue.and(members)
    }
}
