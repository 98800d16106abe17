//! The network that the hosts have without the overlay.

use std::net::{IpAddr, SocketAddr};

use arpanet_core::Result;
use arpanet_netlink::Netlink;

use crate::router::HOST_LINK;

/// What an underlay has whose MTU can't be known.
const USUAL_MTU: u16 = 1500;

/// The MTU of the link that packets to other nodes take, in bytes: the one with the advertised address, or else the one
/// with the default route, or else the smallest that is up.
///
/// # Errors
/// Where the host can't be read.
pub async fn underlay_mtu(host: &Netlink, advertised: Option<SocketAddr>) -> Result<u16> {
    let snapshot = host.snapshot().await?;
    let advertised = advertised.map(|endpoint| endpoint.ip());
    let by_address = snapshot
        .addresses
        .iter()
        .find(|address| Some(address.address.addr()) == advertised.filter(is_specific))
        .map(|address| address.link.clone());
    let by_default = || {
        let defaults = snapshot.routes.iter();
        defaults
            .filter(|route| route.destination.prefix_len() == 0)
            .min_by_key(|route| route.metric)
            .and_then(|route| route.link.clone())
    };
    let link = by_address.or_else(by_default);
    let carrying = snapshot.links.iter().filter(|other| match &link {
        Some(link) => other.name == *link,
        None => other.up && other.name != "lo" && other.name != HOST_LINK,
    });
    let mtu = carrying.map(|link| link.mtu).min();
    Ok(mtu
        .and_then(|mtu| u16::try_from(mtu).ok())
        .unwrap_or(USUAL_MTU))
}

const fn is_specific(ip: &IpAddr) -> bool {
    !ip.is_unspecified()
}
