//! WireGuard in the kernel.

mod book;
mod device;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use arpanet_core::{ErrorKind, Result};
use arpanet_netlink::{DeviceChange, Namespace, WireGuard, WireGuardPeer};

use self::book::{Book, session_age};
pub use self::device::kernel_has_wireguard;
pub(crate) use self::device::{is_kernel_device, remove_kernel_device};
use super::engine::stopped;
use super::{PeerConfig, PeerStatus, PrivateKey, PublicKey, Tunnel};

/// What a [`KernelTunnel`] is made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct KernelTunnelConfig {
    /// Where its UDP socket is.
    pub host: Namespace,
    /// Where the device is.
    pub namespace: Namespace,
    /// Whose it is: a device that an earlier process left goes on only for the same owner. At most 255 bytes.
    pub owner: String,
    /// The UDP port on the underlay.
    pub port: u16,
    /// What its packets on the underlay are marked with (SO_MARK).
    pub mark: u32,
    /// The device's name, at most 15 bytes. `wg0` unless told.
    pub device: String,
    /// The device's MTU, in bytes. 1,420 unless told.
    pub mtu: u16,
}

impl KernelTunnelConfig {
    /// A tunnel whose device is `wg0` in that namespace, and whose socket is in the host's.
    #[must_use]
    pub fn new(host: Namespace, namespace: Namespace, owner: impl Into<String>, port: u16) -> Self {
        Self {
            host,
            namespace,
            owner: owner.into(),
            port,
            mark: 0,
            device: "wg0".to_owned(),
            mtu: super::mtu_over(1500),
        }
    }

    /// With packets on the underlay marked so.
    #[must_use]
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = mark;
        self
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

/// WireGuard in the kernel. Dropping it ends nothing: the device carries on, with its peers and their sessions, and the next
/// launch goes on with it.
pub struct KernelTunnel {
    wireguard: WireGuard,
    device: String,
    public_key: PublicKey,
    /// `None` once it is stopped.
    book: Mutex<Option<Book>>,
}

impl KernelTunnel {
    /// Makes the device, or goes on with the one that an earlier process left for the same owner, with its key: then not a
    /// packet is lost. A link of another kind or owner by that name is replaced.
    ///
    /// # Errors
    /// [`Unsupported`](arpanet_core::ErrorKind::Unsupported) where the kernel has no WireGuard,
    /// [`Conflict`](arpanet_core::ErrorKind::Conflict) if the port is in use.
    pub async fn launch(config: KernelTunnelConfig) -> Result<Self> {
        let (wireguard, found) = device::bring_up(&config).await?;
        let mut book = Book::new(found.key, PrivateKey::generate()?.public_key());
        book.read(&found.device);
        Ok(Self {
            wireguard,
            device: config.device,
            public_key: found.key,
            book: Mutex::new(Some(book)),
        })
    }

    /// Its key, as peers have to know it.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn book(&self) -> MutexGuard<'_, Option<Book>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something into the book, and tells the kernel what follows from it.
    fn tell(&self, write: impl FnOnce(&mut Book) -> Option<DeviceChange>) -> Result<()> {
        let mut slot = self.book();
        let book = slot.as_mut().ok_or_else(stopped)?;
        let Some(change) = write(book) else {
            return Ok(());
        };
        self.wireguard
            .change(&self.device, &change)
            .inspect_err(|_| {
                // The book says what was to be, of which the kernel may have any part.
                if let Ok(device) = self.wireguard.device(&self.device) {
                    book.read(&device);
                }
            })
    }

    fn seen(&self) -> Vec<WireGuardPeer> {
        match self.wireguard.device(&self.device) {
            Ok(device) => device.peers,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say how peers are");
                Vec::new()
            }
        }
    }
}

impl Tunnel for KernelTunnel {
    fn set_peer(&self, peer: PeerConfig) -> Result<()> {
        self.tell(|book| book.want(&peer, Instant::now()))
    }

    fn remove_peer(&self, public_key: &PublicKey) -> Result<()> {
        self.tell(|book| book.unwant(public_key))
    }

    fn peers(&self) -> Vec<PeerStatus> {
        if self.book().is_none() {
            return Vec::new();
        }
        let now = SystemTime::now();
        let mut peers: Vec<PeerStatus> = self
            .seen()
            .into_iter()
            .map(|peer| PeerStatus {
                public_key: PublicKey::from_bytes(peer.public_key),
                endpoint: peer.endpoint,
                last_handshake: session_age(peer.last_handshake, now),
                rx_bytes: peer.rx_bytes,
                tx_bytes: peer.tx_bytes,
            })
            .collect();
        peers.sort_by_key(|peer| peer.public_key);
        peers
    }

    fn nudge(&self, public_key: &PublicKey) -> Result<()> {
        let seen = self.seen();
        let Some(peer) = seen
            .iter()
            .find(|peer| peer.public_key == *public_key.as_bytes())
        else {
            return self.tell(|_| None);
        };
        let has_session = session_age(peer.last_handshake, SystemTime::now()).is_some();
        self.tell(|book| book.nudge(peer, has_session, Instant::now()))
    }

    fn stop(&self) -> Result<()> {
        let is_first = self.book().take().is_some();
        if is_first {
            let nobody = DeviceChange::new().replace_peers();
            match self.wireguard.change(&self.device, &nobody) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KernelTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelTunnel")
            .field("device", &self.device)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}
