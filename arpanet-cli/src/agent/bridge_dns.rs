//! The cluster's DNS on docker's bridge, in the host's own namespace: for containers that have no address of the overlay.
//!
//! They are answered as the host is, with all names. An address in an answer opens no way to it: routing decides that.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::cluster::FacilityContext;
use arpanet_core::runtime::Container;
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{ContainerName, Error, ErrorKind, Result, Runtime};
use arpanet_dns::DnsServer;
use arpanet_netlink::{Transport, holder_of_address};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::timeout;

use super::dns::PORT;

/// When it is tried again to serve where somebody else does, or to ask an engine that could not answer: nothing tells when.
const AGAIN: Duration = Duration::from_secs(5);
/// How many clients of TCP may wait.
const BACKLOG: i32 = 128;

/// Serves on the bridge whenever there is one.
#[derive(Debug)]
pub(super) struct BridgeDns {
    runtime: Arc<dyn Runtime>,
    server: Arc<DnsServer>,
    context: FacilityContext,
    /// Where it serves.
    at: watch::Sender<Option<Ipv4Addr>>,
    told: Option<String>,
}

impl BridgeDns {
    pub(super) const fn new(
        runtime: Arc<dyn Runtime>,
        server: Arc<DnsServer>,
        context: FacilityContext,
        at: watch::Sender<Option<Ipv4Addr>>,
    ) -> Self {
        Self {
            runtime,
            server,
            context,
            at,
            told: None,
        }
    }

    /// Follows the engine, which may come later, or come back with another bridge. Returns when there is none to follow.
    pub(super) async fn run(mut self) {
        let mut containers = match self.runtime.watch().await {
            Ok(containers) => containers,
            Err(error) => {
                self.tell(format!("DNS can't follow the container engine: {error}"));
                return;
            }
        };
        loop {
            let settled = match self.look().await {
                Ok(settled) => settled,
                // The watch tells when it is back.
                Err(error) if error.kind() == ErrorKind::Unavailable => true,
                Err(error) => {
                    tracing::debug!(%error, "the bridge can't be found");
                    false
                }
            };
            let goes_on = match settled {
                true => is_back(&mut containers).await,
                false => timeout(AGAIN, is_back(&mut containers))
                    .await
                    .unwrap_or(true),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Serves where the bridge is. `false` where it is to be tried again.
    async fn look(&mut self) -> Result<bool> {
        let Some(ip) = self.runtime.bridge_address().await? else {
            return Ok(true);
        };
        if *self.at.borrow() == Some(ip) {
            return Ok(true);
        }
        let served = bind(ip).and_then(|(udp, tcp)| self.server.listen(udp, tcp));
        match served {
            Ok(()) => {
                tracing::info!(%ip, "DNS serves docker's bridge");
                self.told = None;
                self.at.send_replace(Some(ip));
                Ok(true)
            }
            Err(error) => {
                self.at.send_replace(None);
                let hint = error.hint().map(|hint| format!(" ({hint})"));
                self.tell(format!("{error}{}", hint.unwrap_or_default()));
                Ok(false)
            }
        }
    }

    /// Tells a failure, once.
    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            self.context.trouble(what.as_str());
            self.told = Some(what);
        }
    }
}

/// Waits until the engine is there, perhaps with another bridge. `false` when it is followed no more.
async fn is_back(containers: &mut Watch<ContainerName, Container>) -> bool {
    while let Some(change) = containers.next().await {
        if matches!(change, Change::Fresh | Change::Snapshot(_)) {
            return true;
        }
    }
    false
}

/// Sockets at exactly this address, whether or not the bridge has it by now.
fn bind(ip: Ipv4Addr) -> Result<(UdpSocket, TcpListener)> {
    let at = SocketAddrV4::new(ip, PORT);
    let socket = |kind, protocol| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        socket.set_freebind_v4(true)?;
        if protocol == Protocol::TCP {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&at.into())?;
        Ok(socket)
    };
    let both = || {
        let udp = socket(Type::DGRAM, Protocol::UDP)?;
        let tcp = socket(Type::STREAM, Protocol::TCP)?;
        tcp.listen(BACKLOG)?;
        Ok((udp.into(), tcp.into()))
    };
    both().map_err(|source: std::io::Error| {
        let holder = [Transport::Udp, Transport::Tcp]
            .into_iter()
            .find_map(|transport| holder_of_address(transport, at));
        let message = match holder {
            Some(holder) => format!("DNS can't serve docker's bridge: {holder} has {at}"),
            None => format!("DNS can't serve docker's bridge at {at}"),
        };
        Error::new(ErrorKind::Unavailable, message)
            .with_hint(
                "attached containers have it at 169.254.1.1 all the same; for the others, have that process leave the bridge's address alone",
            )
            .with_source(source)
    })
}
