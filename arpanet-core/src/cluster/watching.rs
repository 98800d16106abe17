//! Following the layers, and reconciling whenever one of them has news.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{ClusterEvent, Node};
use crate::discovery::{Member, Record, RecordKey};
use crate::runtime::Container;
use crate::watch::{Change, Watch};
use crate::{ContainerName, Error, NodeAddr, Result};

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// All that a node follows.
struct Sources {
    members: Watch<NodeAddr, Member>,
    records: Option<Watch<(NodeAddr, RecordKey), Record>>,
    containers: Option<Watch<ContainerName, Container>>,
    kick: Arc<Notify>,
}

/// Waits for news of a source that may not be there: then for ever.
async fn ready<K: Ord + Clone, V: Clone>(watch: Option<&Watch<K, V>>) {
    match watch {
        Some(watch) => watch.ready().await,
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
    async fn news(&self) {
        tokio::select! {
            () = self.members.ready() => {}
            () = ready(self.records.as_ref()) => {}
            () = ready(self.containers.as_ref()) => {}
            () = self.kick.notified() => {}
        }
    }

    /// Takes over everything that is there, so that it goes into one reconciliation; `false` when a source is closed.
    fn drain(&mut self, node: &Node) -> bool {
        let mut view = node.view();
        let records = self
            .records
            .as_mut()
            .is_none_or(|records| drain(records, |change| view.records.follow(change)));
        let containers = self
            .containers
            .as_mut()
            .is_none_or(|containers| drain(containers, |change| view.follow_containers(change)));
        drain(&mut self.members, |change| view.follow_members(change)) && records && containers
    }
}

impl Node {
    /// Starts to follow the layers. The first reconciliation is done when this returns.
    pub(super) async fn spawn_reconcile(self: &Arc<Self>) -> Result<AbortHandle> {
        let mut sources = Sources {
            members: self.discovery.watch_members().await?,
            records: match self.discovery.capabilities().records {
                true => Some(self.discovery.watch_records("").await?),
                false => None,
            },
            containers: match &self.runtime {
                Some(runtime) => Some(runtime.watch().await?),
                None => None,
            },
            kick: Arc::clone(&self.kick),
        };
        sources.drain(self);
        self.view().adopt_reservations(self.me);
        // Ends with the task, or with this call.
        let checking = self.spawn_checking();
        let mut told = BTreeSet::new();
        let trouble = self.round(&mut told).await;
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
        let outcome = self.reconcile().await;
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
                .map(Error::to_string),
        );
        now.extend(
            self.view()
                .problems()
                .map(|(name, problem)| format!("the container {name}: {problem}")),
        );
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
        if trouble {
            // Running out of time is the point: it is tried again then.
            let _ = tokio::time::timeout(RETRY, sources.news()).await;
        } else {
            sources.news().await;
        }
        let Some(node) = node.upgrade() else { return };
        if !sources.drain(&node) {
            return;
        }
        trouble = node.round(&mut told).await;
    }
}
