//! What can be set, with its meaning and a sensible range.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The timings and bounds of gossip. The defaults are those that were measured: a dead node is noticed in about two
/// seconds, and a process that stalls for one is forgiven.
///
/// Durations are in whole milliseconds, so that a configuration file can't say what the protocol can't do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GossipConfig {
    /// Where others reach this node, where it differs from what they see. `None`: what they see.
    pub advertise: Option<SocketAddr>,
    /// One random member is probed this often. More than twice `probe_rtt_ms`.
    pub probe_period_ms: u32,
    /// How long a probe waits for a direct answer before others are asked to probe. Above the network's usual round trip.
    pub probe_rtt_ms: u32,
    /// How long a suspect may defend itself before it is down: the longest stall of a process that is forgiven.
    pub suspect_ms: u32,
    /// News about members are passed on this often.
    pub gossip_ms: u32,
    /// Known nodes that are not alive are called this often, three at a time.
    pub announce_ms: u32,
    /// The catalogue is compared with a random member's this often.
    pub sync_ms: u32,
    /// How long a starting node looks for somebody who fills its catalogue before it goes on alone.
    pub join_wait_ms: u32,
    /// How long a publication waits for living members to confirm it.
    pub publish_wait_ms: u32,
    /// How long an admission waits for every living member to agree. Longer than it takes to notice a death.
    pub admit_wait_ms: u32,
    /// How long a restarted node's records of before stay while it publishes them anew.
    pub inherit_ms: u32,
    /// How long removals are remembered. Nodes that were away longer compare whole states.
    pub tombstone_ms: u32,
    /// The cluster's key never turns over: something beside gossip depends on it and can't follow. The same on all nodes.
    pub keep_key: bool,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            probe_period_ms: 150,
            probe_rtt_ms: 60,
            suspect_ms: 1_500,
            gossip_ms: 100,
            announce_ms: 200,
            sync_ms: 30_000,
            join_wait_ms: 1_000,
            publish_wait_ms: 500,
            admit_wait_ms: 4_000,
            inherit_ms: 2_000,
            tombstone_ms: 3_600_000,
            keep_key: false,
        }
    }
}

impl GossipConfig {
    /// Reached by others at this endpoint.
    #[must_use]
    pub const fn advertise(mut self, endpoint: Option<SocketAddr>) -> Self {
        self.advertise = endpoint;
        self
    }

    /// Whether the cluster's key stays what it was founded with.
    #[must_use]
    pub const fn keep_key(mut self, keep: bool) -> Self {
        self.keep_key = keep;
        self
    }

    /// Checks that the timings fit each other.
    ///
    /// # Errors
    /// [`InvalidInput`](arpanet_core::ErrorKind::InvalidInput) names the setting.
    pub fn validate(&self) -> arpanet_core::Result<()> {
        let invalid = |message: &str| {
            Err(arpanet_core::Error::new(
                arpanet_core::ErrorKind::InvalidInput,
                message,
            ))
        };
        if self.probe_rtt_ms == 0 || self.probe_period_ms <= 2 * self.probe_rtt_ms {
            return invalid(
                "probe_period_ms must be more than twice probe_rtt_ms, which is above 0",
            );
        }
        if self.suspect_ms == 0
            || self.gossip_ms == 0
            || self.announce_ms == 0
            || self.sync_ms == 0
            || self.tombstone_ms == 0
        {
            return invalid(
                "suspect_ms, gossip_ms, announce_ms, sync_ms and tombstone_ms must be above 0",
            );
        }
        Ok(())
    }
}

/// Milliseconds of a setting as a duration.
pub(crate) const fn ms(setting: u32) -> Duration {
    Duration::from_millis(setting as u64)
}
