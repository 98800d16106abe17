//! What nodes tell each other through discovery's records.

use std::net::Ipv4Addr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{AppNet, ContainerName, Error, ErrorKind, Result};

/// The overlay's announcement, as the overlay wrote it.
pub(super) const ANNOUNCEMENT: &str = "overlay";

/// A [`NodeRecord`].
pub(super) const NODE: &str = "node";

/// Before every claim's key.
pub(super) const CLAIM: &str = "claim/";

/// Before every network's key.
pub(super) const NETWORK: &str = "network/";

/// Before the key of whether a node is drained.
pub(super) const DRAIN: &str = "drain/";

/// Before the key of a network's ranges.
pub(super) const RANGE: &str = "range/";

/// Before the key of a network that a node wants addresses of.
pub(super) const WANT: &str = "want/";

/// A node about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) version: String,
    /// What its discovery is: that of all nodes has to be the same.
    #[serde(default)]
    pub(super) discovery: Option<String>,
    /// What its overlay is: that of all nodes has to be the same.
    #[serde(default)]
    pub(super) overlay: Option<String>,
}

/// The key of a claim: one for each address and container.
pub(super) fn claim_key(ip: Ipv4Addr, container: &ContainerName) -> String {
    format!("{CLAIM}{ip}/{container}")
}

/// The key of a node's ranges of a network.
pub(super) fn range_key(net: AppNet) -> String {
    format!("{RANGE}{net}")
}

/// The key of a node's want of addresses of a network.
pub(super) fn want_key(net: AppNet) -> String {
    format!("{WANT}{net}")
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|source| {
            Error::new(ErrorKind::Internal, "a record can't be written").with_source(source)
        })
}

/// The moment after the last that was heard of. Where a member says that time is over, it stays so: to begin anew would make
/// what is said from then on older than everything else.
pub(super) fn later(last: Option<u64>) -> u64 {
    last.unwrap_or(0).saturating_add(1)
}

/// What can't be read was written by a newer version, or by a broken one: it is passed over, never guessed at.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
