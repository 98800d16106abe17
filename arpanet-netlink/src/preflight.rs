//! What of a host stands in the way of the overlay.

use std::fmt;
use std::net::IpAddr;

use arpanet_core::{AppNet, Error, ErrorKind, Plane, Result};
use ipnet::{IpNet, Ipv4Net};

use crate::{HostSnapshot, Netlink, RouteKind, TABLE_LOCAL};

/// Wider routes, the default route above all, are no claim to addresses of the overlay.
const WIDEST_CLAIM: u8 = 8;

/// `RTPROT_KERNEL`: the route that came with an address.
const PROTOCOL_KERNEL: u8 = 2;

/// Something of the host that lies in the way of a plane or a network. `Display` says it in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clash {
    /// What of the host.
    pub held: Held,
    /// The plane or network that it lies in, or that lies in it.
    pub with: Ipv4Net,
    /// Whether that is a plane; a declared network if not.
    pub is_plane: bool,
}

/// What of a host clashes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Held {
    /// An address.
    Address {
        /// The link's name.
        link: String,
        /// The address.
        address: IpNet,
    },
    /// A route.
    Route {
        /// The link's name, if it has one.
        link: Option<String>,
        /// Where it leads.
        destination: Ipv4Net,
    },
    /// A DNS server that the host asks.
    Resolver(IpAddr),
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.held {
            Held::Address { link, address } => {
                write!(f, "this host's address {address} on {link}")?
            }
            Held::Route {
                link: Some(link),
                destination,
            } => write!(f, "this host's route to {destination} by {link}")?,
            Held::Route {
                link: None,
                destination,
            } => write!(f, "this host's route to {destination}")?,
            Held::Resolver(ip) => write!(f, "this host's DNS server {ip}")?,
        }
        let what = if self.is_plane {
            "system plane"
        } else {
            "application network"
        };
        write!(f, " is in the way of the {what} {}", self.with)
    }
}

impl From<Clash> for Error {
    fn from(clash: Clash) -> Self {
        let hint = match (&clash.held, clash.is_plane) {
            (Held::Resolver(_), _) => "let the host ask another DNS server: see /etc/resolv.conf",
            (_, true) => {
                "arpanet2 uses 10.241.0.0 to 10.255.255.255 for its own parts: give this host's network other addresses"
            }
            (_, false) => {
                "declare the application network somewhere else in 10.0.0.0 to 10.240.255.255"
            }
        };
        Self::new(ErrorKind::Conflict, clash.to_string())
            .operation("preflight")
            .with_hint(hint)
    }
}

/// The clashes of a host, as a pure function. Links of arpanet2's own are given in `ours`, since they may be up from an
/// earlier start.
#[must_use]
pub fn clashes(
    host: &HostSnapshot,
    declared: &[AppNet],
    resolvers: &[IpAddr],
    ours: &[&str],
) -> Vec<Clash> {
    let taken: Vec<(Ipv4Net, bool)> = Plane::all()
        .map(|plane| (plane.cidr(), true))
        .chain(declared.iter().map(|network| (network.cidr(), false)))
        .collect();
    let find = |net: Ipv4Net| {
        let overlaps =
            |other: &Ipv4Net| other.contains(&net.network()) || net.contains(&other.network());
        taken.iter().find(|(other, _)| overlaps(other)).copied()
    };
    let mut found = Vec::new();
    let mut add = |held, net| {
        if let Some((with, is_plane)) = find(net) {
            found.push(Clash {
                held,
                with,
                is_plane,
            });
        }
    };
    for address in host
        .addresses
        .iter()
        .filter(|address| !ours.contains(&address.link.as_str()))
    {
        if let IpNet::V4(net) = address.address {
            let held = Held::Address {
                link: address.link.clone(),
                address: address.address,
            };
            add(held, Ipv4Net::from(net.addr()));
        }
    }
    for route in &host.routes {
        let is_ours = route
            .link
            .as_deref()
            .is_some_and(|link| ours.contains(&link));
        let leads_somewhere = route.kind == RouteKind::Unicast && route.table != TABLE_LOCAL;
        if is_ours || !leads_somewhere || route.destination.prefix_len() < WIDEST_CLAIM {
            continue;
        }
        // Said already, by the address that it came with.
        let came_with = route.source.filter(|_| route.protocol == PROTOCOL_KERNEL);
        if came_with.is_some_and(|source| find(Ipv4Net::from(source)).is_some()) {
            continue;
        }
        add(
            Held::Route {
                link: route.link.clone(),
                destination: route.destination,
            },
            route.destination,
        );
    }
    for resolver in resolvers {
        if let IpAddr::V4(ip) = resolver {
            add(Held::Resolver(*resolver), Ipv4Net::from(*ip));
        }
    }
    found
}

impl Netlink {
    /// The [`clashes`] of the host in whose namespace this connection is.
    ///
    /// # Errors
    /// Where the host can't be read.
    pub async fn preflight(
        &self,
        declared: &[AppNet],
        resolvers: &[IpAddr],
        ours: &[&str],
    ) -> Result<Vec<Clash>> {
        Ok(clashes(&self.snapshot().await?, declared, resolvers, ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, Route};

    /// A host with an address on `eth0`, the route that the kernel makes of it, and a default route.
    fn host(address: &str) -> HostSnapshot {
        let net: Ipv4Net = address.parse().unwrap();
        let mut connected = Route::new(net.trunc()).link("eth0").source(net.addr());
        connected.protocol = PROTOCOL_KERNEL;
        let default = Route::new("0.0.0.0/0".parse().unwrap())
            .link("eth0")
            .via(net.hosts().next().unwrap());
        HostSnapshot {
            addresses: [Address {
                link: "eth0".to_owned(),
                address: net.into(),
            }]
            .into(),
            routes: [connected, default].into(),
            ..HostSnapshot::default()
        }
    }

    fn sentences(host: &HostSnapshot, declared: &[&str], resolvers: &[&str]) -> Vec<String> {
        let declared: Vec<AppNet> = declared.iter().map(|net| net.parse().unwrap()).collect();
        let resolvers: Vec<IpAddr> = resolvers.iter().map(|ip| ip.parse().unwrap()).collect();
        clashes(host, &declared, &resolvers, &["arpanet0"])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_host_in_the_application_range_is_fine() {
        let none: Vec<String> = Vec::new();
        assert_eq!(
            sentences(
                &host("10.128.0.7/20"),
                &["10.1.0.0/16"],
                &["10.128.0.2", "8.8.8.8", "::1"]
            ),
            none
        );
        assert_eq!(
            sentences(&host("192.168.8.120/24"), &["10.1.0.0/16"], &[]),
            none
        );
    }

    #[test]
    fn an_address_in_a_plane_is_named_once() {
        assert_eq!(
            sentences(&host("10.253.7.7/24"), &[], &[]),
            [
                "this host's address 10.253.7.7/24 on eth0 is in the way of the system plane 10.253.0.0/16"
            ]
        );
    }

    #[test]
    fn an_address_in_a_declared_network_is_named() {
        assert_eq!(
            sentences(&host("10.1.9.9/24"), &["10.1.0.0/16"], &[]),
            [
                "this host's address 10.1.9.9/24 on eth0 is in the way of the application network 10.1.0.0/16"
            ]
        );
    }

    #[test]
    fn routes_into_and_around_planes_are_named_but_not_the_default() {
        let mut routed = host("192.168.8.120/24");
        routed
            .routes
            .insert(Route::new("10.254.3.0/24".parse().unwrap()).link("vpn0"));
        routed
            .routes
            .insert(Route::new("128.0.0.0/1".parse().unwrap()).link("vpn0"));
        assert_eq!(
            sentences(&routed, &[], &[]),
            [
                "this host's route to 10.254.3.0/24 by vpn0 is in the way of the system plane 10.254.0.0/16"
            ]
        );
        // Everything of 10/8 behind a gateway, as some clouds have it: the overlay would take it from the host.
        routed
            .routes
            .insert(Route::new("10.0.0.0/8".parse().unwrap()).link("eth1"));
        assert_eq!(sentences(&routed, &[], &[]).len(), 2);
    }

    #[test]
    fn a_resolver_in_a_plane_is_named_with_the_way_out() {
        let clash = clashes(
            &host("192.168.8.120/24"),
            &[],
            &["10.255.0.53".parse().unwrap()],
            &[],
        )
        .remove(0);
        let error = Error::from(clash);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error.to_string().contains("10.255.0.53")
                && error.hint().unwrap().contains("resolv.conf")
        );
    }

    #[test]
    fn what_an_earlier_start_left_is_no_clash() {
        let mut running = host("192.168.8.120/24");
        running.addresses.insert(Address {
            link: "arpanet0".to_owned(),
            address: "10.255.0.1/32".parse().unwrap(),
        });
        running.routes.insert(
            Route::new("10.0.0.0/8".parse().unwrap())
                .link("arpanet0")
                .table(1010),
        );
        assert!(sentences(&running, &[], &[]).is_empty());
    }
}
