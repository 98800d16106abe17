use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::{ContainerDns, DockerApiConfig, connection, refusal};

/// A client whose host is gone is noticed so much later. It may well be slow: nobody is cut off who answers.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// How long to wait with the next client when the system has no room for this one.
const NO_ROOM: Duration = Duration::from_millis(100);

/// Serves an engine's API on a socket that the caller has bound, in whatever network namespace.
///
/// Dropping it stops it.
#[derive(Debug)]
pub struct DockerApi {
    address: SocketAddr,
    serving: Arc<Serving>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) config: DockerApiConfig,
    /// As it is now; the configuration has what it was at first.
    dns: Mutex<ContainerDns>,
}

impl Serving {
    #[cfg(any(test, fuzzing))]
    pub(super) const fn new(config: DockerApiConfig, dns: ContainerDns) -> Self {
        Self {
            config,
            dns: Mutex::new(dns),
        }
    }

    /// What a container that is created now asks for names.
    pub(super) fn dns(&self) -> ContainerDns {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ContainerDns> {
        self.dns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DockerApi {
    /// Serves from now on. The engine need not be there: whoever comes while it is away is told so.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) for a socket that can't be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve(listener: std::net::TcpListener, config: DockerApiConfig) -> Result<Self> {
        let adopt = || {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
        };
        let (address, listener) = adopt().map_err(|source: io::Error| {
            Error::new(ErrorKind::Internal, "the docker API's socket can't be used")
                .with_source(source)
        })?;
        let dns = Mutex::new(config.dns.clone());
        let serving = Arc::new(Serving { config, dns });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&serving)));
        Ok(Self {
            address,
            serving,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Containers that are created from now on have this DNS.
    pub fn set_dns(&self, dns: ContainerDns) {
        *self.serving.lock() = dns;
    }

    /// Ends all connections and closes the socket. A second call does nothing.
    pub async fn stop(&self) {
        let accepting = self.take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // That it was aborted is all that it says.
            let _ = accepting.await;
        }
    }

    fn take(&self) -> Option<JoinHandle<()>> {
        let mut accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        accepting.take()
    }
}

impl Drop for DockerApi {
    fn drop(&mut self) {
        if let Some(accepting) = self.take() {
            accepting.abort();
        }
    }
}

/// Ends with all of its connections.
async fn accept(listener: TcpListener, serving: Arc<Serving>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => {
                    let serving = Arc::clone(&serving);
                    connections.spawn(async move {
                        if let Err(error) = admit(client, peer, &serving).await {
                            tracing::debug!(%peer, %error, "a client of the docker API broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a client of the docker API can't be accepted");
                    sleep(NO_ROOM).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn admit(client: TcpStream, peer: SocketAddr, serving: &Serving) -> io::Result<()> {
    let allowed = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => serving.config.allowed.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(_) => false,
    };
    if !allowed {
        tracing::warn!(%peer, "refused at the docker API");
        let message = format!("{} may not use the docker API of this node", peer.ip());
        let answer = refusal::answer("403 Forbidden", &message);
        return connection::refuse(client, &answer).await;
    }
    client.set_nodelay(true)?;
    SockRef::from(&client).set_tcp_keepalive(&KEEPALIVE)?;
    connection::serve(client, serving).await
}
