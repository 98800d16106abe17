//! Which rules and routes a node has, as pure functions: what isolates, in one place.
//!
//! The host decides by rules which of its packets may reach the router; the router decides by rules which container may
//! reach what. Nothing is filtered: a packet without a route is answered "administratively prohibited" by the kernel.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use arpanet_core::addr::{OVERLAY, PluginBlock, ROUTER_ADDRESS, application_range, system_range};
use arpanet_core::{AppAddr, AppNet, NodeAddr, Plane};
use arpanet_netlink::{
    Change, MacAddr, Route, Rule, RuleAction, TABLE_LOCAL, TABLE_MAIN, VethPair,
};
use ipnet::Ipv4Net;

use crate::config::RouterConfig;
use crate::router::{HOST_LINK, ROUTER_LINK};
use crate::uplink::{Uplink, Way};

/// The host's table with the way to the overlay. Rules and table have the number of the line that they implement.
const TABLE_OVERLAY: u32 = 1010;
/// The router's table of what system parts and /8 containers reach in the application range.
pub(crate) const TABLE_WIDE: u32 = 90;

/// What the tunnel's own packets on the underlay are marked with (SO_MARK): those with this mark, in all of its bits, take
/// the host's own routes also to addresses in 10/8, never the overlay.
pub const UNDERLAY_MARK: u32 = 0xA2;

/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Router: planes that are not exposed.
pub(crate) const HIDDEN: u32 = 40;
/// Router: what /8 addresses reach, three rules for each.
pub(crate) const WIDE: u32 = 88;
/// Router: containers of one network reach each other.
pub(crate) const WITHIN: u32 = 100;
/// Host: application networks and /8 addresses in use, refused to everybody but the host itself.
const IN_USE: u32 = 1016;

/// The kernel's rule for a machine's own addresses, which is asked first unless it is moved. `RTPROT_KERNEL`.
fn local_of_the_kernel() -> Rule {
    let mut rule = lookup(0, TABLE_LOCAL);
    rule.protocol = 2;
    rule
}

const fn lookup(priority: u32, table: u32) -> Rule {
    Rule::new(priority, RuleAction::Lookup(table))
}

const fn prohibit(priority: u32) -> Rule {
    Rule::new(priority, RuleAction::Prohibit)
}

fn single(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(ip)
}

/// An Ethernet address that follows from the overlay's: locally administered.
pub(crate) fn mac_of(ip: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = ip.octets();
    MacAddr::new([0x02, 0xA2, a, b, c, d])
}

/// The host's side before its links are up.
pub(crate) fn host_links(config: &RouterConfig, node: NodeAddr, mtu: u16) -> Vec<Change> {
    let pair = VethPair::new(
        HOST_LINK,
        ROUTER_LINK,
        config.pin.clone(),
        mac_of(node.overlay()),
        u32::from(mtu),
    );
    vec![Change::AddVeth(pair)]
}

/// The host's side once its links are up. The order matters: the address's own rules come before the kernel's is moved.
pub(crate) fn host_routes(
    config: &RouterConfig,
    node: NodeAddr,
    users: Option<u32>,
) -> Vec<Change> {
    let me = single(node.overlay());
    let overlay = Route::new(OVERLAY)
        .link(HOST_LINK)
        .source(node.overlay())
        .table(TABLE_OVERLAY);
    let mut rules = vec![
        lookup(1000, TABLE_LOCAL).iif("lo"),
        lookup(1001, TABLE_LOCAL).iif(HOST_LINK).to(me),
    ];
    // The docker API is root on the host: not for its ordinary users.
    if let Some(last) = users.filter(|_| !config.open_docker_plane) {
        let docker = Plane::Docker.cidr();
        rules.push(prohibit(1002).iif("lo").uids(1, last).to(docker));
    }
    // A peer may be in 10/8 behind the default route. Its packets take the underlay or none: never the overlay.
    let marked = |rule: Rule| rule.iif("lo").mark(UNDERLAY_MARK);
    rules.push(marked(lookup(1003, TABLE_MAIN)));
    // By the port too: a host that filters sources strictly looks for the way back, and that has no mark.
    let from_port = |protocol, port| {
        let rule = lookup(1003, TABLE_MAIN).iif("lo");
        rule.ip_protocol(protocol).source_port(port)
    };
    let tunnels = [Some(config.port), config.tunnel_port];
    rules.extend(
        tunnels
            .into_iter()
            .flatten()
            .map(|port| from_port(UDP, port)),
    );
    // The kernel looks at ports on the way back only if a rule for packets that come in asks for them
    // (fib_rule_requires_fldissect): this one changes nothing else.
    let asking = lookup(1002, TABLE_LOCAL).iif(HOST_LINK).to(me);
    rules.push(asking.ip_protocol(UDP).source_port(config.port));
    // Those who join come by TCP; connections inside the overlay may have the same port.
    rules.extend(application_range().map(|range| from_port(TCP, config.port).to(range)));
    rules.push(marked(Rule::new(1004, RuleAction::Unreachable)));
    rules.push(lookup(1005, TABLE_MAIN).iif("lo").suppress_prefixlength(8));
    rules.push(lookup(TABLE_OVERLAY, TABLE_OVERLAY).iif("lo").to(OVERLAY));
    rules.extend(system_range().map(|range| prohibit(1015).to(range)));
    let mut changes = vec![
        Change::AddAddress {
            link: HOST_LINK.to_owned(),
            address: me,
        },
        Change::AddRoute(overlay),
    ];
    changes.extend(rules.into_iter().map(Change::AddRule));
    changes.push(Change::MoveRule {
        from: local_of_the_kernel(),
        to: lookup(1020, TABLE_LOCAL),
    });
    changes
}

/// The host refuses addresses of applications to everybody else who forwards through it.
pub(crate) fn host_refuses(net: Ipv4Net) -> Change {
    Change::AddRule(prohibit(IN_USE).to(net))
}

/// The addresses that such a change refuses.
pub(crate) fn refused(change: &Change) -> Option<Ipv4Net> {
    match change {
        Change::AddRule(rule) if rule.priority == IN_USE => rule.to,
        _ => None,
    }
}

/// The router's settings, in this order: forwarding resets others, and IPv6 goes before there are links.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "1"),
    // The kernel answers five refused packets of one source at once and then one a second (ip_error). Its limit for ICMP
    // takes from the same account, and with a rate of 0 it empties it: so no kind of message is under that limit.
    ("net.ipv4.icmp_ratemask", "0"),
];

/// The router's own addresses, on its `lo`.
pub(crate) fn router_addresses(node: NodeAddr) -> [Ipv4Net; 3] {
    [ROUTER_ADDRESS, node.docker(), node.discovery()].map(single)
}

/// The rules that the router has always.
pub(crate) fn router_rules() -> Vec<Rule> {
    let mut rules = vec![lookup(50, TABLE_LOCAL).to(single(ROUTER_ADDRESS))];
    rules.extend(application_range().map(|range| prohibit(200).from(range)));
    rules.push(lookup(300, TABLE_LOCAL));
    // Sources that are left in the range: hosts, planes and plugins. They reach no application but the /8 ones.
    rules.push(lookup(400, TABLE_WIDE).from(Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 12)));
    rules
}

/// The kernel's rule that [`router_rules`] replace.
pub(crate) fn replaced_rule() -> Rule {
    local_of_the_kernel()
}

/// What is refused in the application range to those who look into [`TABLE_WIDE`].
pub(crate) fn wide_refusals() -> [Route; 5] {
    application_range().map(|range| Route::prohibit(range).table(TABLE_WIDE))
}

/// The rules that follow from what is exposed, attached and allowed.
pub(crate) fn changing_rules(
    node: NodeAddr,
    exposed: &BTreeSet<Plane>,
    wide: &BTreeSet<Ipv4Addr>,
    within: &BTreeSet<AppNet>,
) -> Vec<Rule> {
    let hidden = [Plane::Docker, Plane::Discovery]
        .into_iter()
        .filter(|plane| !exposed.contains(plane))
        .map(|plane| prohibit(HIDDEN).to(single(node.in_plane(plane))));
    let wide = wide.iter().flat_map(|ip| {
        let from = |priority, table| lookup(priority, table).from(single(*ip));
        [
            from(WIDE, TABLE_WIDE),
            from(WIDE + 1, TABLE_LOCAL),
            from(WIDE + 2, TABLE_MAIN),
        ]
    });
    let within = within
        .iter()
        .map(|net| lookup(WITHIN, TABLE_MAIN).from(net.cidr()).to(net.cidr()));
    hidden.chain(wide).chain(within).collect()
}

/// Whether a rule is one of [`changing_rules`], of whatever time.
pub(crate) const fn is_changing(rule: &Rule) -> bool {
    matches!(rule.priority, HIDDEN | WITHIN) || (rule.priority >= WIDE && rule.priority <= WIDE + 2)
}

/// The addresses that belong to a node whatever runs on it.
pub(crate) fn own_addresses(node: NodeAddr) -> impl Iterator<Item = Ipv4Addr> {
    let plugins = (241..=252).filter_map(PluginBlock::new).map(Plane::Plugin);
    [Plane::Overlay, Plane::Docker, Plane::Discovery]
        .into_iter()
        .chain(plugins)
        .map(move |plane| node.in_plane(plane))
}

/// What is sent to a peer, and what it may send from.
pub(crate) fn addresses_of_peer(node: NodeAddr, holds: &[AppAddr]) -> BTreeSet<Ipv4Addr> {
    own_addresses(node)
        .chain(holds.iter().map(|addr| addr.ip()))
        .collect()
}

/// What tells routes to peers from others.
const PEER_METRIC: u32 = 100;

/// The way to an address of another node. The source is for the router's own packets, refusals above all. On an Ethernet
/// the other router answers for its host, and takes what is meant for everything else behind it: so an address that moves
/// moves with its route, and no router remembers for a while where it was.
pub(crate) fn to_peer(uplink: &Uplink, me: NodeAddr, peer: NodeAddr, ip: Ipv4Addr) -> Route {
    let route = Route::new(single(ip))
        .link(&uplink.link)
        .source(me.docker())
        .metric(PEER_METRIC);
    match uplink.way {
        Way::Ethernet if ip != peer.overlay() => route.via(peer.overlay()).onlink(),
        _ => route,
    }
}

/// Whether a route is one of [`to_peer`], of whatever peer.
pub(crate) fn is_to_peer(uplink: &Uplink, route: &Route) -> bool {
    route.link.as_deref() == Some(&uplink.link)
        && route.table == TABLE_MAIN
        && route.metric == PEER_METRIC
}

/// The way to the host.
pub(crate) fn to_host(node: NodeAddr) -> Route {
    Route::new(single(node.overlay()))
        .link(ROUTER_LINK)
        .source(node.docker())
}

/// The way to a container.
pub(crate) fn to_container(link: &str, ip: Ipv4Addr) -> Route {
    Route::new(single(ip)).link(link).source(ROUTER_ADDRESS)
}

/// The same way in [`TABLE_WIDE`].
pub(crate) const fn wide(route: Route) -> Route {
    route.table(TABLE_WIDE)
}

/// The largest user id of this user namespace, from the text of its `uid_map`; `None` where root is the only user.
pub(crate) fn last_user(uid_map: &str) -> Option<u32> {
    uid_map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(first.ok()? + count.ok()? - 1)
        })
        .max()
        .and_then(|last| u32::try_from(last.min(u64::from(u32::MAX - 1))).ok())
        .filter(|last| *last > 0)
}

/// Differences that bring one set of rules or routes to another: what goes, and what comes.
pub(crate) fn difference<T: Clone + PartialEq>(now: &[T], wanted: &[T]) -> (Vec<T>, Vec<T>) {
    let without = |all: &[T], other: &[T]| {
        all.iter()
            .filter(|item| !other.contains(item))
            .cloned()
            .collect()
    };
    (without(now, wanted), without(wanted, now))
}

/// Networks with the containers that are in them here.
pub(crate) fn networks<'a>(attached: impl IntoIterator<Item = &'a AppAddr>) -> BTreeSet<AppNet> {
    attached.into_iter().filter_map(|addr| addr.net()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_is_that_of_the_user_namespace() {
        assert_eq!(
            last_user("         0          0 4294967295\n"),
            Some(4_294_967_294)
        );
        assert_eq!(last_user("0 1000 1\n"), None);
        assert_eq!(last_user("0 1000 1\n1 100000 65536\n"), Some(65_536));
        assert_eq!(last_user("garbage"), None);
    }

    #[test]
    fn system_and_application_range_are_the_overlay() {
        let all: Vec<Ipv4Net> = system_range()
            .into_iter()
            .chain(application_range())
            .collect();
        assert_eq!(Ipv4Net::aggregate(&all), [OVERLAY]);
    }

    #[test]
    fn a_peer_has_its_planes_its_plugins_and_what_it_holds() {
        let node: NodeAddr = "2.12".parse().unwrap();
        let addresses = addresses_of_peer(node, &["10.1.0.5/16".parse().unwrap()]);
        assert_eq!(addresses.len(), 16);
        for ip in [
            "10.255.2.12",
            "10.254.2.12",
            "10.253.2.12",
            "10.241.2.12",
            "10.252.2.12",
            "10.1.0.5",
        ] {
            assert!(addresses.contains(&ip.parse::<Ipv4Addr>().unwrap()), "{ip}");
        }
    }

    #[test]
    fn on_an_ethernet_the_other_router_is_the_next_hop_of_all_but_its_host() {
        let (me, peer): (NodeAddr, NodeAddr) = ("0.1".parse().unwrap(), "0.2".parse().unwrap());
        let held: Ipv4Addr = "10.1.0.5".parse().unwrap();
        for (uplink, hop) in [
            (Uplink::tunnel("wg0"), None),
            (Uplink::ethernet("weave0"), Some(peer.overlay())),
        ] {
            for (ip, hop) in [(held, hop), (peer.docker(), hop), (peer.overlay(), None)] {
                let route = to_peer(&uplink, me, peer, ip);
                assert_eq!((route.via, route.onlink), (hop, hop.is_some()), "{ip}");
                assert!(is_to_peer(&uplink, &route) && !is_to_peer(&uplink, &wide(route)));
            }
        }
    }

    #[test]
    fn networks_are_refused_by_rules_that_name_them() {
        let net: Ipv4Net = "10.1.0.0/16".parse().unwrap();
        assert_eq!(refused(&host_refuses(net)), Some(net));
        assert_eq!(refused(&Change::AddRule(prohibit(1015).to(net))), None);
    }
}
