//! The underlay: a switch, in a namespace of its own; or a gateway.

use std::net::Ipv4Addr;

use arpanet_netlink::{Namespace, Netlink, Route, VethEnd};
use ipnet::Ipv4Net;

use super::{LIMIT, namespace};

const SWITCH: &str = "switch";

/// A switch with hosts on it. It is there as long as one of its copies.
#[derive(Debug, Clone)]
pub struct Switch(Netlink);

impl Switch {
    /// `None` where this process may not make namespaces and the test is to be skipped.
    ///
    /// # Panics
    /// Where it can't be made.
    pub async fn new() -> Option<Self> {
        let net = namespace()?.handle().unwrap();
        net.add_bridge(SWITCH).await.unwrap();
        net.set_up(SWITCH, true).await.unwrap();
        Some(Self(net))
    }

    /// A namespace with a link `eth0` to the switch, whose port is called after the number, and this address on it.
    ///
    /// # Panics
    /// Where it can't be made.
    pub async fn plug(&self, number: u8, underlay: Ipv4Addr) -> Namespace {
        let namespace = Namespace::create().unwrap();
        // Its own address would come at some time, and make a difference between before and after.
        let setting = ("net.ipv6.conf.default.disable_ipv6", "1");
        namespace.set_sysctls(&[setting]).unwrap();
        let net = namespace.handle().unwrap();
        let port = port(number);
        let near = VethEnd::new("eth0", &namespace);
        let far = VethEnd::new(&port, self.0.namespace());
        net.add_veth(&near, &far).await.unwrap();
        self.0.set_master(&port, Some(SWITCH)).await.unwrap();
        self.0.set_up(&port, true).await.unwrap();
        net.set_up("lo", true).await.unwrap();
        let address = Ipv4Net::new(underlay, 24).unwrap();
        net.add_address("eth0", address).await.unwrap();
        net.set_up("eth0", true).await.unwrap();
        net.wait_until_carrying("eth0", LIMIT).await.unwrap();
        namespace
    }

    /// Takes the host with this number off the switch, or puts it back.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn plug_in(&self, number: u8, on: bool) {
        self.0.set_up(&port(number), on).await.unwrap();
    }

    /// Gives the port of the host with this number another MTU, in bytes.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn resize(&self, number: u8, mtu: u32) {
        self.0.set_mtu(&port(number), mtu).await.unwrap();
    }
}

fn port(number: u8) -> String {
    format!("port{number}")
}

/// A host with this address whose default route is the gateway, at the first address of the same /20, and which filters sources
/// so (`rp_filter`).
///
/// # Panics
/// Where it can't be made.
pub async fn behind(gateway: &Netlink, number: u8, address: Ipv4Addr, filter: &str) -> Namespace {
    let host = Namespace::create().unwrap();
    let settings = [
        ("net.ipv6.conf.default.disable_ipv6", "1"),
        ("net.ipv4.conf.all.rp_filter", filter),
        ("net.ipv4.conf.default.rp_filter", filter),
    ];
    host.set_sysctls(&settings).unwrap();
    let net = host.handle().unwrap();
    net.set_up("lo", true).await.unwrap();
    let port = format!("lan{number}");
    let near = VethEnd::new("eth0", &host);
    let far = VethEnd::new(&port, gateway.namespace());
    net.add_veth(&near, &far).await.unwrap();
    let own = Ipv4Net::new(address, 20).unwrap();
    let first = own.hosts().next().unwrap();
    let ends = [
        (&net, "eth0", own),
        (gateway, port.as_str(), Ipv4Net::new(first, 20).unwrap()),
    ];
    for (net, link, address) in ends {
        net.add_address(link, address).await.unwrap();
        net.set_up(link, true).await.unwrap();
    }
    for (net, link, _) in ends {
        net.wait_until_carrying(link, LIMIT).await.unwrap();
    }
    let default = Route::new(Ipv4Net::default()).via(first).link("eth0");
    net.set_route(&default).await.unwrap();
    host
}
