//! The suite for [`KeyValue`].

mod entries;
mod locks;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::check::{Check, Verdict, conduct};
use super::report::Report;
use crate::KeyValue;
use crate::kv::Key;

/// The nodes that the suite for [`KeyValue`] works with: at least three servers of one cluster, all up, with nothing stored
/// under `conformance/`.
#[async_trait]
pub trait KeyValueRig: Send + Sync + 'static {
    /// How many nodes there are.
    fn size(&self) -> usize;

    /// The backend of a node.
    fn key_value(&self, node: usize) -> Arc<dyn KeyValue>;

    /// The shortest time that a session may go without being renewed.
    fn shortest_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Whether the rig can [`cut`](Self::cut) and [`heal`](Self::heal).
    fn can_cut(&self) -> bool {
        false
    }

    /// Takes a node off the underlay: nothing gets to it or from it.
    async fn cut(&self, node: usize) {
        let _ = node;
    }

    /// Mends that.
    async fn heal(&self, node: usize) {
        let _ = node;
    }

    /// How long the suite waits for what the contract promises without naming a time.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }
}

type Rig = dyn KeyValueRig;

/// Runs the suite for [`KeyValue`]; `make` makes a rig for each check.
pub async fn key_value<R, F>(make: impl Fn() -> F) -> Report
where
    R: KeyValueRig,
    F: Future<Output = R>,
{
    let mut backend = "unknown";
    let mut checks = Vec::new();
    for check in suite() {
        let rig = make().await;
        backend = rig.key_value(0).name();
        // A check waits a few times, each time with patience or for a session to end.
        let limit = (rig.patience() + rig.shortest_ttl()) * 8;
        checks.push(conduct::<Rig>(&check, &rig, limit).await);
    }
    Report::new("key-value", backend, checks)
}

fn suite() -> Vec<Check<Rig>> {
    let parts = [entries::checks(), locks::checks()];
    parts.into_iter().flatten().collect()
}

fn needs_cuts(rig: &Rig) -> Option<&'static str> {
    (!rig.can_cut()).then_some("the rig can't cut")
}

fn key(name: &str) -> Verdict<Key> {
    Ok(format!("conformance/{name}").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_stands_for_a_sentence_of_the_contract() {
        crate::conformance::check::assert_quoted(include_str!("../../kv.rs"), &suite());
    }
}
