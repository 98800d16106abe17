//! What a router says of itself: `GET /report`, as weave 2.8 and 2.9 answer it. Only what is used here is read.
//!
//! Lists that are empty are `null`, and no list has an order.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use crate::PeerName;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Report {
    pub(crate) ready: bool,
    pub(crate) version: String,
    pub(crate) router: Router,
}

/// The part of it about the router.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Router {
    pub(crate) protocol: String,
    pub(crate) encryption: bool,
    pub(crate) name: String,
    pub(crate) nick_name: String,
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) peers: Vec<Peer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) unicast_routes: Vec<UnicastRoute>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) connections: Vec<Connection>,
    /// How many connections have ended.
    pub(crate) termination_count: u64,
    /// Where it was told to connect to, as it was told.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) targets: Vec<String>,
}

/// A router that this one knows of, itself among them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) nick_name: String,
    /// Random, another one at each start: it takes all 64 bits.
    #[serde(rename = "UID")]
    pub(crate) uid: u64,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) connections: Vec<PeerConnection>,
}

/// A connection between two routers, as one of them tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PeerConnection {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) established: bool,
}

/// A router that packets can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UnicastRoute {
    pub(crate) dest: String,
}

/// A connection of this router, or its attempt at one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Connection {
    pub(crate) address: String,
    pub(crate) outbound: bool,
    pub(crate) state: ConnectionState,
    /// Why it is as it is, in the router's words.
    pub(crate) info: String,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConnectionState {
    /// Both sides have agreed. Packets do not flow before there is a route, about a second later.
    Established,
    /// Agreed here.
    Pending,
    /// Dialling: for as long as the system tries, where nothing comes back.
    Connecting,
    /// Failed, and about to dial again.
    Retrying,
    /// Failed, and waiting to dial again, or for good.
    Failed,
    /// One of another version.
    #[serde(other)]
    Unknown,
}

impl Router {
    /// Its name; `None` where weave was given one that is no Ethernet address.
    pub(crate) fn peer_name(&self) -> Option<PeerName> {
        self.name.parse().ok()
    }

    /// Whether packets can be sent to that router.
    pub(crate) fn has_route(&self, name: PeerName) -> bool {
        let name = name.to_string();
        self.unicast_routes.iter().any(|route| route.dest == name)
    }

    /// What is known of a router of this name.
    pub(crate) fn peer(&self, name: PeerName) -> Option<&Peer> {
        let name = name.to_string();
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// This router's own connection with one of this name.
    pub(crate) fn connection_with(&self, name: PeerName) -> Option<&PeerConnection> {
        let name = name.to_string();
        let me = self.peers.iter().find(|peer| peer.name == self.name)?;
        me.connections.iter().find(|other| other.name == name)
    }

    /// This router's attempt at a connection to an endpoint.
    pub(crate) fn attempt_at(&self, endpoint: SocketAddr) -> Option<&Connection> {
        let endpoint = endpoint.to_string();
        self.connections
            .iter()
            .find(|connection| connection.outbound && connection.address == endpoint)
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
