//! The messages of the kernel's WireGuard, as include/uapi/linux/wireguard.h says what they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::attributes::{Writer, array, attributes};
use super::{DeviceChange, PeerChange, WireGuardDevice, WireGuardPeer, WireGuardSecret};

/// The family's name, and the version that is spoken.
pub(super) const FAMILY: &str = "wireguard";
const VERSION: u8 = 1;
/// `WG_CMD_GET_DEVICE`, `WG_CMD_SET_DEVICE`.
const GET: u8 = 0;
const SET: u8 = 1;

/// A request is told in parts of about this many bytes. A list of peers can't have more than 65,535.
pub(super) const LARGEST: usize = 16 << 10;
/// The most addresses of one peer in one part.
const ADDRESSES: usize = 256;

/// `WGDEVICE_A_*`.
mod device {
    pub(super) const NAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const FLAGS: u16 = 5;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const MARK: u16 = 7;
    pub(super) const PEERS: u16 = 8;
    pub(super) const REPLACE_PEERS: u32 = 1;
}

/// `WGPEER_A_*`.
mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const KEEPALIVE: u16 = 5;
    pub(super) const LAST_HANDSHAKE: u16 = 6;
    pub(super) const RX_BYTES: u16 = 7;
    pub(super) const TX_BYTES: u16 = 8;
    pub(super) const ALLOWED_IPS: u16 = 9;
    pub(super) const REMOVE: u32 = 1;
    pub(super) const REPLACE_ALLOWED_IPS: u32 = 2;
    pub(super) const UPDATE_ONLY: u32 = 4;
}

/// `WGALLOWEDIP_A_*`.
mod allowed_ip {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const MASK: u16 = 3;
}

const IPV4: u16 = libc::AF_INET as u16;
const IPV6: u16 = libc::AF_INET6 as u16;

fn begin(command: u8) -> Writer {
    let mut writer = Writer::new();
    // struct genlmsghdr
    writer.raw(&[command, VERSION, 0, 0]);
    writer
}

/// Asks for all about a device.
pub(super) fn get(link: &str) -> Writer {
    let mut writer = begin(GET);
    writer.text(device::NAME, link);
    writer
}

/// A change, in as many parts as it takes: each is carried out as a whole.
pub(super) fn set(link: &str, change: &DeviceChange) -> Vec<Writer> {
    let mut pieces = change.peers.iter().flat_map(pieces).peekable();
    let mut parts = Vec::new();
    while parts.is_empty() || pieces.peek().is_some() {
        let mut writer = begin(SET);
        writer.text(device::NAME, link);
        if parts.is_empty() {
            of_the_device(&mut writer, change);
        }
        if pieces.peek().is_some() {
            writer.nested(device::PEERS, |writer| {
                let start = writer.len();
                while writer.len() - start < LARGEST
                    && let Some(piece) = pieces.next()
                {
                    writer.nested(0, |writer| of_a_peer(writer, &piece));
                }
            });
        }
        parts.push(writer);
    }
    parts
}

fn of_the_device(writer: &mut Writer, change: &DeviceChange) {
    if let Some(key) = &change.private_key {
        writer.put(device::PRIVATE_KEY, key.as_bytes());
    }
    if change.replace_peers {
        writer.put(device::FLAGS, &device::REPLACE_PEERS.to_ne_bytes());
    }
    if let Some(port) = change.listen_port {
        writer.put(device::LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = change.mark {
        writer.put(device::MARK, &mark.to_ne_bytes());
    }
}

/// A peer whose addresses are too many for one part. Only the first replaces those that were there.
fn pieces(whole: &PeerChange) -> Vec<PeerChange> {
    let (first, rest) = whole
        .allowed_ips
        .split_at(whole.allowed_ips.len().min(ADDRESSES));
    let mut pieces = vec![PeerChange {
        allowed_ips: first.to_vec(),
        ..whole.clone()
    }];
    pieces.extend(
        rest.chunks(ADDRESSES)
            .map(|more| PeerChange::new(whole.public_key).allow(more.iter().copied())),
    );
    pieces
}

fn of_a_peer(writer: &mut Writer, change: &PeerChange) {
    writer.put(peer::PUBLIC_KEY, &change.public_key);
    let flags = [
        (change.remove, peer::REMOVE),
        (change.replace_allowed_ips, peer::REPLACE_ALLOWED_IPS),
        (change.update_only, peer::UPDATE_ONLY),
    ];
    let flags = flags.iter().filter(|(is_set, _)| *is_set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    if flags != 0 {
        writer.put(peer::FLAGS, &flags.to_ne_bytes());
    }
    if let Some(endpoint) = change.endpoint {
        writer.put(peer::ENDPOINT, &endpoint_bytes(endpoint));
    }
    if let Some(seconds) = change.keepalive {
        writer.put(peer::KEEPALIVE, &seconds.to_ne_bytes());
    }
    if !change.allowed_ips.is_empty() {
        writer.nested(peer::ALLOWED_IPS, |writer| {
            for net in &change.allowed_ips {
                writer.nested(0, |writer| of_an_address(writer, net));
            }
        });
    }
}

fn of_an_address(writer: &mut Writer, net: &IpNet) {
    match net {
        IpNet::V4(net) => {
            writer.put(allowed_ip::FAMILY, &IPV4.to_ne_bytes());
            writer.put(allowed_ip::ADDRESS, &net.addr().octets());
        }
        IpNet::V6(net) => {
            writer.put(allowed_ip::FAMILY, &IPV6.to_ne_bytes());
            writer.put(allowed_ip::ADDRESS, &net.addr().octets());
        }
    }
    writer.put(allowed_ip::MASK, &[net.prefix_len()]);
}

/// `struct sockaddr_in` or `struct sockaddr_in6`: port and address in the network's byte order.
fn endpoint_bytes(endpoint: SocketAddr) -> Vec<u8> {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => {
            let parts = [&IPV4.to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]];
            parts.concat()
        }
        SocketAddr::V6(v6) => {
            let (flow, scope) = (v6.flowinfo().to_ne_bytes(), v6.scope_id().to_ne_bytes());
            let parts = [
                &IPV6.to_ne_bytes()[..],
                &port,
                &flow,
                &v6.ip().octets(),
                &scope,
            ];
            parts.concat()
        }
    }
}

fn read_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array(bytes.get(2..)?)?);
    match u16::from_ne_bytes(array(bytes)?) {
        IPV4 => {
            let ip: [u8; 4] = array(bytes.get(4..)?)?;
            Some((Ipv4Addr::from(ip), port).into())
        }
        IPV6 => {
            let ip: [u8; 16] = array(bytes.get(8..)?)?;
            Some((Ipv6Addr::from(ip), port).into())
        }
        _ => None,
    }
}

/// Adds what one part of an answer says to what those before it said. What is not understood is left out.
pub(super) fn read_part(message: &[u8], into: &mut WireGuardDevice) {
    // After the struct genlmsghdr.
    for (kind, value) in attributes(message.get(4..).unwrap_or_default()) {
        match kind {
            device::PRIVATE_KEY => {
                into.private_key = array(value).map(|key| WireGuardSecret::from_bytes(&key));
            }
            device::PUBLIC_KEY => into.public_key = array(value),
            device::LISTEN_PORT => {
                into.listen_port = array(value).map(u16::from_ne_bytes).unwrap_or_default();
            }
            device::MARK => {
                into.mark = array(value).map(u32::from_ne_bytes).unwrap_or_default();
            }
            device::PEERS => {
                let peers = attributes(value).filter_map(|(_, value)| read_peer(value));
                peers.for_each(|peer| add_peer(into, peer));
            }
            _ => {}
        }
    }
}

/// A peer whose addresses did not fit into one part is in the next again, with the rest.
fn add_peer(device: &mut WireGuardDevice, peer: WireGuardPeer) {
    match device.peers.last_mut() {
        Some(last) if last.public_key == peer.public_key => {
            last.allowed_ips.extend(peer.allowed_ips);
        }
        _ => device.peers.push(peer),
    }
}

fn read_peer(bytes: &[u8]) -> Option<WireGuardPeer> {
    let (_, key) = attributes(bytes).find(|(kind, _)| *kind == peer::PUBLIC_KEY)?;
    let mut read = WireGuardPeer::new(array(key)?);
    for (kind, value) in attributes(bytes) {
        match kind {
            peer::ENDPOINT => read.endpoint = read_endpoint(value),
            peer::KEEPALIVE => {
                read.keepalive = array(value).map(u16::from_ne_bytes).unwrap_or_default();
            }
            peer::LAST_HANDSHAKE => read.last_handshake = read_moment(value),
            peer::RX_BYTES => {
                read.rx_bytes = array(value).map(u64::from_ne_bytes).unwrap_or_default();
            }
            peer::TX_BYTES => {
                read.tx_bytes = array(value).map(u64::from_ne_bytes).unwrap_or_default();
            }
            peer::ALLOWED_IPS => {
                let nets = attributes(value).filter_map(|(_, value)| read_net(value));
                read.allowed_ips.extend(nets);
            }
            _ => {}
        }
    }
    Some(read)
}

/// `struct __kernel_timespec`, in which zero is never.
fn read_moment(bytes: &[u8]) -> Option<SystemTime> {
    let seconds = u64::try_from(i64::from_ne_bytes(array(bytes)?)).ok()?;
    let nanoseconds = u32::try_from(i64::from_ne_bytes(array(bytes.get(8..)?)?)).ok()?;
    let since =
        Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds.into()))?;
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .filter(|_| !since.is_zero())
}

fn read_net(bytes: &[u8]) -> Option<IpNet> {
    let (mut ip, mut mask) = (None::<IpAddr>, None);
    for (kind, value) in attributes(bytes) {
        match (kind, value.len()) {
            (allowed_ip::ADDRESS, 4) => ip = array::<4>(value).map(IpAddr::from),
            (allowed_ip::ADDRESS, 16) => ip = array::<16>(value).map(IpAddr::from),
            (allowed_ip::MASK, 1) => mask = value.first().copied(),
            _ => {}
        }
    }
    IpNet::new(ip?, mask?).ok()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
