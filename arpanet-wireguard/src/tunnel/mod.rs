//! The encrypted tunnel: peers, their allowed addresses, handshakes.

mod device;
mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod inbound;
mod index;
mod kernel;
mod key;
mod outbound;
mod peer;
mod plain;
mod protocol;
mod recording;
mod routes;
mod segments;
mod side;
mod socket;
mod user;
mod writer;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::Result;
use ipnet::Ipv4Net;

pub use kernel::{KernelTunnel, KernelTunnelConfig, kernel_has_wireguard};
pub(crate) use kernel::{is_kernel_device, remove_kernel_device};
pub use key::{PrivateKey, PublicKey};
pub use plain::PlainPort;
pub use recording::{Call, RecordingTunnel};
pub use side::{SIDE_CHANNEL_MAGIC, SideChannel};
pub use user::{UserTunnel, UserTunnelConfig, mtu_over};

/// Makes the device that this configuration asks for, and leaves it to whoever opens it.
pub(crate) fn make_device(config: &UserTunnelConfig) -> Result<()> {
    device::open(&config.namespace, &config.device, config.mtu, 1).map(drop)
}

/// A peer as it is wanted: the whole truth about it, each time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Who it is.
    pub public_key: PublicKey,
    /// Where it is on the underlay. `None` leaves what is known, or waits until it calls.
    pub endpoint: Option<SocketAddr>,
    /// What is sent to it, and what it may send from. An address that another peer had moves to this one.
    pub allowed_ips: Vec<Ipv4Net>,
}

impl PeerConfig {
    /// A peer.
    #[must_use]
    pub const fn new(
        public_key: PublicKey,
        endpoint: Option<SocketAddr>,
        allowed_ips: Vec<Ipv4Net>,
    ) -> Self {
        Self {
            public_key,
            endpoint,
            allowed_ips,
        }
    }
}

/// How a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who it is.
    pub public_key: PublicKey,
    /// Where the last authenticated packet came from, or where it was said to be.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the session in use was agreed on. `None` without a session.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

impl PeerStatus {
    /// A peer of which nothing is known but who it is.
    #[must_use]
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            endpoint: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }
}

/// An encrypted tunnel to a set of peers. No call waits for the network.
pub trait Tunnel: fmt::Debug + Send + Sync + 'static {
    /// Wants this peer, so. A second call replaces its allowed addresses and, where one is given, its endpoint; the
    /// session goes on.
    ///
    /// # Errors
    /// [`Unavailable`](arpanet_core::ErrorKind::Unavailable) after [`stop`](Self::stop).
    fn set_peer(&self, peer: PeerConfig) -> Result<()>;

    /// Wants this peer no longer; its session ends. A second call does nothing.
    ///
    /// # Errors
    /// As [`set_peer`](Self::set_peer).
    fn remove_peer(&self, public_key: &PublicKey) -> Result<()>;

    /// All peers, ordered by key. None after [`stop`](Self::stop).
    fn peers(&self) -> Vec<PeerStatus>;

    /// Begins a handshake now, not at the next retry: a sign of life was seen. Ignores unknown peers, and
    /// does nothing while one has just begun.
    ///
    /// # Errors
    /// As [`set_peer`](Self::set_peer).
    fn nudge(&self, public_key: &PublicKey) -> Result<()>;

    /// Ends the tunnel; its device stays for the next start. A second call does nothing.
    ///
    /// # Errors
    /// [`Internal`](arpanet_core::ErrorKind::Internal) if a part of the tunnel had broken before.
    fn stop(&self) -> Result<()>;
}
