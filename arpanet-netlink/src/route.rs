//! Routes.

use std::fmt;
use std::net::Ipv4Addr;

use arpanet_core::Result;
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope as KernelScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::error::system;
use crate::{Link, Netlink};

/// The table of a machine's own addresses, which the kernel keeps.
pub const TABLE_LOCAL: u32 = 255;

/// The table that routes are put into unless another is named.
pub const TABLE_MAIN: u32 = 254;

/// `RTPROT_STATIC`: put there by an administrator, or by us.
const PROTOCOL_STATIC: u8 = 4;

/// An IPv4 route.
///
/// ```
/// use arpanet_netlink::Route;
/// let route = Route::new("10.1.0.9/32".parse().unwrap()).link("wg0").source("10.254.0.1".parse().unwrap());
/// assert_eq!(route.to_string(), "10.1.0.9/32 dev wg0 table 254 scope link src 10.254.0.1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// The table it is in.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// The next hop.
    pub via: Option<Ipv4Addr>,
    /// The link's name.
    pub link: Option<String>,
    /// The source that packets get which have none yet.
    pub source: Option<Ipv4Addr>,
    /// How far away the destination is.
    pub scope: RouteScope,
    /// Among routes to the same destination the smallest wins.
    pub metric: u32,
    /// The largest packet, in bytes, where it differs from the link's.
    pub mtu: Option<u32>,
    /// Whether the next hop counts as being on the link, whatever the other routes say.
    pub onlink: bool,
    /// Who made it (`RTPROT_…`): 2 the kernel, 3 boot, 4 an administrator.
    pub protocol: u8,
}

/// What a route does with its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Takes them as this machine's own.
    Local,
    /// Sends and takes them as broadcasts.
    Broadcast,
    /// Refuses, with "administratively prohibited" to the sender.
    Prohibit,
    /// Refuses, with "host unreachable" to the sender.
    Unreachable,
    /// Refuses silently.
    Blackhole,
    /// Something else, by the kernel's number (`RTN_…`).
    Other(u8),
}

/// How far away a route's destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouteScope {
    /// Behind a next hop.
    Universe,
    /// On the link.
    Link,
    /// This machine itself.
    Host,
    /// Something else, by the kernel's number (`RT_SCOPE_…`).
    Other(u8),
}

impl Route {
    /// A route in the main table, that so far goes nowhere.
    #[must_use]
    pub const fn new(destination: Ipv4Net) -> Self {
        Self {
            destination,
            table: TABLE_MAIN,
            kind: RouteKind::Unicast,
            via: None,
            link: None,
            source: None,
            scope: RouteScope::Link,
            metric: 0,
            mtu: None,
            onlink: false,
            protocol: PROTOCOL_STATIC,
        }
    }

    /// By this link, directly unless there is a next hop.
    #[must_use]
    pub fn link(mut self, link: impl Into<String>) -> Self {
        self.link = Some(link.into());
        self
    }

    /// By this next hop.
    #[must_use]
    pub const fn via(mut self, hop: Ipv4Addr) -> Self {
        self.via = Some(hop);
        self.scope = RouteScope::Universe;
        self
    }

    /// With this source for packets that have none yet.
    #[must_use]
    pub const fn source(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// In this table.
    #[must_use]
    pub const fn table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    /// With this metric.
    #[must_use]
    pub const fn metric(mut self, metric: u32) -> Self {
        self.metric = metric;
        self
    }

    /// For packets of at most this many bytes.
    #[must_use]
    pub const fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Without asking whether the next hop can be reached by the link.
    #[must_use]
    pub const fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    /// One that refuses, with "administratively prohibited" to the sender.
    #[must_use]
    pub const fn prohibit(destination: Ipv4Net) -> Self {
        let mut route = Self::new(destination);
        route.kind = RouteKind::Prohibit;
        route.scope = RouteScope::Universe;
        route
    }

    fn message(&self, links: &[Link]) -> std::io::Result<RouteMessage> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = AddressFamily::Inet;
        header.destination_prefix_length = self.destination.prefix_len();
        header.table = u8::try_from(self.table).unwrap_or(0);
        header.protocol = RouteProtocol::from(self.protocol);
        header.scope = match self.scope {
            RouteScope::Universe => KernelScope::Universe,
            RouteScope::Link => KernelScope::Link,
            RouteScope::Host => KernelScope::Host,
            RouteScope::Other(number) => KernelScope::from(number),
        };
        header.kind = match self.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Local => RouteType::Local,
            RouteKind::Broadcast => RouteType::Broadcast,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Other(number) => RouteType::from(number),
        };
        if self.onlink {
            header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        attributes.push(RouteAttribute::Destination(RouteAddress::Inet(
            self.destination.network(),
        )));
        attributes.extend(
            self.via
                .map(|ip| RouteAttribute::Gateway(RouteAddress::Inet(ip))),
        );
        attributes.extend(
            self.source
                .map(|ip| RouteAttribute::PrefSource(RouteAddress::Inet(ip))),
        );
        if self.metric != 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        attributes.extend(
            self.mtu
                .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
        );
        if let Some(name) = &self.link {
            let link = links.iter().find(|link| link.name == *name);
            let link = link.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENODEV))?;
            attributes.push(RouteAttribute::Oif(link.index));
        }
        Ok(message)
    }

    fn read(entry: RouteNetlinkMessage, links: &[Link]) -> Option<Self> {
        let RouteNetlinkMessage::NewRoute(message) = entry else {
            return None;
        };
        let header = message.header;
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut route =
            Self::new(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, header.destination_prefix_length).ok()?);
        route.table = u32::from(header.table);
        route.protocol = header.protocol.into();
        route.onlink = header.flags.contains(RouteFlags::Onlink);
        route.scope = match header.scope {
            KernelScope::Universe => RouteScope::Universe,
            KernelScope::Link => RouteScope::Link,
            KernelScope::Host => RouteScope::Host,
            other => RouteScope::Other(other.into()),
        };
        route.kind = match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::Broadcast => RouteKind::Broadcast,
            RouteType::Prohibit => RouteKind::Prohibit,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::BlackHole => RouteKind::Blackhole,
            other => RouteKind::Other(other.into()),
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                    route.destination = Ipv4Net::new(ip, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.via = Some(ip),
                RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => route.source = Some(ip),
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Priority(metric) => route.metric = metric,
                RouteAttribute::Oif(index) => {
                    route.link = links
                        .iter()
                        .find(|link| link.index == index)
                        .map(|link| link.name.clone());
                }
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.into_iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(route)
    }
}

impl fmt::Display for Route {
    /// As `ip route` shows it, in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Broadcast => f.write_str("broadcast ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Other(number) => write!(f, "type {number} ")?,
        }
        write!(f, "{}", self.destination)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        write!(f, " table {}", self.table)?;
        match self.scope {
            RouteScope::Universe => {}
            RouteScope::Link => f.write_str(" scope link")?,
            RouteScope::Host => f.write_str(" scope host")?,
            RouteScope::Other(number) => write!(f, " scope {number}")?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if self.onlink {
            f.write_str(" onlink")
        } else {
            Ok(())
        }
    }
}

impl Netlink {
    /// All IPv4 routes of all tables.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::Unavailable`] if they change faster than they can be read.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let links = self.links().await?;
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let entries = self
            .dump(RouteNetlinkMessage::GetRoute(message), "routes")
            .await?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| Route::read(entry, &links))
            .collect())
    }

    /// Adds a route, in the place of one with the same destination, table and metric.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::NotFound`] if there is no such link, [`arpanet_core::ErrorKind::InvalidInput`] if the
    /// next hop can't be reached.
    pub async fn set_route(&self, route: &Route) -> Result<()> {
        self.set_routes(std::slice::from_ref(route)).await
    }

    /// Adds or replaces many routes, in order.
    ///
    /// # Errors
    /// As [`set_route`](Self::set_route); those before the one that failed are there.
    pub async fn set_routes(&self, routes: &[Route]) -> Result<()> {
        if routes.is_empty() {
            return Ok(());
        }
        let links = self.links().await?;
        for route in routes {
            let failed = |error| {
                system(
                    "add a route",
                    format!("the route \"{route}\" can't be added"),
                    error,
                )
            };
            let message = route.message(&links).map_err(failed)?;
            let made = self
                .change(
                    RouteNetlinkMessage::NewRoute(message),
                    NLM_F_CREATE | NLM_F_REPLACE,
                )
                .await;
            made.map_err(failed)?;
        }
        Ok(())
    }

    /// Removes a route. Succeeds if it is not there, or its link is not.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        self.delete_routes(std::slice::from_ref(route)).await
    }

    /// Removes many routes.
    ///
    /// # Errors
    /// As [`delete_route`](Self::delete_route); those before the one that failed are gone.
    pub async fn delete_routes(&self, routes: &[Route]) -> Result<()> {
        if routes.is_empty() {
            return Ok(());
        }
        let links = self.links().await?;
        for route in routes {
            let Ok(message) = route.message(&links) else {
                continue;
            };
            match self.change(RouteNetlinkMessage::DelRoute(message), 0).await {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => {
                    return Err(system(
                        "delete a route",
                        format!("the route \"{route}\" can't be removed"),
                        error,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
