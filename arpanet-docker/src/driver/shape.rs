//! Networks of the driver as the engine has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use arpanet_core::{AppNet, EndpointId, Result};
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use serde::{Deserialize, Serialize};

use super::DRIVER;
use crate::error::engine;

/// How long the engine may take for a request, in seconds.
const LIMIT: u64 = 10;

/// All that makes a network of one engine like that of another. The subnet is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    ipam_options: BTreeMap<String, String>,
    #[serde(default)]
    gateway: Option<String>,
    #[serde(default)]
    aux: BTreeMap<String, String>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachable: bool,
}

/// A network of this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) net: AppNet,
    pub(super) shape: Shape,
}

fn sorted(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

/// `None` for one that is none of the driver's.
fn found(network: Network) -> Option<Found> {
    if network.driver.as_deref() != Some(DRIVER) {
        return None;
    }
    let ipam = network.ipam?;
    let config = ipam.config?.into_iter().next()?;
    Some(Found {
        id: network.id?,
        net: config.subnet?.parse().ok()?,
        shape: Shape {
            name: network.name?,
            labels: sorted(network.labels),
            options: sorted(network.options),
            ipam_options: sorted(ipam.options),
            gateway: config.gateway,
            aux: sorted(config.auxiliary_addresses),
            internal: network.internal.unwrap_or_default(),
            attachable: network.attachable.unwrap_or_default(),
        },
    })
}

fn request(net: AppNet, shape: &Shape) -> NetworkCreateRequest {
    let unsorted = |map: &BTreeMap<String, String>| map.clone().into_iter().collect();
    NetworkCreateRequest {
        name: shape.name.clone(),
        driver: Some(DRIVER.to_owned()),
        internal: Some(shape.internal),
        attachable: Some(shape.attachable),
        ipam: Some(Ipam {
            driver: Some(DRIVER.to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(net.to_string()),
                gateway: shape.gateway.clone(),
                auxiliary_addresses: Some(unsorted(&shape.aux)),
                ..IpamConfig::default()
            }]),
            options: Some(unsorted(&shape.ipam_options)),
        }),
        options: Some(unsorted(&shape.options)),
        labels: Some(unsorted(&shape.labels)),
        ..NetworkCreateRequest::default()
    }
}

/// The engine, for its networks.
#[derive(Debug)]
pub(super) struct EngineNetworks {
    socket: PathBuf,
}

impl EngineNetworks {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    async fn docker(&self) -> Result<Docker> {
        let path = self.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, LIMIT, API_DEFAULT_VERSION);
        let docker = docker.map_err(|error| self.error(error))?;
        docker
            .negotiate_version()
            .await
            .map_err(|error| self.error(error))
    }

    fn error(&self, error: bollard::errors::Error) -> arpanet_core::Error {
        engine(&self.socket, error)
    }

    pub(super) async fn list(&self) -> Result<Vec<Found>> {
        let listed = self.listed(&self.docker().await?).await?;
        Ok(listed.into_iter().filter_map(found).collect())
    }

    async fn listed(&self, docker: &Docker) -> Result<Vec<Network>> {
        let filters: HashMap<&str, Vec<&str>> = [("driver", vec![DRIVER])].into();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let listed = docker.list_networks(Some(options)).await;
        listed.map_err(|error| self.error(error))
    }

    /// All endpoints in its networks, those of no container included.
    pub(super) async fn endpoints(&self) -> Result<BTreeSet<EndpointId>> {
        let docker = self.docker().await?;
        let mut endpoints = BTreeSet::new();
        let ids = self.listed(&docker).await?.into_iter();
        for id in ids.filter_map(|network| network.id) {
            let shown = docker.inspect_network(&id, None).await;
            let shown = shown.map_err(|error| self.error(error))?;
            let containers = shown.containers.unwrap_or_default().into_values();
            endpoints.extend(containers.filter_map(|one| one.endpoint_id?.parse().ok()));
        }
        Ok(endpoints)
    }

    pub(super) async fn create(&self, net: AppNet, shape: &Shape) -> Result<()> {
        let docker = self.docker().await?;
        let made = docker.create_network(request(net, shape)).await;
        made.map(drop).map_err(|error| self.error(error))
    }

    /// One that is gone is fine.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let docker = self.docker().await?;
        match docker.remove_network(id).await {
            Err(error) => {
                let error = self.error(error);
                match error.kind() {
                    arpanet_core::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                }
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes all containers out of it.
    async fn empty(&self, id: &str) -> Result<()> {
        let docker = self.docker().await?;
        let shown = docker.inspect_network(id, None).await;
        let shown = shown.map_err(|error| self.error(error))?;
        for container in shown.containers.unwrap_or_default().into_keys() {
            let request = NetworkDisconnectRequest {
                container,
                force: Some(true),
            };
            let outcome = docker.disconnect_network(id, request).await;
            outcome.map_err(|error| self.error(error))?;
        }
        Ok(())
    }
}

/// Removes the driver's networks from an engine, whoever is in them: before the driver goes for good.
///
/// # Errors
/// The first failure, after everything was tried.
pub async fn remove_networks(socket: &Path) -> Result<()> {
    let engine = EngineNetworks::new(socket.to_owned());
    let mut outcomes = Vec::new();
    for found in engine.list().await? {
        outcomes.push(engine.empty(&found.id).await);
        outcomes.push(engine.remove(&found.id).await);
    }
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_made_again_as_it_was_found() {
        let shown: Network = serde_json::from_str(
            r#"{"Name": "shop_default", "Id": "6a9c03", "Driver": "arpanet", "Internal": true,
                "IPAM": {"Driver": "arpanet", "Options": {}, "Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}]},
                "Options": {"a": "b"}, "Labels": {"com.docker.compose.network": "default"}}"#,
        )
        .unwrap();
        let one = found(shown.clone()).unwrap();
        assert_eq!(one.net, "10.1.0.0/16".parse().unwrap());
        let again = request(one.net, &one.shape);
        let made = Network {
            id: Some("other".to_owned()),
            name: Some(again.name),
            driver: again.driver,
            internal: again.internal,
            ipam: again.ipam,
            options: again.options,
            labels: again.labels,
            ..Network::default()
        };
        assert_eq!(found(made).unwrap().shape, one.shape);
        let foreign = Network {
            driver: Some("bridge".to_owned()),
            ..shown
        };
        assert_eq!(found(foreign), None);
    }
}
