//! What an engine says of itself and of its host.

use arpanet_core::Result;
use bollard::models::LocalNodeState;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::client::{Client, LOOK};
use crate::config::DockerConfig;

/// An engine as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EngineFacts {
    /// Its version, as `20.10.24`.
    pub version: String,
    /// How it stores layers, as `overlay2`.
    pub storage: String,
    /// How it limits containers: `cgroupfs`, `systemd` or `none`.
    pub cgroups: String,
    /// Whether its host forwards IPv4.
    pub forwarding: bool,
    /// Whether it is in a swarm.
    #[serde(default)]
    pub swarm: bool,
    /// Its networks that have IPv4 addresses.
    pub networks: Vec<EngineNetwork>,
}

/// A network of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EngineNetwork {
    /// Its name.
    pub name: String,
    /// Its driver, as `bridge`.
    pub driver: String,
    /// Its addresses.
    pub subnets: Vec<Ipv4Net>,
}

impl EngineFacts {
    /// Asks the engine.
    ///
    /// # Errors
    /// [`Unavailable`](arpanet_core::ErrorKind::Unavailable) when it does not answer.
    pub async fn ask(config: &DockerConfig) -> Result<Self> {
        let client = Client::new(config.socket.clone());
        let info = client
            .ask(LOOK, |docker| async move { docker.info().await })
            .await?;
        let networks = client
            .ask(
                LOOK,
                |docker| async move { docker.list_networks(None).await },
            )
            .await?;
        let networks = networks.into_iter().map(|network| EngineNetwork {
            name: network.name.unwrap_or_default(),
            driver: network.driver.unwrap_or_default(),
            subnets: network
                .ipam
                .and_then(|ipam| ipam.config)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|pool| pool.subnet?.parse().ok())
                .collect(),
        });
        Ok(Self {
            version: info.server_version.unwrap_or_default(),
            storage: info.driver.unwrap_or_default(),
            cgroups: info
                .cgroup_driver
                .map_or_else(String::new, |driver| driver.to_string()),
            swarm: info
                .swarm
                .and_then(|swarm| swarm.local_node_state)
                .is_some_and(|state| {
                    state != LocalNodeState::INACTIVE && state != LocalNodeState::EMPTY
                }),
            forwarding: info.ipv4_forwarding.unwrap_or(true),
            networks: networks
                .filter(|network| !network.subnets.is_empty())
                .collect(),
        })
    }
}
