//! The cluster's DNS server as a part of the node: in the router, where attached containers and the host reach it, and on
//! docker's bridge for all other containers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arpanet_core::addr::ROUTER_ADDRESS;
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::{Error, ErrorKind, Result, Runtime};
use arpanet_dns::{DnsConfig, DnsServer};
use arpanet_netlink::Namespace;
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bridge_dns::BridgeDns;
use super::consul::Names;
use super::overlay::Routed;
use super::state::DnsKind;

pub(super) const PORT: u16 = 53;

/// DNS on 169.254.1.1, for containers, and on this node's 10.253.A.B, for hosts.
#[derive(Debug)]
pub(crate) struct Dns {
    config: DnsConfig,
    overlay: Arc<dyn Routed>,
    runtime: Arc<dyn Runtime>,
    server: Mutex<Option<Arc<DnsServer>>>,
    bridge: watch::Sender<Option<Ipv4Addr>>,
    following: Mutex<Vec<JoinHandle<()>>>,
    /// Where consul answers, and wants a token of whoever asks it anything.
    names: Option<Names>,
}

impl Dns {
    pub(crate) fn new(
        config: DnsConfig,
        overlay: Arc<dyn Routed>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self {
            config,
            overlay,
            runtime,
            server: Mutex::new(None),
            bridge: watch::Sender::default(),
            following: Mutex::default(),
            names: None,
        }
    }

    /// With a consul that answers names of services only to whom it lets.
    pub(crate) fn asking_for_leave(mut self) -> Self {
        self.names = Some(Names::default());
        self
    }

    /// What would have it answer more.
    pub(crate) fn advice(&self) -> Option<String> {
        self.names.as_ref().and_then(Names::advice)
    }

    /// Where it serves containers that have no address of the overlay, while it does.
    pub(crate) fn bridge(&self) -> watch::Receiver<Option<Ipv4Addr>> {
        self.bridge.subscribe()
    }

    fn following(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a name, as the server answers it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] while it does not serve.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>> {
        let server = self.server().clone();
        let server = server
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the DNS server does not run"))?;
        Ok(server.resolve(name).await)
    }

    /// Who answers names of services.
    pub(crate) const fn kind(&self) -> DnsKind {
        match self.config.authority {
            None => DnsKind::Watch,
            Some(_) => DnsKind::Consul,
        }
    }

    fn server(&self) -> MutexGuard<'_, Option<Arc<DnsServer>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Facility for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    async fn start(&self, context: &FacilityContext) -> Result<()> {
        if self.server().is_some() {
            return Ok(());
        }
        let router = self.overlay.router_namespace().await?;
        let sockets = [ROUTER_ADDRESS, context.membership.me.node.discovery()]
            .map(|ip| bind(&router, ip))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let discovery = Arc::clone(&context.discovery);
        let server = DnsServer::start(self.config.clone(), discovery, sockets).await?;
        let server = Arc::new(server);
        *self.server() = Some(Arc::clone(&server));
        let bridge = BridgeDns::new(
            Arc::clone(&self.runtime),
            Arc::clone(&server),
            context.clone(),
            self.bridge.clone(),
        );
        let mut following = vec![tokio::spawn(bridge.run())];
        if let Some(names) = self.names.clone() {
            let domain = self.config.domain.clone();
            following.push(tokio::spawn(names.watch(server, domain, context.clone())));
        }
        *self.following() = following;
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        let following = std::mem::take(&mut *self.following());
        for following in following {
            following.abort();
            // That it was aborted is all that it says.
            let _ = following.await;
        }
        self.bridge.send_replace(None);
        let server = self.server().take();
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(())
    }
}

fn bind(router: &Namespace, ip: Ipv4Addr) -> Result<(UdpSocket, TcpListener)> {
    let at = SocketAddr::from((ip, PORT));
    let bound = router.run(|| Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)))?;
    bound.map_err(|source: std::io::Error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("DNS can't listen on {at} in the router's namespace"),
        )
        .with_source(source)
    })
}
