//! Consul's gossip, which follows the cluster's key each time that it turns.
//!
//! Every server does it, as soon as it has the key, for all agents that its own reaches: so both sides of a cut do, and no node waits
//! for another that has just died. What makes this safe is that nothing is taken away meanwhile. A key is dropped by servers that have
//! had it themselves, and hence know it to be the older one, when the present one has stood for a while. A client that was out of
//! their reach while they turned and is not any more has its consul started again.

use std::sync::Arc;
use std::time::Duration;

use arpanet_consul::ConsulAgent;
use arpanet_core::admission::{ClusterKey, Keys};
use arpanet_core::roster::Role;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// Between two tries to give a key to all of consul's agents: one may be about to be found dead.
const AGAIN: Duration = Duration::from_secs(1);

/// A client whose consul no server has answered for so long has it started again: it may understand none any more.
const ALONE: Duration = Duration::from_secs(10);

/// One that was answered for so long after the key turned has it: serf finds a server dead in less that it does not understand.
const ANSWERED: Duration = Duration::from_secs(30);

/// So long a key has to stand before those before it are dropped: what any node did with another has come to an end by then.
const SETTLED: Duration = Duration::from_secs(10);

/// What this node's consul, and those that it reaches, still have to do.
#[derive(Debug)]
pub(super) struct Turning {
    agent: Arc<ConsulAgent>,
    role: Role,
    /// Told when those that have another key may be met, since this node's consul has it.
    turned: Arc<Notify>,
    present: ClusterKey,
    /// Whether all agents speak under it.
    is_done: bool,
    /// Those before it, the latest last, as long as a server has to drop them.
    former: Vec<ClusterKey>,
}

impl Turning {
    /// Of an agent that was started with this key.
    pub(super) const fn new(
        agent: Arc<ConsulAgent>,
        role: Role,
        known: ClusterKey,
        turned: Arc<Notify>,
    ) -> Self {
        Self {
            agent,
            role,
            turned,
            present: known,
            is_done: true,
            former: Vec::new(),
        }
    }

    /// Does it for every key that comes, until there are no more.
    pub(super) async fn follow(mut self, mut keys: watch::Receiver<Keys>) {
        loop {
            let key = keys.borrow_and_update().key.clone();
            self.hear(key);
            let changed = tokio::select! {
                () = self.turn() => keys.changed().await,
                changed = keys.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn hear(&mut self, key: ClusterKey) {
        if key != self.present {
            let former = std::mem::replace(&mut self.present, key);
            self.former.push(former);
            self.is_done = false;
        }
    }

    /// Can be dropped at any moment, and called again.
    async fn turn(&mut self) {
        if !self.is_done {
            match self.role.admits() {
                true => self.turn_all().await,
                false => self.turn_own().await,
            }
            self.is_done = true;
            self.turned.notify_one();
        }
        if !self.former.is_empty() {
            sleep(SETTLED).await;
        }
        while let Some(former) = self.former.last() {
            match self.agent.drop_key(former, &self.present).await {
                Ok(()) => {
                    self.former.pop();
                }
                Err(error) => {
                    tracing::debug!(%error, "some of consul's agents keep a former key");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// As a server does.
    async fn turn_all(&self) {
        while let Err(error) = self.agent.turn_key(&self.present).await {
            tracing::debug!(%error, "not all of consul's agents have the cluster's key yet");
            sleep(AGAIN).await;
        }
    }

    /// As a client does, whose consul gets the key from servers.
    async fn turn_own(&mut self) {
        self.former.clear();
        let mut since = Instant::now();
        let mut was_answered = None;
        loop {
            let answered = self.agent.turn_key(&self.present).await;
            if was_answered != Some(answered.is_ok()) {
                was_answered = Some(answered.is_ok());
                since = Instant::now();
            }
            let outcome = match answered {
                Ok(()) if since.elapsed() > ANSWERED => self.agent.has_key(),
                Err(error) if since.elapsed() > ALONE => {
                    tracing::warn!(%error, "consul here reaches no server, and is started again with the cluster's new key");
                    self.agent.restart_with_key(&self.present).await
                }
                _ => {
                    sleep(AGAIN).await;
                    continue;
                }
            };
            match outcome {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "consul's key is tried again"),
            }
            sleep(AGAIN).await;
        }
    }
}
