//! Finding what the engine has lost: one that is killed between having an endpoint made and writing that down never asks for
//! its end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::EndpointId;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::NetworkDriver;
use super::shape::EngineNetworks;

/// Between two looks. What is missing in both was lost: an engine knows what it has asked for within milliseconds.
const LOOKING: Duration = Duration::from_secs(2);

/// Lets go of what the engine has lost, as long as it is held.
#[derive(Debug)]
pub struct Review(JoinHandle<()>);

impl Drop for Review {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Review {
    /// Compares what this driver knows with the engine at this socket, again and again.
    #[must_use]
    pub fn start(driver: Arc<NetworkDriver>, engine: impl Into<PathBuf>) -> Self {
        let engine = EngineNetworks::new(engine.into());
        Self(tokio::spawn(review(driver, engine)))
    }
}

async fn review(driver: Arc<NetworkDriver>, engine: EngineNetworks) {
    let mut missing = BTreeSet::new();
    loop {
        sleep(LOOKING).await;
        // Known before the engine is asked: what comes meanwhile is not missed.
        let known: BTreeSet<EndpointId> =
            driver.endpoints().into_iter().map(|one| one.id).collect();
        if known.is_empty() {
            continue;
        }
        let Ok(present) = engine.endpoints().await else {
            // It can't say, and what it comes back with is looked at twice.
            missing.clear();
            continue;
        };
        let lost;
        (missing, lost) = compare(&known, &present, &missing);
        if lost.is_empty() {
            continue;
        }
        tracing::info!(
            ?lost,
            "the engine has lost what it had from the network driver"
        );
        if let Err(error) = driver.let_go(&lost).await {
            // They are missed the next time, too.
            tracing::warn!(%error, "what the engine has lost can't be removed");
        }
    }
}

/// What is missing, and what of it was missing the time before, too.
fn compare(
    known: &BTreeSet<EndpointId>,
    present: &BTreeSet<EndpointId>,
    before: &BTreeSet<EndpointId>,
) -> (BTreeSet<EndpointId>, BTreeSet<EndpointId>) {
    let missing = known - present;
    let lost = &missing & before;
    (missing, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> BTreeSet<EndpointId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_missed_twice_was_lost() {
        let (missing, lost) = compare(&ids(&["e1", "e2", "e3"]), &ids(&["e1"]), &ids(&[]));
        assert_eq!((&missing, lost), (&ids(&["e2", "e3"]), ids(&[])));
        // Another one is only just being made.
        let known = ids(&["e1", "e2", "e3", "e4"]);
        let (missing, lost) = compare(&known, &ids(&["e1", "e3"]), &missing);
        assert_eq!((missing, lost), (ids(&["e2", "e4"]), ids(&["e2"])));
    }
}
