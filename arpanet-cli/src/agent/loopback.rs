//! Ports of this host's loopback that lead to a part of the node.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::cluster::FacilityContext;
use arpanet_netlink::Transport;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::forward::Forward;

/// When a port is tried again that somebody else has: nothing tells when it is free.
const AGAIN: Duration = Duration::from_secs(5);

/// The same ports of the loopback and of one address.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    task: Mutex<Option<AbortHandle>>,
}

impl Loopback {
    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads these ports there from now on. One that somebody has is told of, and taken as soon as it is free. A second call
    /// begins anew.
    pub(super) async fn start(
        &self,
        to: Ipv4Addr,
        ports: &[(Transport, u16)],
        context: &FacilityContext,
    ) {
        self.stop();
        let mut open = Vec::new();
        let mut taken = Vec::new();
        for &(transport, port) in ports {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let forward = Forward::new(transport, from, SocketAddr::from((to, port)));
            match forward.start().await {
                Ok(()) => open.push(forward),
                Err(error) => {
                    context.trouble(error.to_string());
                    taken.push(forward);
                }
            }
        }
        let task = tokio::spawn(keep(open, taken));
        if let Some(before) = self.task().replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// Lets go of them. A second call does nothing.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keeps what is open, which ends with it, and opens the rest as soon as it can be.
async fn keep(mut open: Vec<Forward>, mut taken: Vec<Forward>) {
    while !taken.is_empty() {
        sleep(AGAIN).await;
        for forward in std::mem::take(&mut taken) {
            match forward.start().await {
                Ok(()) => open.push(forward),
                Err(_) => taken.push(forward),
            }
        }
    }
    std::future::pending::<()>().await;
}
