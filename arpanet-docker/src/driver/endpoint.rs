//! Containers' places in networks.

use arpanet_core::addr::{ROUTER_ADDRESS, system_range};
use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, EndpointId, Error, ErrorKind, Result};

use super::NetworkDriver;
use super::protocol::{
    Empty, EndpointCreated, EndpointCreation, EndpointInfo, EndpointRef, Interface, InterfaceName,
    JoinRequest, Joined, StaticRoute,
};
use super::state::Endpoint;

/// What the links of containers are called: a number follows.
const PREFIX: &str = "eth";

impl NetworkDriver {
    pub(super) async fn create_endpoint(
        &self,
        request: EndpointCreation,
    ) -> Result<EndpointCreated> {
        let id: EndpointId = request.endpoint_id.parse()?;
        let interface = request.interface.unwrap_or_default();
        let addr: AppAddr = interface.address.parse().map_err(|error: Error| {
            error.context(format!(
                "{:?} is no address of the cluster",
                interface.address
            ))
        })?;
        let mac = match interface.mac_address.as_str() {
            "" => None,
            text => Some(parse_mac(text)?),
        };
        let endpoint = Endpoint {
            network: request.network_id,
            addr,
            mac,
            sandbox: None,
        };
        // Before the link is there: one that nobody knows of would stay.
        self.kept.change(|state| {
            state.endpoints.insert(id.clone(), endpoint);
        })?;
        let plugged = match self.plugged(&id).await {
            Ok(plugged) => plugged,
            Err(error) => {
                // Not asked for again: the engine takes a refused endpoint as not made.
                if let Err(error) = self.drop_endpoint(&id).await {
                    tracing::warn!(%addr, %error, "what is left of an endpoint can't be removed");
                }
                return Err(error);
            }
        };
        // What the engine has set already must not be in the answer.
        let mac_address = match mac {
            Some(_) => String::new(),
            None => write_mac(plugged.mac),
        };
        Ok(EndpointCreated {
            interface: Interface {
                mac_address,
                ..Interface::default()
            },
        })
    }

    pub(super) fn endpoint_info(&self, request: EndpointRef) -> Result<EndpointInfo> {
        let id: EndpointId = request.endpoint_id.parse()?;
        let state = self.kept.state();
        let endpoint = state.endpoints.get(&id);
        let value = endpoint.map(|endpoint| ("address".to_owned(), endpoint.addr.to_string()));
        Ok(EndpointInfo {
            value: value.into_iter().collect(),
        })
    }

    pub(super) async fn delete_endpoint(&self, request: EndpointRef) -> Result<Empty> {
        // One with an id that can't be was never made.
        if let Ok(id) = request.endpoint_id.parse() {
            self.drop_endpoint(&id).await?;
        }
        Ok(Empty {})
    }

    pub(super) async fn drop_endpoint(&self, id: &EndpointId) -> Result<()> {
        self.networks.unplug(id).await?;
        self.kept.change(|state| {
            state.endpoints.remove(id);
        })
    }

    pub(super) async fn join(&self, request: JoinRequest) -> Result<Joined> {
        let id: EndpointId = request.endpoint_id.parse()?;
        let plugged = self.plugged(&id).await?;
        let connected = self.kept.change(|state| {
            let connected = state.is_connected(&request.sandbox, &id);
            if let Some(endpoint) = state.endpoints.get_mut(&id) {
                endpoint.sandbox = Some(request.sandbox.clone());
            }
            connected
        })?;
        // A second way to the same place is an error to the engine. Where the first goes, the attachment's own stands: its
        // routes have a metric.
        let mut static_routes = Vec::new();
        if !connected {
            let router = format_args!("{ROUTER_ADDRESS}/32").to_string();
            static_routes.push(StaticRoute::connected(router));
            let system = system_range().map(|range| StaticRoute::via(range, ROUTER_ADDRESS));
            static_routes.extend(system);
        }
        Ok(Joined {
            interface_name: InterfaceName {
                src_name: plugged.link,
                dst_prefix: PREFIX,
            },
            static_routes,
        })
    }

    pub(super) fn leave(&self, request: EndpointRef) -> Result<Empty> {
        if let Ok(id) = request.endpoint_id.parse::<EndpointId>() {
            self.kept.change(|state| {
                if let Some(endpoint) = state.endpoints.get_mut(&id) {
                    endpoint.sandbox = None;
                }
            })?;
        }
        Ok(Empty {})
    }

    /// The link of an endpoint that was made.
    async fn plugged(&self, id: &EndpointId) -> Result<Plugged> {
        let endpoint = self.kept.state().endpoints.get(id).cloned();
        let Some(endpoint) = endpoint else {
            return Err(
                Error::new(ErrorKind::NotFound, format!("there is no endpoint {id}"))
                    .with_hint("disconnect the container from the network, and connect it again"),
            );
        };
        let plug = Plug::new(id.clone(), endpoint.addr).mac(endpoint.mac);
        self.networks.plug(&plug).await
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{text:?} is no Ethernet address"),
            )
        })
}

fn write_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_read_as_they_are_written() {
        let mac = [2, 0xa2, 10, 1, 0, 5];
        assert_eq!(write_mac(mac), "02:a2:0a:01:00:05");
        assert_eq!(parse_mac("02:A2:0a:01:00:05").unwrap(), mac);
        for bad in [
            "",
            "02:a2:0a:01:00",
            "02:a2:0a:01:00:05:06",
            "02:a2:0a:01:00:xx",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}
