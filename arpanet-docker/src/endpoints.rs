//! The addresses that a container has by networks of our driver.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::runtime::{ContainerSpec, NetRequest};
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
    aliases: Vec<ServiceName>,
}

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
        let id = shown.id.as_deref().unwrap_or_default();
        let networks = shown.network_settings.as_ref();
        let networks = networks.and_then(|settings| settings.networks.as_ref());
        let mut places = Vec::new();
        for settings in networks.into_iter().flat_map(HashMap::values) {
            if let Some((network, place)) = place(id, settings)
                && self.is_ours(client, network).await?
            {
                places.push(place);
            }
        }
        places.sort_by_key(|place| place.addr);
        Ok(places)
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
fn place<'a>(container: &str, settings: &'a EndpointSettings) -> Option<(&'a str, Place)> {
    let network = settings.network_id.as_deref()?;
    let ip = settings.ip_address.as_deref().filter(|ip| !ip.is_empty())?;
    let addr = format!("{ip}/{}", settings.ip_prefix_len?).parse().ok()?;
    let aliases = settings.aliases.iter().flatten();
    // The engine puts the short id among them.
    let aliases = aliases.filter(|alias| !container.starts_with(alias.as_str()));
    Some((
        network,
        Place {
            addr,
            aliases: aliases.filter_map(|alias| alias.parse().ok()).collect(),
        },
    ))
}

/// Puts the places among what the container wants: what it has by the engine, the cluster claims and registers.
pub(crate) fn add(spec: &mut ContainerSpec, places: Vec<Place>) {
    for place in places {
        let request = NetRequest::Addr(place.addr);
        if !spec.nets.contains(&request) {
            spec.nets.push(request);
        }
        for alias in place.aliases {
            if !spec.aliases.contains(&alias) {
                spec.aliases.push(alias);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_place_has_an_address_and_the_names_that_dns_can_have() {
        let shown = settings("10.1.0.5", 16);
        let (network, found) = place("6a9c03aa17", &shown).unwrap();
        assert_eq!(network, "n1");
        let mut spec = ContainerSpec::image("nginx");
        for _ in 0..2 {
            add(&mut spec, vec![found.clone()]);
        }
        assert_eq!(
            spec.nets,
            [NetRequest::Addr("10.1.0.5/16".parse().unwrap())]
        );
        assert_eq!(spec.aliases, ["web".parse().unwrap()]);
        for (ip, prefix) in [("", 0), ("172.17.0.2", 16), ("10.254.0.1", 16)] {
            assert_eq!(place("6a9c03aa17", &settings(ip, prefix)), None, "{ip}");
        }
    }
}
