//! Docker's network driver and IPAM driver `arpanet`: networks of the cluster as networks of an engine.
//!
//! An engine finds a plugin by its socket, `/run/docker/plugins/arpanet.sock`, and the plugin's name by the socket's. What
//! it then asks, in the life of a container:
//!
//! | engine | here |
//! | --- | --- |
//! | `RequestPool`, `CreateNetwork` | the network is one of the cluster, and overlaps none |
//! | `RequestAddress` | the address is reserved for this host in the whole cluster |
//! | `CreateEndpoint` | a link is plugged: [`Overlay::plug`](arpanet_core::Overlay::plug) |
//! | `Join` | the engine moves the link into the container, with the ways to 169.254.1.1 and the planes |
//! | the container runs | the cluster attaches it, as its inspection says: the link is taken over, claimed, registered |
//! | `Leave`, `DeleteEndpoint`, `ReleaseAddress` | the link and the reservation go |
//! | has lost it all | the links go, and it has its networks again: [`Review`], [`Spread`] |
//!
//! A pool's id is its CIDR, so pools are nothing to be kept. There is no gateway to be told: an engine then connects the
//! container with its `docker_gwbridge` too, which has the default route, and published ports work as on any other network.
//! The container's routes into the overlay are those of its networks and of the planes, where it is refused at once; other
//! networks of the cluster it tries by the default route, and the host refuses them.

mod client;
mod endpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ipam;
mod journal;
mod keeper;
mod network;
mod networks;
mod protocol;
mod review;
mod server;
mod shape;
mod spread;
mod state;
mod version;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arpanet_core::{AppAddr, AppNet, EndpointId, Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::keeper::{KEEPER_VERSION, KeeperConfig, end, hello, keep};
pub use self::networks::Networks;
pub use self::review::Review;
pub use self::server::{DriverServer, SOCKET};
pub use self::shape::remove_networks;
pub use self::spread::Spread;
use self::state::Kept;

/// What the driver is called.
pub const DRIVER: &str = "arpanet";

/// An address that the engine asked for and did nothing with for this long is given back: the engine died in between, or
/// its answer was lost. What comes next follows within milliseconds.
const IDLE: Duration = Duration::from_secs(60);

/// The driver: what the engine asks, by [`answer`](Self::answer), done by the cluster.
#[derive(Debug)]
pub struct NetworkDriver {
    networks: Arc<dyn Networks>,
    kept: Kept,
}

/// An answer to the engine: always JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Whether the method is known at all.
    pub known: bool,
    /// The message.
    pub body: Vec<u8>,
}

/// An endpoint of the engine, as the driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownEndpoint {
    /// The engine's id.
    pub id: EndpointId,
    /// Its address.
    pub addr: AppAddr,
}

impl NetworkDriver {
    /// The driver, with what an earlier process kept in this file.
    ///
    /// # Errors
    /// When the file is there and can't be opened.
    pub fn open(state: impl Into<PathBuf>, networks: Arc<dyn Networks>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            networks,
            kept: Kept::open(state.into())?,
        }))
    }

    /// Brings the cluster to what was promised to the engine before this process: reserves the addresses again, removes
    /// links of endpoints that are gone. What can't be brought back is logged, and mended by the cluster's own
    /// reconciliation.
    async fn restore(&self) {
        self.drop_idle(now()).await;
        let state = self.kept.state().clone();
        for given in state.addresses.values() {
            let Some(net) = given.addr.net() else {
                continue;
            };
            if let Err(error) = self.networks.reserve(net, Some(given.addr.ip())).await {
                tracing::warn!(addr = %given.addr, %error, "an address is not this host's any more");
            }
        }
        match self.networks.plugged().await {
            Ok(plugged) => {
                for (endpoint, addr) in plugged {
                    if !state.endpoints.contains_key(&endpoint)
                        && let Err(error) = self.networks.unplug(&endpoint).await
                    {
                        tracing::warn!(%addr, %error, "a link that no container has can't be removed");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the links of endpoints can't be listed"),
        }
    }

    /// The networks that the engine of this host has.
    #[must_use]
    pub fn networks(&self) -> Vec<AppNet> {
        let state = self.kept.state();
        state.networks.values().map(|network| network.net).collect()
    }

    /// The endpoints that the engine of this host has.
    #[must_use]
    pub fn endpoints(&self) -> Vec<KnownEndpoint> {
        let state = self.kept.state();
        let known = |(id, endpoint): (&EndpointId, &state::Endpoint)| KnownEndpoint {
            id: id.clone(),
            addr: endpoint.addr,
        };
        state.endpoints.iter().map(known).collect()
    }

    /// Lets go of endpoints that the engine does not have any more: it lost them in a crash, or with its data. The first
    /// failure, after everything was tried.
    async fn let_go(&self, lost: &BTreeSet<EndpointId>) -> Result<()> {
        let state = self.kept.state().clone();
        let mut outcomes = Vec::new();
        for (id, endpoint) in &state.endpoints {
            if lost.contains(id) {
                outcomes.push(self.drop_endpoint(id).await);
                outcomes.push(self.release(endpoint.addr).await);
            }
        }
        outcomes.into_iter().collect()
    }

    /// Lets go of a network that the engine has lost, so that it can have it again. It stays one of the cluster's. A second
    /// call does nothing.
    ///
    /// # Errors
    /// When that can't be kept.
    pub async fn forget(&self, net: AppNet) -> Result<()> {
        self.kept
            .change(|state| state.networks.retain(|_, network| network.net != net))?;
        self.drop_idle(now()).await;
        Ok(())
    }

    /// Answers one request: its path without the slash, such as `NetworkDriver.Join`, and its body.
    pub async fn answer(&self, method: &str, body: &[u8]) -> Answer {
        if let Some(answer) = always(method) {
            return answer;
        }
        match self.dispatch(method, body).await {
            None => Answer::unknown(method),
            Some(Ok(body)) => Answer { known: true, body },
            Some(Err(error)) => {
                tracing::warn!(method, error = sentence(&error), "refused");
                refusal(&error)
            }
        }
    }

    async fn dispatch(&self, method: &str, body: &[u8]) -> Option<Result<Vec<u8>>> {
        Some(match method {
            "NetworkDriver.CreateNetwork" => {
                reply(body, async |it| self.create_network(it).await).await
            }
            "NetworkDriver.DeleteNetwork" => {
                reply(body, async |it| self.delete_network(it).await).await
            }
            "NetworkDriver.CreateEndpoint" => {
                reply(body, async |it| self.create_endpoint(it).await).await
            }
            "NetworkDriver.EndpointOperInfo" => {
                reply(body, async |it| self.endpoint_info(it)).await
            }
            "NetworkDriver.DeleteEndpoint" => {
                reply(body, async |it| self.delete_endpoint(it).await).await
            }
            "NetworkDriver.Join" => reply(body, async |it| self.join(it).await).await,
            "NetworkDriver.Leave" => reply(body, async |it| self.leave(it)).await,
            "IpamDriver.RequestPool" => reply(body, async |it| self.request_pool(it).await).await,
            "IpamDriver.RequestAddress" => {
                reply(body, async |it| self.request_address(it).await).await
            }
            "IpamDriver.ReleaseAddress" => {
                reply(body, async |it| self.release_address(it).await).await
            }
            _ => return None,
        })
    }
}

/// Reads a request, has it done, and writes the answer.
async fn reply<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    done: impl AsyncFnOnce(Q) -> Result<A>,
) -> Result<Vec<u8>> {
    let request = serde_json::from_slice(body).map_err(|source| {
        Error::new(
            ErrorKind::InvalidInput,
            "the engine's request can't be read",
        )
        .with_source(source)
    })?;
    encode(&done(request).await?)
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|source| {
        Error::new(ErrorKind::Internal, "an answer can't be written").with_source(source)
    })
}

/// The answer to what is the same whoever answers: what the driver is, and what it has nothing to do for.
fn always(method: &str) -> Option<Answer> {
    let body = match method {
        "Plugin.Activate" => encode(&protocol::Activation {
            implements: ["NetworkDriver", "IpamDriver"],
        }),
        "NetworkDriver.GetCapabilities" => encode(&protocol::DriverCapabilities { scope: "local" }),
        "NetworkDriver.ProgramExternalConnectivity"
        | "NetworkDriver.RevokeExternalConnectivity"
        | "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "IpamDriver.ReleasePool" => encode(&protocol::Empty {}),
        "IpamDriver.GetCapabilities" => encode(&protocol::IpamCapabilities {
            requires_mac_address: false,
            requires_request_replay: false,
        }),
        "IpamDriver.GetDefaultAddressSpaces" => encode(&protocol::AddressSpaces {
            local_default_address_space: "ArpanetLocal",
            global_default_address_space: "ArpanetGlobal",
        }),
        _ => return None,
    };
    Some(body.into())
}

fn refusal(error: &Error) -> Answer {
    Answer {
        known: true,
        body: encode(&protocol::Refusal::new(sentence(error))).unwrap_or_default(),
    }
}

impl Answer {
    fn unknown(method: &str) -> Self {
        let error = Error::new(
            ErrorKind::Unsupported,
            format!("the arpanet driver knows no method {method}"),
        );
        Self {
            known: false,
            ..refusal(&error)
        }
    }
}

impl From<Result<Vec<u8>>> for Answer {
    fn from(body: Result<Vec<u8>>) -> Self {
        match body {
            Ok(body) => Self { known: true, body },
            Err(error) => refusal(&error),
        }
    }
}

/// All that is known of a failure, in the one line that the engine passes on.
fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match error.hint() {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
