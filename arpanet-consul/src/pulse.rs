//! The node's sign of life, and what is done when a leader is back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::registry::Registry;

/// So many signs fit into the time after which the node counts as lost.
const SIGNS: u32 = 3;

/// Beats until it is dropped.
pub(crate) async fn beat(
    registry: Arc<Registry>,
    heartbeat: Duration,
    mut leader: watch::Receiver<bool>,
) {
    let mut again = tokio::time::interval(heartbeat / SIGNS);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let beaten = tokio::select! {
            _ = again.tick() => registry.beat().await,
            () = regained(&mut leader) => {
                // Whatever the agent could not tell the catalogue meanwhile, it tells now instead of within a minute.
                registry.announce().await
            }
        };
        if let Err(error) = beaten {
            tracing::debug!(%error, "consul's agent takes no sign of life");
        }
    }
}

/// Waits until there is a leader again.
async fn regained(leader: &mut watch::Receiver<bool>) {
    loop {
        if leader.changed().await.is_err() {
            return std::future::pending().await;
        }
        if *leader.borrow_and_update() {
            return;
        }
    }
}
