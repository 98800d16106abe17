//! The addresses that a container has by networks of our driver.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::runtime::{Container, NetRequest};
use arpanet_core::{AppAddr, ErrorKind, Result, ServiceName};
use bollard::models::{
    ContainerInspectResponse, EndpointSettings, EventMessage, EventMessageTypeEnum,
};
use bollard::query_parameters::InspectNetworkOptions;

use crate::client::{Client, LOOK};
use crate::driver::DRIVER;

/// A container's place in a network of our driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    addr: AppAddr,
    /// What the container is called there.
    names: BTreeSet<ServiceName>,
}

/// Networks in which an engine knows no names.
const NAMELESS: [&str; 4] = ["bridge", "host", "none", "podman"];

/// Which networks are our driver's. A network keeps its driver.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    ours: Mutex<HashMap<String, bool>>,
}

impl Endpoints {
    fn ours(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places that an inspection shows. They are there as long as the container runs.
    pub(crate) async fn of(
        &self,
        client: &Client,
        shown: &ContainerInspectResponse,
    ) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for settings in networks(shown).map(|(_, settings)| settings) {
            if let Some((network, place)) = place(shown, settings)
                && self.is_ours(client, network).await?
            {
                places.push(place);
            }
        }
        places.sort_by_key(|place| place.addr);
        Ok(places)
    }

    /// Whether it is in a network that is not of our driver, and whose names the engine knows.
    pub(crate) async fn has_others(
        &self,
        client: &Client,
        shown: &ContainerInspectResponse,
    ) -> Result<bool> {
        for (name, settings) in networks(shown) {
            let id = settings.network_id.as_deref().unwrap_or_default();
            if !NAMELESS.contains(&name.as_str()) && !self.is_ours(client, id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_ours(&self, client: &Client, network: &str) -> Result<bool> {
        if let Some(known) = self.ours().get(network) {
            return Ok(*known);
        }
        let asked = client
            .ask(LOOK, |docker| async move {
                docker
                    .inspect_network(network, None::<InspectNetworkOptions>)
                    .await
            })
            .await;
        let driver = match asked {
            Ok(shown) => shown.driver,
            // It went with its last container.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_ours = driver.as_deref() == Some(DRIVER);
        self.ours().insert(network.to_owned(), is_ours);
        Ok(is_ours)
    }
}

fn networks(
    shown: &ContainerInspectResponse,
) -> impl Iterator<Item = (&String, &EndpointSettings)> {
    let settings = shown.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flatten()
}

/// The container that has come into a network of our driver by this event.
pub(crate) fn joined(event: &EventMessage) -> Option<&str> {
    let attributes = event.actor.as_ref()?.attributes.as_ref()?;
    let is_ours = event.typ == Some(EventMessageTypeEnum::NETWORK)
        && event.action.as_deref() == Some("connect")
        && attributes
            .get("type")
            .is_some_and(|driver| driver == DRIVER);
    let container = attributes.get("container").filter(|_| is_ours);
    container.map(String::as_str)
}

/// A place that may be one of ours, and the id of its network.
fn place<'a>(
    container: &ContainerInspectResponse,
    settings: &'a EndpointSettings,
) -> Option<(&'a str, Place)> {
    let network = settings.network_id.as_deref()?;
    let ip = settings.ip_address.as_deref().filter(|ip| !ip.is_empty())?;
    let addr = format!("{ip}/{}", settings.ip_prefix_len?).parse().ok()?;
    let id = container.id.as_deref().unwrap_or_default();
    let aliases = settings.aliases.iter().flatten();
    // The engine puts the short id among them.
    let aliases = aliases.filter(|alias| !id.starts_with(alias.as_str()));
    let own = container.name.as_deref().unwrap_or_default();
    let own = own.strip_prefix('/').unwrap_or(own);
    let names = aliases.map(String::as_str).chain([own]);
    Some((
        network,
        Place {
            addr,
            names: names.filter_map(as_service).collect(),
        },
    ))
}

/// A name of docker's as one of DNS, where it can be: with hyphens for underscores, as the DNS server reads a question.
fn as_service(name: &str) -> Option<ServiceName> {
    name.replace('_', "-").parse().ok()
}

/// Puts the places among what the container wants: what it has by the engine, the cluster claims and registers.
pub(crate) fn add(container: &mut Container, places: Vec<Place>) {
    for place in places {
        let request = NetRequest::Addr(place.addr);
        if !container.spec.nets.contains(&request) {
            container.spec.nets.push(request);
        }
        let names = container.names.entry(place.addr.ip()).or_default();
        names.extend(place.names);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use arpanet_core::ContainerName;
    use arpanet_core::runtime::ContainerSpec;

    use super::*;

    fn settings(ip: &str, prefix: i64) -> EndpointSettings {
        EndpointSettings {
            network_id: Some("n1".to_owned()),
            ip_address: Some(ip.to_owned()),
            ip_prefix_len: Some(prefix),
            aliases: Some(vec![
                "web".to_owned(),
                "6a9c03".to_owned(),
                "shop_web".to_owned(),
            ]),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn who_joins_a_network_of_ours_is_told_by_its_driver() {
        let event = |driver: &str, action: &str| -> EventMessage {
            serde_json::from_value(serde_json::json!({
                "Type": "network",
                "Action": action,
                "Actor": {"ID": "n1", "Attributes": {"container": "6a9c03", "name": "shop", "type": driver}},
            }))
            .unwrap()
        };
        assert_eq!(joined(&event("arpanet", "connect")), Some("6a9c03"));
        assert_eq!(joined(&event("arpanet", "disconnect")), None);
        assert_eq!(joined(&event("bridge", "connect")), None);
    }

    fn container(name: &str) -> ContainerInspectResponse {
        ContainerInspectResponse {
            id: Some("6a9c03aa17".to_owned()),
            name: Some(format!("/{name}")),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_place_has_an_address_and_the_names_that_dns_can_have() {
        let shown = settings("10.1.0.5", 16);
        let (network, found) = place(&container("proj_Web_1"), &shown).unwrap();
        assert_eq!(network, "n1");
        let name = "w1".parse::<ContainerName>().unwrap();
        let spec = ContainerSpec::image("nginx");
        let mut seen = Container::new(name, "6a9c03aa17", spec, SystemTime::UNIX_EPOCH);
        for _ in 0..2 {
            add(&mut seen, vec![found.clone()]);
        }
        assert_eq!(
            seen.spec.nets,
            [NetRequest::Addr("10.1.0.5/16".parse().unwrap())]
        );
        let ip = "10.1.0.5".parse().unwrap();
        let names: Vec<&str> = seen.names[&ip].iter().map(ServiceName::as_str).collect();
        assert_eq!(names, ["proj-web-1", "shop-web", "web"]);
        for (ip, prefix) in [("", 0), ("172.17.0.2", 16), ("10.254.0.1", 16)] {
            assert_eq!(place(&container("x"), &settings(ip, prefix)), None, "{ip}");
        }
        // No label of DNS has a dot.
        let (_, found) = place(&container("web.shop"), &shown).unwrap();
        assert_eq!(found.names.len(), 2);
    }
}
