//! Turning the key of consul's gossip over while it runs.
//!
//! Consul does each step at all agents that it reaches, or says that it did not. A key is spoken under once all have it, and taken
//! away once all speak under another. So it does not matter how many nodes do it, nor where one of them stops.

use arpanet_core::admission::ClusterKey;
use arpanet_core::roster::Role;
use arpanet_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use super::process::Process;
use super::{ConsulAgent, GRACE, files, keyring};
use crate::error::own;

fn does_not_run() -> Error {
    own(ErrorKind::Unavailable, "consul does not run")
}

impl ConsulAgent {
    /// Has consul's gossip follow a key of the cluster that turned: all agents that are reached get it, and only then speak
    /// under it. What they had before they still understand, until [`drop_key`](Self::drop_key). A second call does the same.
    ///
    /// Any number of servers may do this at the same time: each step is done by all agents or tried again, and takes nothing
    /// away. Consul lets clients have no part in it, so on one this only has later starts begin with the key, and says whether a
    /// server answers: one that goes on to do so has had it from them, and is told so by [`has_key`](Self::has_key).
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the process is not started, not all agents answer, or no server answers a
    /// client: to be called again. A start with a membership that has the key does what is left on this node.
    pub async fn turn_key(&self, key: &ClusterKey) -> Result<()> {
        let (key, role) = self.adopt(key).await?;
        if !role.admits() {
            return self.client.has_leader().await.map(drop);
        }
        self.cluster_client.install_key(&key).await?;
        self.cluster_client.use_key(&key).await?;
        self.has_key()
    }

    /// This node's consul speaks under the key that it was last to turn to: a later start finds it again as it is.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) when that can't be kept.
    pub fn has_key(&self) -> Result<()> {
        files::remove(&self.config.turning())
    }

    /// Starts this node's consul again, with a key of the cluster that turned: for a client that no server answers any more,
    /// which may be because it does not understand them.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the process is not started.
    pub async fn restart_with_key(&self, key: &ClusterKey) -> Result<()> {
        self.adopt(key).await?;
        // Whoever keeps it running does the rest.
        if let Some(process) = Process::kept(&self.config.process()) {
            process.end(GRACE).await;
        }
        self.has_key()
    }

    /// Has no agent that is reached understand a former key of the cluster any more, once all speak under the present one. A
    /// second call does nothing. For servers.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the process is not started, or not all agents answer: to be called
    /// again.
    pub async fn drop_key(&self, former: &ClusterKey, present: &ClusterKey) -> Result<()> {
        // Whoever came meanwhile may know the former one only, and would not be heard.
        self.turn_key(present).await?;
        let cluster = match self.running.lock().await.as_ref() {
            Some(running) => running.membership.cluster,
            None => return Err(does_not_run()),
        };
        let former = keyring::derived(&cluster, former)?;
        self.cluster_client.remove_key(&former).await
    }

    /// From here on a process that begins has this key; as consul writes it, and what this node is.
    async fn adopt(&self, key: &ClusterKey) -> Result<(Zeroizing<String>, Role)> {
        let mut running = self.running.lock().await;
        let running = running.as_mut().ok_or_else(does_not_run)?;
        running.membership.key = key.clone();
        let founds = self.founds(&running.membership)?;
        let rendered = self.config.rendered(&running.membership, founds)?;
        if !files::is(&self.config.file(), &rendered) {
            files::touch(&self.config.turning())?;
            files::replace(&self.config.file(), &rendered)?;
        }
        let role = running.membership.me.role;
        Ok((keyring::gossip_key(&running.membership)?, role))
    }
}
