//! WireGuard in the kernel: its devices, and what they are set to.

mod attributes;
mod exchange;
mod message;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use arpanet_core::{ErrorKind, Result};
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use zeroize::Zeroizing;

use self::exchange::Connection;
use crate::error::{own, system};
use crate::link::check_name;
use crate::{Namespace, Netlink};

/// How often a device is read again that was changed meanwhile.
const ATTEMPTS: usize = 8;

/// A private key. Never shown; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct WireGuardSecret(Zeroizing<[u8; 32]>);

impl WireGuardSecret {
    /// From its bytes, which the caller wipes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WireGuardSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireGuardSecret(secret)")
    }
}

/// A device as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireGuardDevice {
    /// Its key; `None` before it was given one.
    pub private_key: Option<WireGuardSecret>,
    /// The key that belongs to it.
    pub public_key: Option<[u8; 32]>,
    /// Its UDP port, in the namespace in which the device was made. 0 before it was up.
    pub listen_port: u16,
    /// What its packets on the underlay are marked with; 0 for nothing.
    pub mark: u32,
    /// Its peers.
    pub peers: Vec<WireGuardPeer>,
}

/// A peer as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireGuardPeer {
    /// Who it is.
    pub public_key: [u8; 32],
    /// Where the last authenticated packet came from, or where it was said to be.
    pub endpoint: Option<SocketAddr>,
    /// How often it is sent something in any case, in seconds; 0 for never.
    pub keepalive: u16,
    /// When a session was last agreed on, by this machine's clock.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// What is sent to it, and what it may send from.
    pub allowed_ips: Vec<IpNet>,
}

impl WireGuardPeer {
    /// A peer of which nothing is known but who it is.
    #[must_use]
    pub const fn new(public_key: [u8; 32]) -> Self {
        Self {
            public_key,
            endpoint: None,
            keepalive: 0,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            allowed_ips: Vec::new(),
        }
    }
}

/// A change to a device: what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChange {
    private_key: Option<WireGuardSecret>,
    listen_port: Option<u16>,
    mark: Option<u32>,
    replace_peers: bool,
    peers: Vec<PeerChange>,
}

impl DeviceChange {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another key. Sessions end; a peer that has this key is removed.
    #[must_use]
    pub fn private_key(mut self, key: WireGuardSecret) -> Self {
        self.private_key = Some(key);
        self
    }

    /// Another UDP port.
    #[must_use]
    pub const fn listen_port(mut self, port: u16) -> Self {
        self.listen_port = Some(port);
        self
    }

    /// Packets on the underlay marked with this (SO_MARK).
    #[must_use]
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Without the peers that were there before.
    #[must_use]
    pub const fn replace_peers(mut self) -> Self {
        self.replace_peers = true;
        self
    }

    /// And this change to a peer, after those that were said before it.
    #[must_use]
    pub fn peer(mut self, peer: PeerChange) -> Self {
        self.peers.push(peer);
        self
    }

    /// The changes to peers, in the order in which they are made.
    #[must_use]
    pub fn peers(&self) -> &[PeerChange] {
        &self.peers
    }
}

/// A change to a peer: what is not said stays as it is. One that is not there is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    public_key: [u8; 32],
    remove: bool,
    update_only: bool,
    replace_allowed_ips: bool,
    endpoint: Option<SocketAddr>,
    keepalive: Option<u16>,
    allowed_ips: Vec<IpNet>,
}

impl PeerChange {
    /// To the peer with this key; nothing yet.
    #[must_use]
    pub const fn new(public_key: [u8; 32]) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            replace_allowed_ips: false,
            endpoint: None,
            keepalive: None,
            allowed_ips: Vec::new(),
        }
    }

    /// The peer goes, with its session and what waits for one.
    #[must_use]
    pub const fn remove(mut self) -> Self {
        self.remove = true;
        self
    }

    /// None is made.
    #[must_use]
    pub const fn update_only(mut self) -> Self {
        self.update_only = true;
        self
    }

    /// Without the addresses that it had before. For a moment it has none of them.
    #[must_use]
    pub const fn replace_allowed_ips(mut self) -> Self {
        self.replace_allowed_ips = true;
        self
    }

    /// It is there on the underlay, until it is heard from elsewhere.
    #[must_use]
    pub const fn endpoint(mut self, endpoint: SocketAddr) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// It is sent something so often, in seconds, and at once if it was not before; 0 for never.
    #[must_use]
    pub const fn keepalive(mut self, seconds: u16) -> Self {
        self.keepalive = Some(seconds);
        self
    }

    /// It has these addresses too, which nobody else has from then on.
    #[must_use]
    pub fn allow(mut self, nets: impl IntoIterator<Item = IpNet>) -> Self {
        self.allowed_ips.extend(nets);
        self
    }

    /// Which peer it is about.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Whether the peer goes.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.remove
    }

    /// The addresses that it has too.
    #[must_use]
    pub fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed_ips
    }
}

/// The kernel's WireGuard devices in one namespace.
pub struct WireGuard {
    connection: Mutex<Connection>,
}

impl Namespace {
    /// Opens a connection to the kernel's WireGuard inside the namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the kernel has no WireGuard.
    pub fn wireguard(&self) -> Result<WireGuard> {
        let connection = self.run(|| Connection::open(message::FAMILY))?;
        let connection = connection.map_err(|error| {
            let message = "the kernel's WireGuard can't be opened";
            match error.raw_os_error() {
                Some(libc::ENOENT) => {
                    own("open", ErrorKind::Unsupported, message).with_source(error)
                }
                _ => system("open", message, error),
            }
        })?;
        Ok(WireGuard {
            connection: Mutex::new(connection),
        })
    }
}

impl WireGuard {
    /// A device, with its peers.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::Unsupported`] if it is of another kind,
    /// [`ErrorKind::Unavailable`] if it changes faster than it can be read.
    pub fn device(&self, link: &str) -> Result<WireGuardDevice> {
        let failed = |error| {
            let message = format!("the WireGuard device {link} can't be read");
            system("read a device", message, error)
        };
        for _ in 0..ATTEMPTS {
            let mut device = WireGuardDevice::default();
            let asked = self.with(|connection| {
                connection.dump(message::get(link), |part| {
                    message::read_part(part, &mut device)
                })
            });
            match asked {
                Ok(()) => return Ok(device),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let message = format!("the WireGuard device {link} changes faster than it can be read");
        Err(own("read a device", ErrorKind::Unavailable, message))
    }

    /// Changes a device. The kernel takes a large change in parts: when one fails, those before it were made.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::Unsupported`] if it is of another kind,
    /// [`ErrorKind::Conflict`] if the port is in use.
    pub fn change(&self, link: &str, change: &DeviceChange) -> Result<()> {
        for part in message::set(link, change) {
            self.with(|connection| connection.change(part))
                .map_err(|error| {
                    let message = format!("the WireGuard device {link} can't be changed");
                    system("change a device", message, error)
                })?;
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut connection)
    }
}

impl fmt::Debug for WireGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireGuard").finish_non_exhaustive()
    }
}

impl Netlink {
    /// Makes a WireGuard device in a namespace, down, without key or peers, whose UDP socket is in the namespace of this
    /// connection, also later. Not idempotent.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the kernel has no WireGuard, [`ErrorKind::AlreadyExists`] if the name is taken there,
    /// [`ErrorKind::InvalidInput`] for a name the kernel refuses.
    pub async fn add_wireguard(&self, name: &str, namespace: &Namespace) -> Result<()> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::NetNsFd(namespace.raw()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let made = self
            .change(RouteNetlinkMessage::NewLink(message), flags)
            .await;
        made.map_err(|error| {
            let message = format!("the WireGuard device {name} can't be made");
            system("add a link", message, error)
        })
    }
}
