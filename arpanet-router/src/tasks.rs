//! What goes on by itself while an overlay runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::carrier::Session;
use crate::peers::ROUND;

/// How long an earlier process's routes may wait for their peers.
const STALE: Duration = Duration::from_secs(30);

/// The tasks of a session. Dropping them ends them.
#[derive(Debug)]
pub(crate) struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    pub(crate) fn spawn<S: Session>(session: &Arc<S>) -> Self {
        Self(vec![
            tokio::spawn(keep_tending(Arc::downgrade(session))),
            tokio::spawn(drop_stale(Arc::downgrade(session))),
        ])
    }

    /// Ends them, and returns when they have ended: none undoes what is done next.
    pub(crate) async fn end(&mut self) {
        while let Some(task) = self.0.last_mut() {
            task.abort();
            let _ = task.await;
            self.0.pop();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn keep_tending<S: Session>(session: Weak<S>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match session.upgrade() {
            Some(session) => session.tend().await,
            None => return,
        }
    }
}

async fn drop_stale<S: Session>(session: Weak<S>) {
    tokio::time::sleep(STALE).await;
    if let Some(session) = session.upgrade()
        && let Err(error) = session.router().drop_stale().await
    {
        tracing::warn!(%error, "routes of an earlier start are left");
    }
}
