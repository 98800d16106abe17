//! The server: an index that follows discovery, and sockets that are answered from it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arpanet_core::discovery::Instance;
use arpanet_core::discovery::{Member, Selector};
use arpanet_core::watch::Watch;
use arpanet_core::{Discovery, Error, ErrorKind, InstanceId, NodeAddr, Result};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::answering::Shared;
use crate::index::Index;
use crate::{DnsConfig, tcp, udp};

/// Tasks that answer one UDP socket: one runs while another is in a system call.
const TASKS_A_SOCKET: usize = 2;
/// How long to wait before a watch that ended is begun again.
const AGAIN: Duration = Duration::from_secs(1);

/// A DNS server over a [`Discovery`], on sockets that the caller has bound, in whatever network namespace.
///
/// Dropping it stops it.
pub struct DnsServer {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer")
            .field("domain", self.shared.domain())
            .finish_non_exhaustive()
    }
}

impl DnsServer {
    /// Serves on these sockets. Returns when the index holds what discovery knows now, so the first question is answered.
    ///
    /// Bind the sockets to exact addresses: an answer has to come from where the question went.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a domain that can't be, or an upstream that is this server itself;
    /// what [`Discovery::watch`] answers; [`Internal`](ErrorKind::Internal) for a socket that can't be used.
    pub async fn start(
        config: DnsConfig,
        discovery: Arc<dyn Discovery>,
        sockets: Vec<(std::net::UdpSocket, std::net::TcpListener)>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(config)?);
        let mut watches = Watches::begin(&*discovery).await?;
        watches.take(shared.index()).await;
        let server = Self {
            shared: Arc::clone(&shared),
            tasks: Mutex::default(),
        };
        for (udp, tcp) in sockets {
            server.listen(udp, tcp)?;
        }
        server.spawn(follow(watches, discovery, shared));
        Ok(server)
    }

    /// Serves on two more sockets.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn listen(&self, udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> Result<()> {
        let unusable = |source: std::io::Error| {
            Error::new(ErrorKind::Internal, "a DNS socket can't be used").with_source(source)
        };
        let adopt = || {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            let own = [udp.local_addr()?, tcp.local_addr()?];
            Ok((
                Arc::new(UdpSocket::from_std(udp)?),
                TcpListener::from_std(tcp)?,
                own,
            ))
        };
        let (udp, tcp, own) = adopt().map_err(unusable)?;
        self.shared.require_others(&own)?;
        for _ in 0..TASKS_A_SOCKET {
            self.spawn(udp::serve(Arc::clone(&udp), Arc::clone(&self.shared)));
        }
        self.spawn(tcp::serve(tcp, Arc::clone(&self.shared)));
        Ok(())
    }

    /// The addresses of a name, in whatever network: `web`, `node1`, `v2.web`, `web.service.consul`, whatever is in the
    /// domain. None of names elsewhere, and none where an authority does not answer.
    pub async fn resolve(&self, name: &str) -> Vec<Ipv4Addr> {
        self.shared.resolve(name).await
    }

    /// Stops, and frees the sockets. A second call does nothing.
    pub async fn stop(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(task);
    }
}

/// Both sources of the index.
struct Watches {
    instances: Watch<InstanceId, Instance>,
    members: Watch<NodeAddr, Member>,
}

impl Watches {
    async fn begin(discovery: &dyn Discovery) -> Result<Self> {
        Ok(Self {
            members: discovery.watch_members().await?,
            instances: discovery.watch(Selector::All).await?,
        })
    }

    /// Waits for the first word of both, which is the whole.
    async fn take(&mut self, index: &RwLock<Index>) -> Option<()> {
        let members = self.members.next().await?;
        let instances = self.instances.next().await?;
        let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
        index.apply_members(members);
        index.apply_instances(instances);
        Some(())
    }

    /// Takes in changes until a source ends.
    async fn run(&mut self, index: &RwLock<Index>) -> Option<()> {
        loop {
            tokio::select! {
                change = self.members.next() => {
                    let change = change?;
                    index.write().unwrap_or_else(PoisonError::into_inner).apply_members(change);
                }
                change = self.instances.next() => {
                    let change = change?;
                    index.write().unwrap_or_else(PoisonError::into_inner).apply_instances(change);
                }
            }
        }
    }
}

/// Keeps the index up to date; what was known last is told while the source is gone.
async fn follow(mut watches: Watches, discovery: Arc<dyn Discovery>, shared: Arc<Shared>) {
    loop {
        watches.run(shared.index()).await;
        tracing::debug!("discovery ended a watch");
        watches = loop {
            sleep(AGAIN).await;
            match Watches::begin(&*discovery).await {
                Ok(watches) => break watches,
                Err(error) => tracing::debug!(%error, "discovery can't be watched"),
            }
        };
    }
}

/// Whether a question sent to `to` arrives at a socket bound to `bound`.
pub(crate) fn arrives(to: SocketAddr, bound: SocketAddr) -> bool {
    let (to_ip, bound_ip) = (to.ip().to_canonical(), bound.ip().to_canonical());
    let everywhere = bound_ip.is_unspecified() && (to_ip.is_loopback() || to_ip.is_unspecified());
    to.port() == bound.port() && (to_ip == bound_ip || everywhere)
}
