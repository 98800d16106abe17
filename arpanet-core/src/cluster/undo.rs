//! What a failed start takes back, in reverse.

use std::time::Duration;

use super::Node;
use super::startup::Way;
use crate::Result;

/// One step's undoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// A seed has given the address to this node, and nobody else has heard of it yet.
    HandBack,
    ClearStore,
    ResetOverlay,
    StopOverlay,
    LeaveDiscovery,
    StopDiscovery,
    StopFacility(usize),
    StopAdmission,
    StopTasks,
}

impl Node {
    /// Takes back what was done, the last first. Goes on when a step fails: as much as can be is undone.
    pub(super) async fn roll_back(&self, way: &Way<'_>, done: Vec<Undo>) {
        for undo in done.into_iter().rev() {
            if let Err(error) = self.undo(way, undo).await {
                tracing::warn!(?undo, %error, "could not take back a step of a failed start");
            }
        }
    }

    async fn undo(&self, way: &Way<'_>, undo: Undo) -> Result<()> {
        match undo {
            Undo::HandBack => self.hand_back(way).await,
            Undo::ClearStore => self.store.clear().await,
            Undo::ResetOverlay => self.overlay.reset().await,
            Undo::StopOverlay => self.overlay.stop().await,
            Undo::LeaveDiscovery => {
                // The address was given to this node a moment ago: it is free again.
                if let Err(error) = self.discovery.forget(self.me).await {
                    tracing::debug!(%error, "the address stays in the roster");
                }
                self.discovery.leave(Duration::from_millis(500)).await
            }
            Undo::StopDiscovery => self.discovery.stop().await,
            Undo::StopFacility(index) => match self.facilities.get(index) {
                Some(facility) => facility.stop().await,
                None => Ok(()),
            },
            Undo::StopAdmission => self.admission.stop().await,
            Undo::StopTasks => {
                self.stop_tasks().await;
                Ok(())
            }
        }
    }
}
