//! The address plan: which address of 10.0.0.0/8 means what.
//!
//! Everything here is a pure function. Node `A.B` is always 10.255.A.B on the overlay, 10.254.A.B for its docker API
//! and 10.253.A.B for discovery; application containers live in 10.0.0.0 to 10.240.255.255, plugins in 10.241 to
//! 10.252.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};
use ipnet::Ipv4Net;

/// The whole overlay, 10.0.0.0/8.
pub const OVERLAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// The port of every node's docker API, on its [`Plane::Docker`] address.
pub const DOCKER_API_PORT: u16 = 2375;

/// The port of every node's consul, on its [`Plane::Discovery`] address, where the cluster's discovery is consul.
pub const CONSUL_HTTP_PORT: u16 = 8500;

/// The port of that consul's own DNS, there too.
pub const CONSUL_DNS_PORT: u16 = 8600;

/// The port of the join (TCP) and of the tunnel (UDP) on the underlay, unless configured otherwise.
pub const UNDERLAY_PORT: u16 = 51820;

/// The address of the router that every attached container sees: its DNS server, and the source of health checks.
pub const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

const LAST_APP_OCTET: u8 = 240;

/// A node's address, written `A.B`: its place in every plane.
///
/// ```
/// use arpanet_core::NodeAddr;
/// let node: NodeAddr = "2.12".parse()?;
/// assert_eq!(node.overlay().to_string(), "10.255.2.12");
/// assert_eq!(node.docker().to_string(), "10.254.2.12");
/// assert_eq!(node.discovery().to_string(), "10.253.2.12");
/// assert!("255.255".parse::<NodeAddr>().is_err()); // 10.255.255.255 is the broadcast address of the /8
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddr(u16);

impl NodeAddr {
    /// Node `a.b`; `None` for the reserved `0.0` and `255.255`.
    #[must_use]
    pub const fn new(a: u8, b: u8) -> Option<Self> {
        Self::from_index(u16::from_be_bytes([a, b]))
    }

    /// The node with this index, `A * 256 + B`; `None` for the reserved ones.
    #[must_use]
    pub const fn from_index(index: u16) -> Option<Self> {
        match index {
            0 | u16::MAX => None,
            index => Some(Self(index)),
        }
    }

    /// `A * 256 + B`: 1 to 65,534.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }

    /// `A` and `B`.
    #[must_use]
    pub const fn octets(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// The node's address in a system plane.
    #[must_use]
    pub const fn in_plane(self, plane: Plane) -> Ipv4Addr {
        let [a, b] = self.octets();
        Ipv4Addr::new(10, plane.octet(), a, b)
    }

    /// 10.255.A.B: the node itself.
    #[must_use]
    pub const fn overlay(self) -> Ipv4Addr {
        self.in_plane(Plane::Overlay)
    }

    /// 10.254.A.B: the node's docker API.
    #[must_use]
    pub const fn docker(self) -> Ipv4Addr {
        self.in_plane(Plane::Docker)
    }

    /// 10.253.A.B: the node's discovery agent.
    #[must_use]
    pub const fn discovery(self) -> Ipv4Addr {
        self.in_plane(Plane::Discovery)
    }

    /// The node's address in a plugin block.
    #[must_use]
    pub const fn plugin(self, block: PluginBlock) -> Ipv4Addr {
        self.in_plane(Plane::Plugin(block))
    }

    /// The node that owns this system address, and the plane it is in; `None` for addresses of applications, reserved
    /// ones, and everything outside the overlay.
    #[must_use]
    pub const fn owner_of(ip: Ipv4Addr) -> Option<(Self, Plane)> {
        match (Plane::of(ip), ip.octets()) {
            (Some(plane), [_, _, a, b]) => match Self::new(a, b) {
                Some(node) => Some((node, plane)),
                None => None,
            },
            (None, _) => None,
        }
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.octets();
        write!(f, "{a}.{b}")
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (a, b) = text
            .split_once('.')
            .and_then(|(a, b)| Some((octet(a)?, octet(b)?)))
            .ok_or_else(|| {
                invalid(format!("{text:?} is not a node address")).with_hint(
                    "a node address is A.B, two plain decimal numbers from 0 to 255, as in 2.12",
                )
            })?;
        Self::new(a, b).ok_or_else(|| {
            invalid(format!("the node address {text} is reserved"))
                .with_hint("0.0 and 255.255 can't be used: 10.255.255.255 is the broadcast address of 10.0.0.0/8")
        })
    }
}

fn octet(text: &str) -> Option<u8> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// One of the /16s that belong to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Plane {
    /// 10.255.0.0/16: the nodes themselves.
    Overlay,
    /// 10.254.0.0/16: their docker APIs.
    Docker,
    /// 10.253.0.0/16: their discovery agents.
    Discovery,
    /// 10.241.0.0/16 to 10.252.0.0/16: plugins of arpanet2.
    Plugin(PluginBlock),
}

impl Plane {
    /// The second octet of every address in this plane.
    #[must_use]
    pub const fn octet(self) -> u8 {
        match self {
            Self::Overlay => 255,
            Self::Docker => 254,
            Self::Discovery => 253,
            Self::Plugin(PluginBlock(octet)) => octet,
        }
    }

    /// The plane as a CIDR.
    #[must_use]
    pub const fn cidr(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, self.octet(), 0, 0), 16)
    }

    /// The plane that holds this address; `None` for addresses of applications and everything outside the overlay.
    #[must_use]
    pub const fn of(ip: Ipv4Addr) -> Option<Self> {
        match ip.octets() {
            [10, 255, ..] => Some(Self::Overlay),
            [10, 254, ..] => Some(Self::Docker),
            [10, 253, ..] => Some(Self::Discovery),
            [10, octet, ..] => match PluginBlock::new(octet) {
                Some(block) => Some(Self::Plugin(block)),
                None => None,
            },
            _ => None,
        }
    }

    /// All fifteen planes.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Overlay, Self::Docker, Self::Discovery]
            .into_iter()
            .chain((241..=252).map(|octet| Self::Plugin(PluginBlock(octet))))
    }
}

/// One of the twelve plugin blocks, 241 to 252.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginBlock(u8);

impl PluginBlock {
    /// The block with this second octet; `None` outside 241 to 252.
    #[must_use]
    pub const fn new(octet: u8) -> Option<Self> {
        match octet {
            241..=252 => Some(Self(octet)),
            _ => None,
        }
    }
}

/// The rest of the overlay, plugins and planes: 10.241.0.0 to 10.255.255.255.
#[must_use]
pub fn system_range() -> [Ipv4Net; 4] {
    [(241, 16), (242, 15), (244, 14), (248, 13)]
        .map(|(octet, prefix)| Ipv4Net::new_assert(Ipv4Addr::new(10, octet, 0, 0), prefix))
}

impl serde::Serialize for PluginBlock {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for PluginBlock {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let octet = u8::deserialize(deserializer)?;
        Self::new(octet).ok_or_else(|| serde::de::Error::custom("a plugin block is 241 to 252"))
    }
}

/// Whether application containers may have this address: 10.0.0.0 to 10.240.255.255.
#[must_use]
pub const fn is_application(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [10, 0..=LAST_APP_OCTET, ..])
}

/// The application range as CIDRs: what no prefix of it reaches beyond.
#[must_use]
pub fn application_range() -> [Ipv4Net; 5] {
    [(0, 9), (128, 10), (192, 11), (224, 12), (240, 16)]
        .map(|(octet, prefix)| Ipv4Net::new_assert(Ipv4Addr::new(10, octet, 0, 0), prefix))
}

/// An application network: a CIDR inside the application range with a prefix of 16 to 30.
///
/// ```
/// use arpanet_core::AppNet;
/// let net: AppNet = "10.1.0.0/16".parse()?;
/// assert!(net.contains("10.1.2.3".parse().unwrap()));
/// assert!("10.253.0.0/16".parse::<AppNet>().is_err()); // a system plane
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppNet(Ipv4Net);

impl AppNet {
    /// Checks a CIDR. Host bits must be zero.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] says which rule it breaks.
    pub fn new(cidr: Ipv4Net) -> Result<Self> {
        if cidr.trunc() != cidr {
            return Err(invalid(format!("{cidr} has bits set beyond its prefix"))
                .with_hint(format!("did you mean {}?", cidr.trunc())));
        }
        if !(16..=30).contains(&cidr.prefix_len()) {
            return Err(invalid(format!(
                "an application network has a prefix of 16 to 30, and {cidr} has {}",
                cidr.prefix_len()
            ))
            .with_hint(
                "a network is a CIDR within 10.0.0.0 to 10.240.255.255, as in 10.1.0.0/16",
            ));
        }
        if let Some(plane) = Plane::of(cidr.network()) {
            return Err(
                invalid(format!("{cidr} lies in the system plane {}", plane.cidr()))
                    .with_hint("application networks lie in 10.0.0.0 to 10.240.255.255"),
            );
        }
        if !is_application(cidr.network()) {
            return Err(invalid(format!("{cidr} is outside the application range"))
                .with_hint("application networks lie in 10.0.0.0 to 10.240.255.255"));
        }
        Ok(Self(cidr))
    }

    /// The CIDR.
    #[must_use]
    pub const fn cidr(self) -> Ipv4Net {
        self.0
    }

    /// Whether the address lies in this network.
    #[must_use]
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        self.0.contains(&ip)
    }

    /// An address of this network, with its prefix.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for one outside of it, its own and its broadcast address.
    pub fn addr(self, ip: Ipv4Addr) -> Result<AppAddr> {
        if !self.contains(ip) {
            return Err(invalid(format!("{ip} is not in {self}")));
        }
        AppAddr::new(Ipv4Net::new_assert(ip, self.0.prefix_len()))
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }
}

impl fmt::Display for AppNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for AppNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AppNet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let cidr = text.parse().map_err(|source| {
            invalid(format!("{text:?} is not a network"))
                .with_hint("a network is a CIDR, as in 10.1.0.0/16")
                .with_source(source)
        })?;
        Self::new(cidr)
    }
}

/// A container's address with the prefix that decides what it reaches: 16 to 30 confines it to that network, 8 is the
/// deliberate exception that reaches the planes, the hosts and other /8 containers.
///
/// ```
/// use arpanet_core::AppAddr;
/// let addr: AppAddr = "10.1.0.5/16".parse()?;
/// assert_eq!(addr.net().unwrap().to_string(), "10.1.0.0/16");
/// assert!("10.1.0.5/8".parse::<AppAddr>()?.net().is_none());
/// assert!("10.1.0.0/16".parse::<AppAddr>().is_err()); // the network's own address
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppAddr(Ipv4Net);

impl AppAddr {
    /// Checks an address with its prefix.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an address outside the application range, a prefix that is neither 8 nor 16 to
    /// 30, and a network's own or broadcast address.
    pub fn new(addr: Ipv4Net) -> Result<Self> {
        if !is_application(addr.addr()) {
            return Err(
                invalid(format!("{} is not an application address", addr.addr()))
                    .with_hint("application addresses are 10.0.0.0 to 10.240.255.255"),
            );
        }
        if addr.prefix_len() != 8 {
            AppNet::new(addr.trunc())?;
        }
        if addr.addr() == addr.network() || addr.addr() == addr.broadcast() {
            return Err(invalid(format!(
                "{} is the network or broadcast address of {}",
                addr.addr(),
                addr.trunc()
            ))
            .with_hint(format!("any other address of {} will do", addr.trunc())));
        }
        Ok(Self(addr))
    }

    /// The address.
    #[must_use]
    pub const fn ip(self) -> Ipv4Addr {
        self.0.addr()
    }

    /// 8, or 16 to 30.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// The network it is confined to; `None` for a /8 address.
    #[must_use]
    pub fn net(self) -> Option<AppNet> {
        (self.prefix() != 8).then(|| AppNet(self.0.trunc()))
    }

    /// The address as ipnet writes it, host bits kept.
    #[must_use]
    pub const fn as_ipnet(self) -> Ipv4Net {
        self.0
    }
}

impl fmt::Display for AppAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for AppAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AppAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let addr = text.parse().map_err(|source| {
            invalid(format!("{text:?} is not an address with a prefix"))
                .with_hint("write the address and its network's prefix, as in 10.1.0.5/16")
                .with_source(source)
        })?;
        Self::new(addr)
    }
}

macro_rules! serde_through_string {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_through_string;

serde_through_string!(NodeAddr, AppNet, AppAddr);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_node_address_round_trips_through_text_and_planes(index in 1..u16::MAX) {
            let node = NodeAddr::from_index(index).unwrap();
            prop_assert_eq!(node.to_string().parse::<NodeAddr>().unwrap(), node);
            for plane in Plane::all() {
                prop_assert_eq!(NodeAddr::owner_of(node.in_plane(plane)), Some((node, plane)));
                prop_assert!(plane.cidr().contains(&node.in_plane(plane)));
            }
        }

        #[test]
        fn an_address_is_in_one_plane_or_an_application_s_or_outside(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            let planes = Plane::all().filter(|plane| plane.cidr().contains(&ip)).count();
            let range = application_range().iter().filter(|cidr| cidr.contains(&ip)).count();
            prop_assert_eq!(planes == 1, Plane::of(ip).is_some());
            prop_assert_eq!(range == 1, is_application(ip));
            prop_assert_eq!(planes + range, usize::from(OVERLAY.contains(&ip)));
        }

        #[test]
        fn what_parses_prints_as_it_was_written(text in "[0-9]{1,3}\\.[0-9]{1,3}") {
            if let Ok(node) = text.parse::<NodeAddr>() {
                prop_assert_eq!(node.to_string(), text);
            }
        }

        #[test]
        fn networks_never_reach_into_a_plane(bits: u32, prefix in 0..=32u8) {
            if let Ok(net) = AppNet::new(Ipv4Net::new(Ipv4Addr::from(bits), prefix).unwrap().trunc()) {
                for plane in Plane::all() {
                    prop_assert!(!plane.cidr().contains(&net.cidr().network()));
                    prop_assert!(!plane.cidr().contains(&net.cidr().broadcast()));
                }
                prop_assert!(is_application(net.cidr().broadcast()));
            }
        }
    }

    #[test]
    fn refuses_what_is_not_plain_decimal_or_reserved() {
        for text in [
            "", ".", "1", "1.", ".1", "1.2.3", "01.2", "1.02", "+1.2", "1.-2", " 1.2", "1.2 ",
            "256.1", "1.256", "a.b", "1,2", "0.0", "255.255", "١.٢",
        ] {
            let error = text.parse::<NodeAddr>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
            assert!(error.hint().is_some(), "{text:?}");
        }
    }

    #[test]
    fn refuses_networks_outside_the_range() {
        for text in [
            "10.0.0.0/15",
            "10.1.0.0/31",
            "10.241.0.0/16",
            "10.255.0.0/24",
            "11.0.0.0/16",
            "10.1.0.1/16",
            "x",
        ] {
            assert_eq!(
                text.parse::<AppNet>().unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{text}"
            );
        }
        assert!("10.240.255.0/24".parse::<AppNet>().is_ok());
    }

    #[test]
    fn serde_goes_through_the_string_and_checks_it() {
        let node: NodeAddr = serde_json::from_str("\"2.12\"").unwrap();
        assert_eq!(serde_json::to_string(&node).unwrap(), "\"2.12\"");
        assert!(serde_json::from_str::<NodeAddr>("\"0.0\"").is_err());
    }
}
