//! Following the layers, and reconciling whenever one of them has news.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{ClusterEvent, Node};
use crate::discovery::{Member, Record, RecordKey};
use crate::runtime::Container;
use crate::watch::{Change, Watch};
use crate::{ContainerName, NodeAddr, Result};

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
        let trouble = self.reconcile_and_tell(true).await;
        Ok(tokio::spawn(run(Arc::downgrade(self), sources, trouble)).abort_handle())
    }

    /// Reconciles, and tells of trouble if this is the first time. Whether there was any.
    async fn reconcile_and_tell(&self, first: bool) -> bool {
        let outcome = self.reconcile().await;
        if first {
            let of_containers = outcome.containers.values();
            let of_containers = of_containers.chain(outcome.releases.values());
            for error in outcome.rest.iter().chain(of_containers) {
                self.emit(ClusterEvent::Trouble {
                    what: error.to_string(),
                });
            }
        }
        !outcome.is_clean()
    }
}

/// Until a source is closed or the node is gone; the node is not kept alive by it.
async fn run(node: Weak<Node>, mut sources: Sources, mut trouble: bool) {
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
        trouble = node.reconcile_and_tell(!trouble).await;
    }
}
