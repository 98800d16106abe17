//! The docker API as a part of the node: in the router, where the system planes of all nodes reach it, and nobody else.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arpanet_core::addr::{DOCKER_API_PORT, ROUTER_ADDRESS};
use arpanet_core::cluster::{Facility, FacilityContext};
use arpanet_core::discovery::Instance;
use arpanet_core::{Error, ErrorKind, Plane, Result};
use arpanet_docker::{ContainerDns, DockerApi, DockerApiConfig, DockerConfig};
use arpanet_wireguard::WireGuardOverlay;
use async_trait::async_trait;

/// The engine's API at 10.254.A.B.
#[derive(Debug)]
pub(crate) struct DockerPlane {
    config: DockerApiConfig,
    overlay: Arc<WireGuardOverlay>,
    server: Mutex<Option<DockerApi>>,
}

impl DockerPlane {
    /// The API of this engine. Containers that are created through it ask the router for names, by their short ones too in
    /// this domain.
    pub(crate) fn new(engine: &DockerConfig, domain: &str, overlay: Arc<WireGuardOverlay>) -> Self {
        let dns = ContainerDns::default()
            .attached([ROUTER_ADDRESS])
            .search([format!("service.{domain}")]);
        Self {
            config: DockerApiConfig::new(engine).dns(dns),
            overlay,
            server: Mutex::new(None),
        }
    }

    fn server(&self) -> MutexGuard<'_, Option<DockerApi>> {
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
        let server = DockerApi::serve(listener, self.config.clone())?;
        *self.server() = Some(server);
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
            server.stop().await;
        }
        Ok(())
    }
}
