//! The messages of Docker's network and IPAM plugins, as engines send them.
//!
//! From libnetwork's `drivers/remote/api` and `ipams/remote/api`
//! (<https://github.com/moby/libnetwork/blob/master/docs/remote.md> and `ipam.md` beside it). Every message is JSON in the
//! body of a POST to `/METHOD`; what a message has and we don't read is passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What plugins say their answers are.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// The address space that the engine's own IPAM hands out.
pub(crate) const ENGINES_OWN_SPACE: &str = "LocalDefault";

/// What [`RequestAddress`] has among its options for the address of a gateway.
const ADDRESS_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// The option of a network that is not to be connected with the outside.
const INTERNAL: &str = "com.docker.network.internal";

/// `Plugin.Activate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Activation {
    pub(crate) implements: [&'static str; 2],
}

/// `NetworkDriver.GetCapabilities`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DriverCapabilities {
    pub(crate) scope: &'static str,
}

/// `IpamDriver.GetCapabilities`.
#[derive(Debug, Serialize)]
pub(crate) struct IpamCapabilities {
    #[serde(rename = "RequiresMACAddress")]
    pub(crate) requires_mac_address: bool,
    #[serde(rename = "RequiresRequestReplay")]
    pub(crate) requires_request_replay: bool,
}

/// `IpamDriver.GetDefaultAddressSpaces`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressSpaces {
    pub(crate) local_default_address_space: &'static str,
    pub(crate) global_default_address_space: &'static str,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PoolRequest {
    pub(crate) pool: String,
    pub(crate) sub_pool: String,
    pub(crate) v6: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    #[serde(rename = "Pool")]
    pub(crate) pool: String,
    #[serde(rename = "Data")]
    pub(crate) data: BTreeMap<String, String>,
}

/// `IpamDriver.RequestAddress`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AddressRequest {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    #[serde(rename = "Address")]
    pub(crate) address: String,
    #[serde(rename = "Options")]
    options: Option<BTreeMap<String, Value>>,
}

impl AddressRequest {
    /// For a gateway, and not for a container.
    pub(crate) fn is_gateway(&self) -> bool {
        self.options
            .as_ref()
            .and_then(|options| options.get(ADDRESS_TYPE))
            .is_some_and(|kind| kind == GATEWAY)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Address {
    pub(crate) address: String,
    pub(crate) data: BTreeMap<String, String>,
}

/// `IpamDriver.ReleaseAddress`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressRelease {
    pub(crate) address: String,
}

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkCreation {
    #[serde(rename = "NetworkID")]
    pub(crate) network_id: String,
    #[serde(rename = "Options")]
    options: Option<BTreeMap<String, Value>>,
    #[serde(rename = "IPv4Data")]
    pub(crate) ipv4: Option<Vec<IpamData>>,
    #[serde(rename = "IPv6Data")]
    pub(crate) ipv6: Option<Vec<IpamData>>,
}

impl NetworkCreation {
    pub(crate) fn is_internal(&self) -> bool {
        self.options
            .as_ref()
            .and_then(|options| options.get(INTERNAL))
            .is_some_and(|value| value == true)
    }
}

/// What IPAM gave a network.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamData {
    pub(crate) address_space: String,
    pub(crate) pool: String,
    pub(crate) aux_addresses: Option<BTreeMap<String, String>>,
}

/// `NetworkDriver.DeleteNetwork`.
#[derive(Debug, Deserialize)]
pub(crate) struct NetworkRef {
    #[serde(rename = "NetworkID")]
    pub(crate) network_id: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Deserialize)]
pub(crate) struct EndpointCreation {
    #[serde(rename = "NetworkID")]
    pub(crate) network_id: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    #[serde(rename = "Interface")]
    pub(crate) interface: Option<Interface>,
}

/// What an endpoint has: asked for, or filled in by the driver, never both.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Interface {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) address: String,
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    pub(crate) address_ipv6: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mac_address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointCreated {
    pub(crate) interface: Interface,
}

/// `NetworkDriver.DeleteEndpoint`, `EndpointOperInfo`, `Leave`, and what begins like them.
#[derive(Debug, Deserialize)]
pub(crate) struct EndpointRef {
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointInfo {
    pub(crate) value: BTreeMap<String, String>,
}

/// `NetworkDriver.Join`.
#[derive(Debug, Deserialize)]
pub(crate) struct JoinRequest {
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    #[serde(rename = "SandboxKey", default)]
    pub(crate) sandbox: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Joined {
    pub(crate) interface_name: InterfaceName,
    pub(crate) static_routes: Vec<StaticRoute>,
}

/// The link that stands in the host's namespace, and what it is called in the container: a number follows the prefix.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InterfaceName {
    pub(crate) src_name: String,
    pub(crate) dst_prefix: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StaticRoute {
    destination: String,
    route_type: u8,
    next_hop: String,
}

impl StaticRoute {
    /// By the endpoint's own link.
    pub(crate) fn connected(destination: impl ToString) -> Self {
        Self {
            destination: destination.to_string(),
            route_type: 1,
            next_hop: String::new(),
        }
    }

    /// By the link that leads to this router.
    pub(crate) fn via(destination: impl ToString, router: impl ToString) -> Self {
        Self {
            destination: destination.to_string(),
            route_type: 0,
            next_hop: router.to_string(),
        }
    }
}

/// A refusal: the network protocol reads `Err`, the one for addresses `Error`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Refusal {
    err: String,
    error: String,
}

impl Refusal {
    pub(crate) fn new(message: String) -> Self {
        Self {
            err: message.clone(),
            error: message,
        }
    }
}

/// An answer without content.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Empty {}
