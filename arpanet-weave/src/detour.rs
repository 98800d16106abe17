//! Ways to routers whose underlay addresses are in 10/8 themselves, behind the default route.
//!
//! To the host all of 10/8 is the overlay, but for networks that it has routes of its own to. Weave's packets carry no mark by
//! which they could be told from others, so each such router gets a route.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use arpanet_core::addr::OVERLAY;
use arpanet_netlink::{Change, Route, RouteKind, TABLE_MAIN};
use ipnet::Ipv4Net;

/// Whether an endpoint is in the overlay's range.
pub(crate) fn may_need_one(endpoint: &SocketAddr) -> bool {
    matches!(endpoint.ip(), IpAddr::V4(ip) if OVERLAY.contains(&ip))
}

/// The routes that the way to these endpoints needs beside those that the host has.
pub(crate) fn detours(routes: &[Route], endpoints: &BTreeSet<SocketAddr>) -> Vec<Change> {
    let main = || {
        let of_main =
            |route: &&Route| route.table == TABLE_MAIN && route.kind == RouteKind::Unicast;
        routes.iter().filter(of_main)
    };
    let default = main()
        .filter(|route| route.destination.prefix_len() == 0)
        .min_by_key(|route| route.metric);
    let Some((hop, link)) = default.and_then(|default| Some((default.via?, default.link.clone()?)))
    else {
        return Vec::new();
    };
    let ips: BTreeSet<_> = endpoints
        .iter()
        .filter_map(|endpoint| match endpoint.ip() {
            IpAddr::V4(ip) if OVERLAY.contains(&ip) => Some(ip),
            _ => None,
        })
        .collect();
    ips.into_iter()
        .map(|ip| Route::new(Ipv4Net::from(ip)).via(hop).link(&link))
        .filter(|detour| {
            // The host's own routes win over the overlay if they are narrower than it.
            !main().any(|route| {
                route != detour
                    && route.destination.prefix_len() > OVERLAY.prefix_len()
                    && route.destination.contains(&detour.destination)
            })
        })
        .map(Change::AddRoute)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_behind_the_default_route_and_in_the_overlay_needs_one() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let gateway = "10.128.0.1".parse().unwrap();
        let default = Route::new(net("0.0.0.0/0")).via(gateway).link("eth0");
        let routes = [
            Route::new(net("10.128.0.0/20")).link("eth0"),
            default.clone().metric(100),
            Route::new(net("10.0.0.0/8")).link("arpanet0").table(1010),
        ];
        let endpoints: BTreeSet<SocketAddr> = [
            "10.128.0.7:6783",
            "10.130.0.5:6783",
            "192.0.2.1:6783",
            "[::1]:6783",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let detour = Route::new(net("10.130.0.5/32")).via(gateway).link("eth0");
        assert_eq!(
            detours(&routes, &endpoints),
            [Change::AddRoute(detour.clone())]
        );
        // It is wanted as long as the peer is, also while it is there.
        let with = [&routes[..], std::slice::from_ref(&detour)].concat();
        assert_eq!(detours(&with, &endpoints), [Change::AddRoute(detour)]);
        assert_eq!(detours(&routes[..1], &endpoints), []);
    }
}
