//! WireGuard in this process.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use tokio::sync::mpsc;

use super::engine::{Engine, stopped};
use super::outbound::MAX_PACKET;
use super::side::QUEUE;
use super::socket::{Socket, share};
use super::{
    PeerConfig, PeerStatus, PrivateKey, PublicKey, SideChannel, Tunnel, device, inbound, outbound,
};

/// What WireGuard adds to a packet, in bytes, over IPv6 at most.
const OVERHEAD: u16 = 80;
/// Threads each way at most.
const MAX_THREADS: usize = 16;
/// What every IPv4 host must take, in bytes (RFC 791).
const LEAST_MTU: u16 = 576;

/// The MTU of a tunnel over an underlay with this MTU, in bytes: 1,420 over 1,500.
#[must_use]
pub fn mtu_over(underlay: u16) -> u16 {
    underlay
        .saturating_sub(OVERHEAD)
        .clamp(LEAST_MTU, MAX_PACKET as u16)
}

/// What a [`UserTunnel`] is made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct UserTunnelConfig {
    /// This node's key; the caller decides how long it lives.
    pub private_key: PrivateKey,
    /// The UDP socket on the underlay, bound, in whatever namespace it was opened. Both address families.
    pub socket: UdpSocket,
    /// Where the TUN device is.
    pub namespace: Namespace,
    /// The TUN device's name, at most 15 bytes. `wg0` unless told.
    pub device: String,
    /// The TUN device's MTU, in bytes, 576 to 2,048. 1,420 unless told.
    pub mtu: u16,
    /// The namespace that the socket is of, and how many threads carry packets each way; one unless told.
    pub threads: Option<(Namespace, usize)>,
}

impl UserTunnelConfig {
    /// A tunnel whose device is `wg0` in this namespace.
    #[must_use]
    pub fn new(private_key: PrivateKey, socket: UdpSocket, namespace: Namespace) -> Self {
        Self {
            private_key,
            socket,
            namespace,
            device: "wg0".to_owned(),
            mtu: mtu_over(1500),
            threads: None,
        }
    }

    /// With several threads each way, 1 to 16: connections spread over those that send, and peers over those that receive.
    /// Each has a queue of the device, and a socket on the port, in the namespace of the one that was given.
    ///
    /// A device that an earlier process made for one thread has only one queue, until it is made anew.
    #[must_use]
    pub fn threads(mut self, underlay: Namespace, count: usize) -> Self {
        self.threads = Some((underlay, count.clamp(1, MAX_THREADS)));
        self
    }

    /// With as many threads each way as half of this machine's cores, 1 to 4.
    #[must_use]
    pub fn spread(self, underlay: Namespace) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        self.threads(underlay, (cores / 2).min(4))
    }

    /// With another MTU.
    #[must_use]
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// With another name for the device.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = name.into();
        self
    }
}

/// WireGuard in this process: one thread or more each way between a TUN device and a UDP port, and one for what is due. Dropping it stops it.
pub struct UserTunnel {
    engine: Arc<Engine>,
    side: SideChannel,
    threads: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

impl UserTunnel {
    /// Makes the device, or opens the one that an earlier process left, and starts.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another process has the device open, [`ErrorKind::PermissionDenied`] without
    /// CAP_NET_ADMIN, [`ErrorKind::Unsupported`] without TUN devices, [`ErrorKind::InvalidInput`] for an MTU out of
    /// range.
    pub fn launch(config: UserTunnelConfig) -> Result<Self> {
        if !(LEAST_MTU..=MAX_PACKET as u16).contains(&config.mtu) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a tunnel's MTU is 576 to 2,048, not {}", config.mtu),
            ));
        }
        let threads = config.threads.as_ref().map_or(1, |(_, count)| *count);
        let device = device::open(&config.namespace, &config.device, config.mtu, threads)?;
        let queues = device.queues.len();
        let sockets = match &config.threads {
            Some((underlay, _)) => share(config.socket, underlay, queues).map_err(no_more)?,
            None => vec![config.socket],
        };
        let sockets = sockets.into_iter().map(Socket::new).collect();
        let engine = Arc::new(Engine::new(&config.private_key, sockets, config.mtu)?);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let tunnel = Self {
            side: SideChannel::new(Arc::clone(&engine), receiver),
            threads: Mutex::default(),
            engine,
        };
        let device = Arc::new(device);
        for queue in 0..queues {
            let (engine, opened) = (Arc::clone(&tunnel.engine), Arc::clone(&device));
            tunnel.spawn(&format!("arpanet-out-{queue}"), move || {
                outbound::run(&engine, &opened.queues[queue], &engine.sockets[queue])
            })?;
            let (engine, opened) = (Arc::clone(&tunnel.engine), Arc::clone(&device));
            let side = sender.clone();
            tunnel.spawn(&format!("arpanet-in-{queue}"), move || {
                inbound::run(
                    &engine,
                    &opened.queues[queue],
                    &engine.sockets[queue],
                    &side,
                )
            })?;
        }
        let engine = Arc::clone(&tunnel.engine);
        tunnel.spawn("arpanet-tunnel", move || {
            engine.run_timers();
            Ok(())
        })?;
        Ok(tunnel)
    }

    /// The part of the UDP port that is not WireGuard's. Every call returns the same channel.
    #[must_use]
    pub fn side_channel(&self) -> SideChannel {
        self.side.clone()
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                work().inspect_err(|error| tracing::error!(%error, "the tunnel has broken"))
            })
            .map_err(|error| {
                Error::new(ErrorKind::Exhausted, "no thread can be made for the tunnel")
                    .with_source(error)
            })?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    fn running(&self) -> Result<&Engine> {
        if self.engine.is_stopped() {
            return Err(stopped());
        }
        Ok(&self.engine)
    }
}

fn no_more(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        "the tunnel's UDP port can't be shared among its threads",
    )
    .operation("launch")
    .backend("wireguard")
    .with_source(error)
}

impl Tunnel for UserTunnel {
    fn set_peer(&self, peer: PeerConfig) -> Result<()> {
        self.running()?.set_peer(peer);
        Ok(())
    }

    fn remove_peer(&self, public_key: &PublicKey) -> Result<()> {
        self.running()?.remove_peer(public_key);
        Ok(())
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.running().map(Engine::peers).unwrap_or_default()
    }

    fn nudge(&self, public_key: &PublicKey) -> Result<()> {
        let engine = self.running()?;
        if let Some(peer) = engine.peer(public_key) {
            engine.handshake(&peer, &mut peer.lock(), Instant::now());
        }
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        self.engine.stop();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut broken = None;
        for thread in threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    broken = Some(
                        Error::new(ErrorKind::Internal, "the tunnel had lost its device")
                            .with_source(error),
                    );
                }
                Err(_) => {
                    broken = Some(Error::new(
                        ErrorKind::Internal,
                        "a thread of the tunnel had panicked",
                    ));
                }
            }
        }
        broken.map_or(Ok(()), Err)
    }
}

impl Drop for UserTunnel {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the tunnel did not end well");
        }
    }
}

impl fmt::Debug for UserTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserTunnel")
            .field("peers", &self.engine.peers())
            .field("dropped", &self.engine.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::mtu_over;

    #[test]
    fn the_mtu_follows_the_underlay() {
        assert_eq!(mtu_over(1500), 1420);
        assert_eq!(mtu_over(1450), 1370);
        assert_eq!(mtu_over(9000), 2048);
        assert_eq!(mtu_over(0), 576);
    }
}
