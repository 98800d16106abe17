//! Following the layers, and reconciling whenever one of them has news.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::{ClusterEvent, Node};
use crate::admission::Keys;
use crate::discovery::{Member, Record, RecordKey};
use crate::runtime::{Container, Runtime};
use crate::watch::{Change, Watch};
use crate::{ContainerName, Error, NodeAddr, Result};

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long coming up waits for the first list of containers before it goes on without: an engine that starts may be waiting
/// for what this node serves. All engines but those answer in milliseconds.
const PROMPT: Duration = Duration::from_millis(250);

/// How long coming up waits for it in the end.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// All that a node follows.
struct Sources {
    members: Watch<NodeAddr, Member>,
    records: Option<Watch<(NodeAddr, RecordKey), Record>>,
    containers: Containers,
    keys: Option<watch::Receiver<Keys>>,
    kick: Arc<Notify>,
}

type List = Watch<ContainerName, Container>;

/// The containers of this host.
enum Containers {
    None,
    /// The runtime has not yet said which there are.
    Coming(BoxFuture<'static, Result<List>>),
    There(List),
}

impl Containers {
    fn coming(runtime: &Arc<dyn Runtime>) -> Self {
        let runtime = Arc::clone(runtime);
        Self::Coming(Box::pin(async move { runtime.watch().await }))
    }

    /// Until there is news of them.
    async fn ready(&mut self) -> Result<()> {
        match self {
            Self::None => std::future::pending().await,
            Self::There(list) => list.ready().await,
            Self::Coming(coming) => *self = Self::There(coming.await?),
        }
        Ok(())
    }
}

/// Waits for news of a source that may not be there: then for ever.
async fn ready<K: Ord + Clone, V: Clone>(watch: Option<&Watch<K, V>>) {
    match watch {
        Some(watch) => watch.ready().await,
        None => std::future::pending().await,
    }
}

/// Waits until the keys are others.
async fn turned(keys: Option<&mut watch::Receiver<Keys>>) {
    match keys {
        Some(keys) => {
            if keys.changed().await.is_err() {
                // Discovery has ended: what else it tells ends, too.
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// Takes over all that a source has; `false` when it is closed.
fn drain<K: Ord + Clone, V: Clone>(
    watch: &mut Watch<K, V>,
    mut follow: impl FnMut(Change<K, V>),
) -> bool {
    loop {
        match watch.try_next() {
            Some(Some(change)) => follow(change),
            Some(None) => return false,
            None => return true,
        }
    }
}

impl Sources {
    async fn news(&mut self) -> Result<()> {
        tokio::select! {
            () = self.members.ready() => Ok(()),
            () = ready(self.records.as_ref()) => Ok(()),
            list = self.containers.ready() => list,
            () = turned(self.keys.as_mut()) => Ok(()),
            () = self.kick.notified() => Ok(()),
        }
    }

    /// Whether nothing is still to come that it begins with.
    const fn are_whole(&self) -> bool {
        !matches!(self.containers, Containers::Coming(_))
    }

    /// Takes over everything that is there, so that it goes into one reconciliation; `false` when a source is closed.
    fn drain(&mut self, node: &Node) -> bool {
        let mut view = node.view();
        let records = self
            .records
            .as_mut()
            .is_none_or(|records| drain(records, |change| view.records.follow(change)));
        let containers = match &mut self.containers {
            Containers::There(list) => {
                let open = drain(list, |change| view.follow_containers(change));
                view.know_containers();
                open
            }
            _ => true,
        };
        if let Some(keys) = &mut self.keys {
            view.keys = Some(keys.borrow_and_update().clone());
        }
        drain(&mut self.members, |change| view.follow_members(change)) && records && containers
    }
}

impl Node {
    /// Waits until the containers of this host were taken over, or the runtime has given up to say which there are.
    pub(super) async fn wait_for_containers(&self) {
        // No node is kept from coming up by it.
        let mut listed = self.listed.subscribe();
        let _ = timeout(LIST_LIMIT, listed.wait_for(|listed| *listed)).await;
    }

    /// Starts to follow the layers. The first reconciliation is done when this returns.
    pub(super) async fn spawn_reconcile(self: &Arc<Self>) -> Result<AbortHandle> {
        let mut sources = Sources {
            members: self.discovery.watch_members().await?,
            records: match self.discovery.capabilities().records {
                true => Some(self.discovery.watch_records("").await?),
                false => None,
            },
            containers: self
                .runtime
                .as_ref()
                .map_or(Containers::None, Containers::coming),
            keys: match self.discovery.capabilities().turns_keys {
                true => Some(self.discovery.watch_keys().await?),
                false => None,
            },
            kick: Arc::clone(&self.kick),
        };
        if self.runtime.is_some() {
            // Running out of time is fine: it comes later then.
            timeout(PROMPT, sources.containers.ready())
                .await
                .unwrap_or(Ok(()))?;
        }
        sources.drain(self);
        self.view().adopt_reservations(self.me);
        // Ends with the task, or with this call.
        let checking = self.spawn_checking();
        let mut told = BTreeSet::new();
        let trouble = self.round(&mut told).await;
        self.listed.send_replace(sources.are_whole());
        let node = Arc::downgrade(self);
        let task = async move {
            run(node, sources, told, trouble).await;
            drop(checking);
        };
        Ok(tokio::spawn(task).abort_handle())
    }

    /// Settles and reconciles, and tells of trouble that was not `told` the last time. Whether any is to be tried again
    /// soon: what does not help by itself waits until something changes.
    async fn round(&self, told: &mut BTreeSet<String>) -> bool {
        let (unsettled, waiting) = self.settle().await;
        let mut outcome = self.reconcile().await;
        self.view().note_kept();
        outcome.rest.extend(self.keep_holdings().await.err());
        let of = |(name, error): (&ContainerName, &Error)| match error.hint() {
            None => format!("the container {name}: {error}"),
            Some(hint) => format!("the container {name}: {error} ({hint})"),
        };
        let containers = unsettled.iter().chain(&outcome.containers);
        let mut now: BTreeSet<String> = containers.chain(&outcome.releases).map(of).collect();
        now.extend(
            outcome
                .rest
                .iter()
                .chain(outcome.reserved.values())
                .chain(outcome.registrations.values())
                .map(Error::to_string),
        );
        now.extend(
            self.view()
                .problems()
                .map(|(name, problem)| format!("the container {name}: {problem}")),
        );
        if self.runtime.is_some() && !self.view().containers_known {
            let what = "the container engine does not say yet which containers there are: what they have is kept";
            now.insert(what.to_owned());
        }
        for what in now.difference(told) {
            self.emit(ClusterEvent::Trouble { what: what.clone() });
        }
        *told = now;
        self.rounds.send_modify(|rounds| *rounds += 1);
        !outcome.is_clean()
            || waiting
            || outcome.again
            || unsettled.values().any(Error::is_retryable)
    }
}

/// Until a source is closed or the node is gone; the node is not kept alive by it.
async fn run(
    node: Weak<Node>,
    mut sources: Sources,
    mut told: BTreeSet<String>,
    mut trouble: bool,
) {
    loop {
        let news = if trouble {
            // Running out of time is the point: it is tried again then.
            timeout(RETRY, sources.news()).await.unwrap_or(Ok(()))
        } else {
            sources.news().await
        };
        let Some(node) = node.upgrade() else { return };
        if let Err(error) = news {
            let what = format!("the containers of this host can't be followed: {error}");
            node.emit(ClusterEvent::Trouble { what });
            let later = node.runtime.as_ref().map(Arc::clone);
            sources.containers = later.map_or(Containers::None, |runtime| {
                Containers::Coming(Box::pin(async move {
                    sleep(RETRY).await;
                    runtime.watch().await
                }))
            });
        }
        if !sources.drain(&node) {
            return;
        }
        trouble = node.round(&mut told).await;
        node.listed
            .send_if_modified(|listed| !std::mem::replace(listed, *listed || sources.are_whole()));
    }
}
