//! The switch: a namespace that routes between the hosts, and refuses what is cut or blocked.
//!
//! Routing and not bridging, since routing rules can drop by pair and by protocol without any firewall tool. Links are
//! NOARP with one address on both ends, so no packet waits for ARP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{MacAddr, Namespace, Netlink, Route, Rule, RuleAction, VethEnd};
use ipnet::Ipv4Net;

use crate::lab::Protocol;
use crate::process::ProcessId;
use crate::state::LabState;

/// Priority of the lab's rules in the switch: before the main table.
const PRIORITY: u32 = 100;

/// The hosts' link.
pub(crate) const HOST_LINK: &str = "eth0";

/// The switch's own address, the hosts' default gateway.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 1);

/// The network namespace of a process.
pub(crate) fn namespace_of(process: ProcessId) -> Result<Namespace> {
    Namespace::open(format!("/proc/{}/ns/net", process.pid()))
}

fn net(ip: Ipv4Addr, prefix: u8) -> Result<Ipv4Net> {
    Ipv4Net::new(ip, prefix).map_err(|source| {
        Error::new(ErrorKind::Internal, "a prefix out of range").with_source(source)
    })
}

/// Makes a new namespace a switch.
pub(crate) async fn prepare(switch: &Namespace) -> Result<()> {
    switch.set_sysctls(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.disable_ipv6", "1"),
    ])?;
    let netlink = switch.handle()?;
    netlink.set_up("lo", true).await?;
    netlink.add_address("lo", net(GATEWAY, 32)?).await
}

/// Plugs a host that has just been given power into the switch.
pub(crate) async fn plug(
    switch: &Namespace,
    name: &str,
    ip: Ipv4Addr,
    host: &Namespace,
) -> Result<()> {
    let netlink = switch.handle()?;
    netlink.delete_link(name).await?;
    let [_, _, _, last] = ip.octets();
    // Locally administered, one a host.
    let mac = MacAddr::new([0x02, 0xA2, 0x1A, 0xB0, 0x00, last]);
    netlink
        .add_veth(
            &VethEnd::new(name, switch).mac(mac).no_arp(),
            &VethEnd::new(HOST_LINK, host).mac(mac).no_arp(),
        )
        .await?;
    let inside = host.handle()?;
    inside.set_up("lo", true).await?;
    inside.set_up(HOST_LINK, true).await?;
    netlink.set_up(name, true).await?;
    address(&netlink, &inside, name, ip).await
}

async fn address(netlink: &Netlink, inside: &Netlink, name: &str, ip: Ipv4Addr) -> Result<()> {
    inside.add_address(HOST_LINK, net(ip, 24)?).await?;
    inside
        .set_route(
            &Route::new(net(Ipv4Addr::UNSPECIFIED, 0)?)
                .link(HOST_LINK)
                .via(GATEWAY),
        )
        .await?;
    netlink
        .set_route(&Route::new(net(ip, 32)?).link(name))
        .await
}

/// Gives a host another address.
pub(crate) async fn readdress(
    switch: &Namespace,
    name: &str,
    old: Ipv4Addr,
    new: Ipv4Addr,
    host: Option<&Namespace>,
) -> Result<()> {
    let netlink = switch.handle()?;
    netlink
        .delete_route(&Route::new(net(old, 32)?).link(name))
        .await?;
    let Some(host) = host else { return Ok(()) };
    let inside = host.handle()?;
    address(&netlink, &inside, name, new).await?;
    inside.delete_address(HOST_LINK, net(old, 24)?).await
}

/// Makes the switch let through what it should, and nothing else.
pub(crate) async fn enforce(switch: &Namespace, state: &LabState) -> Result<()> {
    let netlink = switch.handle()?;
    for (name, host) in &state.hosts {
        if host.init.is_some() {
            netlink.set_up(name, !host.unplugged).await?;
            if !host.unplugged {
                // The route went with the link.
                netlink
                    .set_route(&Route::new(net(host.ip, 32)?).link(name))
                    .await?;
            }
        }
    }
    let wanted = rules(state)?;
    for rule in netlink
        .rules()
        .await?
        .iter()
        .filter(|rule| rule.priority == PRIORITY)
    {
        if !wanted.contains(rule) {
            netlink.delete_rule(rule).await?;
        }
    }
    for rule in &wanted {
        netlink.add_rule(rule).await?;
    }
    Ok(())
}

/// What is refused, silently, as a cut cable refuses.
fn rules(state: &LabState) -> Result<BTreeSet<Rule>> {
    let refuse = || Rule::new(PRIORITY, RuleAction::Blackhole);
    let mut rules = BTreeSet::new();
    for (a, b) in &state.cuts {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(host) = state.hosts.get(to) {
                rules.insert(refuse().iif(from.as_str()).to(net(host.ip, 32)?));
            }
        }
    }
    for (name, host) in &state.hosts {
        for protocol in &host.blocked {
            let number = match protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            rules.insert(refuse().iif(name.as_str()).ip_protocol(number));
            rules.insert(refuse().to(net(host.ip, 32)?).ip_protocol(number));
        }
    }
    Ok(rules)
}
