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

/// What an engine has, or a driver knows of: networks by the engine's ids, and endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) networks: BTreeSet<String>,
    pub(super) endpoints: BTreeSet<EndpointId>,
}

impl Parts {
    fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.endpoints.is_empty()
    }

    /// What is here and not there.
    fn without(&self, other: &Self) -> Self {
        Self {
            networks: &self.networks - &other.networks,
            endpoints: &self.endpoints - &other.endpoints,
        }
    }

    /// What is here and there.
    fn and(&self, other: &Self) -> Self {
        Self {
            networks: &self.networks & &other.networks,
            endpoints: &self.endpoints & &other.endpoints,
        }
    }
}

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
    let mut missing = Parts::default();
    loop {
        sleep(LOOKING).await;
        // Known before the engine is asked: what comes meanwhile is not missed.
        let known = driver.parts();
        if known.is_empty() {
            continue;
        }
        let Ok(present) = engine.parts().await else {
            // It can't say, and what it comes back with is looked at twice.
            missing = Parts::default();
            continue;
        };
        let missed = known.without(&present);
        let lost = missed.and(&missing);
        missing = missed;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(endpoints: &[&str]) -> Parts {
        Parts {
            networks: ["n1".to_owned()].into(),
            endpoints: endpoints.iter().map(|id| id.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_missed_twice_was_lost() {
        let known = parts(&["e1", "e2", "e3"]);
        let first = known.without(&parts(&["e1"]));
        // Another one is only just being made.
        let second = parts(&["e1", "e2", "e3", "e4"]).without(&parts(&["e1", "e3"]));
        let lost = second.and(&first);
        assert_eq!(lost.endpoints, parts(&["e2"]).endpoints);
        assert!(lost.networks.is_empty());
        assert!(first.without(&first).is_empty());
    }
}
