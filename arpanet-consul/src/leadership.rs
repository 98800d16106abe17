//! Whether consul has a leader, as the local agent sees it: asked while somebody wants to know.
//!
//! A blocking query that went to a leader which was cut off since waits on for its whole time. So watches also follow this.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::client::Client;

/// How often the agent is asked.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub(crate) struct Leadership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    known: watch::Sender<bool>,
    /// Whether somebody asks.
    asking: Mutex<bool>,
}

impl Leadership {
    pub(crate) fn new(client: Client) -> Self {
        Self(Arc::new(Inner {
            client,
            known: watch::Sender::new(true),
            asking: Mutex::new(false),
        }))
    }

    /// Whether there is a leader, from now on. True until the agent has been asked.
    pub(crate) fn follow(&self) -> watch::Receiver<bool> {
        let receiver = self.0.known.subscribe();
        let mut asking = self.0.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *asking, true) {
            self.0.known.send_replace(true);
            tokio::spawn(ask(Arc::clone(&self.0)));
        }
        receiver
    }
}

async fn ask(inner: Arc<Inner>) {
    let mut again = tokio::time::interval(PERIOD);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let known = inner.client.has_leader().await.unwrap_or(false);
        inner
            .known
            .send_if_modified(|before| std::mem::replace(before, known) != known);
        let mut asking = inner.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.known.receiver_count() == 0 {
            *asking = false;
            return;
        }
    }
}
