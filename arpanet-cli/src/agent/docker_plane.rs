//! The docker API as a part of the node: in the router, where the system planes of all nodes reach it, and nobody else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arpanet_core::addr::{DOCKER_API_PORT, ROUTER_ADDRESS};
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::discovery::Instance;
use arpanet_core::{Error, ErrorKind, Plane, Result};
use arpanet_docker::{ContainerDns, DockerApi, DockerApiConfig, DockerConfig};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::overlay::Routed;

/// The engine's API at 10.254.A.B.
#[derive(Debug)]
pub(crate) struct DockerPlane {
    config: DockerApiConfig,
    overlay: Arc<dyn Routed>,
    /// Where DNS serves containers without an address of the overlay.
    bridge: watch::Receiver<Option<Ipv4Addr>>,
    server: Mutex<Option<Serving>>,
}

#[derive(Debug)]
struct Serving {
    api: Arc<DockerApi>,
    following: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl DockerPlane {
    /// The API of this engine. Containers that are created through it ask the router for names, or the bridge where they
    /// are not on the overlay; by their short ones too in this domain.
    pub(crate) fn new(
        engine: &DockerConfig,
        domain: &str,
        overlay: Arc<dyn Routed>,
        bridge: watch::Receiver<Option<Ipv4Addr>>,
    ) -> Self {
        let dns = ContainerDns::default()
            .attached([ROUTER_ADDRESS])
            .search([format!("service.{domain}")]);
        Self {
            config: DockerApiConfig::new(engine).dns(dns),
            overlay,
            bridge,
            server: Mutex::new(None),
        }
    }

    fn server(&self) -> MutexGuard<'_, Option<Serving>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Facility for DockerPlane {
    fn name(&self) -> &'static str {
        "the docker API"
    }

    async fn start(&self, context: &FacilityContext) -> Result<()> {
        if self.server().is_some() {
            return Ok(());
        }
        let me = context.membership.me.node;
        let at = SocketAddr::from((me.docker(), DOCKER_API_PORT));
        let router = self.overlay.router_namespace().await?;
        let listener = router.run(|| TcpListener::bind(at))?.map_err(|source| {
            let message = format!("the docker API can't listen on {at} in the router's namespace");
            Error::new(ErrorKind::Unavailable, message).with_source(source)
        })?;
        let api = Arc::new(DockerApi::serve(listener, self.config.clone())?);
        let dns = self.config.dns.clone();
        let following = follow(Arc::clone(&api), dns, self.bridge.clone());
        let following = tokio::spawn(following);
        *self.server() = Some(Serving { api, following });
        let instance = Instance::new(
            format!("{me}:docker").parse()?,
            "docker".parse()?,
            me.in_plane(Plane::Docker),
            DOCKER_API_PORT,
            me,
        );
        context.discovery.register(instance).await.map(drop)
    }

    async fn stop(&self) -> Result<()> {
        let server = self.server().take();
        if let Some(server) = server {
            server.api.stop().await;
        }
        Ok(())
    }
}

/// Names the bridge's server to containers that are not on the overlay, while it is served there.
async fn follow(
    api: Arc<DockerApi>,
    dns: ContainerDns,
    mut bridge: watch::Receiver<Option<Ipv4Addr>>,
) {
    loop {
        let at = *bridge.borrow_and_update();
        api.set_dns(dns.clone().others(at));
        if bridge.changed().await.is_err() {
            return;
        }
    }
}
