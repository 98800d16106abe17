//! The router itself: what is wished for, and how the kernel comes to have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::overlay::AttachAddr;
use arpanet_core::{
    AppAddr, AppNet, ContainerName, EndpointId, Error, ErrorKind, NodeAddr, Plane, Result,
};
use arpanet_netlink::{Change, Ledger, Namespace, Netlink, Route, Rule};
use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::config::RouterConfig;
use crate::uplink::{Uplink, Way};
use crate::{attach, plan};

/// The link on the host, with 10.255.A.B.
pub const HOST_LINK: &str = "arpanet0";
/// Its other end, in the router.
pub(crate) const ROUTER_LINK: &str = "host0";
/// How long the kernel may take to switch a new link on.
pub(crate) const CARRYING: Duration = Duration::from_secs(5);

/// The router of this node, launched. Its state in the kernel outlives it; one that is opened again finds it.
#[derive(Debug)]
pub struct Router {
    pub(crate) node: NodeAddr,
    config: RouterConfig,
    uplink: Uplink,
    pub(crate) host: Netlink,
    pub(crate) inside: Netlink,
    ledger: Arc<Ledger>,
    pub(crate) state: Mutex<State>,
}

/// What is wished for, and what of it the kernel has.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Of all links, in bytes.
    pub(crate) mtu: u16,
    exposed: BTreeSet<Plane>,
    pub(crate) attached: BTreeMap<AttachAddr, ContainerName>,
    /// Links that a runtime moves, also those that have been taken over.
    pub(crate) plugged: BTreeMap<EndpointId, AppAddr>,
    /// The /8 addresses of the whole cluster.
    allowed: BTreeSet<Ipv4Addr>,
    holds: BTreeMap<NodeAddr, Vec<AppAddr>>,
    /// What an earlier process sent to peers, and nobody has asked for since.
    stale: BTreeMap<Ipv4Addr, Route>,
    rules: Vec<Rule>,
    wide_routes: Vec<Route>,
    /// Networks and /8 addresses that the host refuses to forward to.
    refused: BTreeSet<Ipv4Net>,
    /// The kernel is being brought to what is wished for.
    is_settling: bool,
}

impl State {
    fn application(&self) -> impl Iterator<Item = &AppAddr> {
        let attached = self.attached.keys().filter_map(|addr| match addr {
            AttachAddr::Application(addr) => Some(addr),
            _ => None,
        });
        attached.chain(self.plugged.values())
    }

    /// /8 addresses, also those attached here that the cluster has not told of yet.
    fn wide(&self) -> BTreeSet<Ipv4Addr> {
        let own = self.application().filter(|addr| addr.net().is_none());
        own.map(|addr| addr.ip())
            .chain(self.allowed.iter().copied())
            .collect()
    }

    /// What peers hold, and one of those who do.
    fn held(&self) -> BTreeMap<Ipv4Addr, NodeAddr> {
        let holds = self.holds.iter();
        holds
            .flat_map(|(peer, holds)| holds.iter().map(|addr| (addr.ip(), *peer)))
            .collect()
    }

    fn wide_routes(&self, uplink: &Uplink, node: NodeAddr) -> Vec<Route> {
        let own: BTreeSet<Ipv4Addr> = self.application().map(|addr| addr.ip()).collect();
        let theirs = self.held();
        self.wide()
            .into_iter()
            .filter_map(|ip| {
                if own.contains(&ip) {
                    Some(plan::to_container(&attach::link_of(ip), ip))
                } else {
                    let peer = theirs.get(&ip)?;
                    Some(plan::to_peer(uplink, node, *peer, ip))
                }
            })
            .map(plan::wide)
            .collect()
    }

    /// Networks and /8 addresses in use, as far as this node knows.
    fn in_use(&self) -> BTreeSet<Ipv4Net> {
        let networks = plan::networks(self.application().chain(self.holds.values().flatten()));
        let wide = self.wide().into_iter().map(Ipv4Net::from);
        networks.into_iter().map(AppNet::cidr).chain(wide).collect()
    }
}

impl Router {
    /// Makes the router and the host's way to it, or mends what an earlier process made.
    ///
    /// # Errors
    /// Those of the kernel and of the ledger, in which what was made until then stands: the caller rolls it back.
    pub async fn launch(
        config: &RouterConfig,
        uplink: Uplink,
        host: Netlink,
        ledger: Arc<Ledger>,
        node: NodeAddr,
        mtu: u16,
    ) -> Result<Self> {
        let inside = plumb(config, &host, &ledger, node, mtu).await?;
        attach::clean(&inside).await?;
        let state = State {
            mtu,
            ..Self::adopt(&uplink, &inside, &ledger).await?
        };
        attach::resize(&inside, mtu).await?;
        let router = Self {
            node,
            config: config.clone(),
            uplink,
            host,
            inside,
            ledger,
            state: Mutex::new(state),
        };
        router.settle(&mut *router.state.lock().await).await?;
        Ok(router)
    }

    /// Makes again what somebody has unmade, and gives all links this MTU, in bytes.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub async fn mend(&self, mtu: u16) -> Result<()> {
        let mut state = self.state.lock().await;
        plumb(&self.config, &self.host, &self.ledger, self.node, mtu).await?;
        state.mtu = mtu;
        self.inside.set_mtu(&self.uplink.link, mtu.into()).await?;
        attach::resize(&self.inside, mtu).await?;
        let now = Self::adopt(&self.uplink, &self.inside, &self.ledger).await?;
        state.rules = now.rules;
        state.wide_routes = now.wide_routes;
        let routes: Vec<Route> = state
            .holds
            .iter()
            .flat_map(|(peer, holds)| {
                let addresses = plan::addresses_of_peer(*peer, holds);
                addresses.into_iter().map(|ip| self.to_peer(*peer, ip))
            })
            .collect();
        self.inside.set_routes(&routes).await?;
        self.settle(&mut state).await
    }

    /// What an earlier process left in the kernel.
    async fn adopt(uplink: &Uplink, inside: &Netlink, ledger: &Ledger) -> Result<State> {
        let routes = inside.routes().await?;
        let wide_routes = routes
            .iter()
            .filter(|route| route.table == plan::TABLE_WIDE && route.link.is_some())
            .cloned()
            .collect();
        let stale = routes
            .iter()
            .filter(|route| plan::is_to_peer(uplink, route))
            .map(|route| (route.destination.addr(), route.clone()))
            .collect();
        let rules: Vec<Rule> = inside.rules().await?;
        let rules: Vec<Rule> = rules.into_iter().filter(plan::is_changing).collect();
        let allowed = rules
            .iter()
            .filter(|rule| rule.priority == plan::WIDE)
            .filter_map(|rule| Some(rule.from?.addr()))
            .collect();
        let refused = ledger.standing().await;
        let attach::Holdings { attached, plugged } = attach::adopt(&inside.links().await?);
        Ok(State {
            attached,
            plugged,
            allowed,
            stale,
            rules,
            wide_routes,
            refused: refused.iter().filter_map(plan::refused).collect(),
            ..State::default()
        })
    }

    /// The namespace, in which the uplink and the cluster's DNS server are.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        self.inside.namespace()
    }

    /// Readies the uplink, which has to be there: lets in what it brings, since who may send from which address is for
    /// what is behind it to check, and where it is an Ethernet answers there for what is behind this router.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the uplink is not there.
    pub async fn trust_uplink(&self) -> Result<()> {
        let link = &self.uplink.link;
        let mut settings = vec![(format!("net.ipv4.conf.{link}.rp_filter"), "0")];
        if self.uplink.way == Way::Ethernet {
            settings.push((format!("net.ipv4.conf.{link}.proxy_arp"), "1"));
            settings.push((format!("net.ipv4.neigh.{link}.proxy_delay"), "0"));
            // What is asked before the way is there is lost, and a second, which the kernel waits, is most of a join.
            settings.push((format!("net.ipv4.neigh.{link}.retrans_time_ms"), "100"));
        }
        for (name, value) in settings {
            self.namespace().set_sysctl(&name, value)?;
        }
        if self.uplink.way == Way::Ethernet {
            // What it asks with. Else the kernel takes an address that the others have too.
            self.inside
                .add_address(link, self.node.docker().into())
                .await?;
        }
        self.inside.set_up(link, true).await
    }

    fn to_peer(&self, peer: NodeAddr, ip: Ipv4Addr) -> Route {
        plan::to_peer(&self.uplink, self.node, peer, ip)
    }

    /// Sends what is meant for a peer to it, and nothing more. Returns the addresses. One that is attached here
    /// too is in dispute, and goes to the container here until the cluster detaches it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn set_peer(&self, peer: NodeAddr, holds: &[AppAddr]) -> Result<BTreeSet<Ipv4Addr>> {
        let mut state = self.state.lock().await;
        let wanted = plan::addresses_of_peer(peer, holds);
        let before = state
            .holds
            .insert(peer, holds.to_vec())
            .map(|holds| plan::addresses_of_peer(peer, &holds))
            .unwrap_or_default();
        let new: Vec<Route> = wanted
            .difference(&before)
            .map(|ip| self.to_peer(peer, *ip))
            .collect();
        self.inside.set_routes(&new).await?;
        state.stale.retain(|ip, _| !wanted.contains(ip));
        self.drop_unheld(&state, peer, before.difference(&wanted))
            .await?;
        self.settle(&mut state).await?;
        Ok(wanted)
    }

    /// Sends nothing to a peer any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn remove_peer(&self, peer: NodeAddr) -> Result<()> {
        let mut state = self.state.lock().await;
        let Some(holds) = state.holds.remove(&peer) else {
            return Ok(());
        };
        let addresses = plan::addresses_of_peer(peer, &holds);
        self.drop_unheld(&state, peer, addresses.iter()).await?;
        self.settle(&mut state).await
    }

    /// Removes the routes to those of one peer's addresses that no other holds, and sends the rest to the other.
    async fn drop_unheld(
        &self,
        state: &State,
        peer: NodeAddr,
        addresses: impl Iterator<Item = &Ipv4Addr>,
    ) -> Result<()> {
        let mut addresses = addresses.peekable();
        if addresses.peek().is_none() {
            return Ok(());
        }
        let held = state.held();
        let (mut gone, mut moved) = (Vec::new(), Vec::new());
        for ip in addresses {
            match held.get(ip) {
                Some(other) => moved.push(self.to_peer(*other, *ip)),
                None => gone.push(self.to_peer(peer, *ip)),
            }
        }
        self.inside.set_routes(&moved).await?;
        self.inside.delete_routes(&gone).await
    }

    /// Removes the routes of an earlier process that nobody has asked for since. Without a route a packet is answered;
    /// with one it waits for a peer that does not come.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn drop_stale(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let stale = std::mem::take(&mut state.stale);
        let gone: Vec<Route> = stale.into_values().collect();
        self.inside.delete_routes(&gone).await
    }

    /// Answers at this node's address in a plane, or refuses.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for planes that are not the router's.
    pub async fn expose(&self, plane: Plane, exposed: bool) -> Result<()> {
        match plane {
            Plane::Docker | Plane::Discovery => {}
            Plane::Overlay if exposed => return Ok(()),
            Plane::Overlay => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "a node's own overlay address can't be hidden",
                )
                .with_hint("stop takes a node off the overlay"));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "a plugin's address is its container's: attach it",
                ));
            }
        }
        let mut state = self.state.lock().await;
        if exposed {
            state.exposed.insert(plane);
        } else {
            state.exposed.remove(&plane);
        }
        self.settle(&mut state).await
    }

    /// The /8 addresses of the whole cluster.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        let mut state = self.state.lock().await;
        state.allowed = addrs.iter().map(|addr| addr.ip()).collect();
        self.settle(&mut state).await
    }

    /// Brings the kernel to what is wished for. What is new comes before what is old goes.
    pub(crate) async fn settle(&self, state: &mut State) -> Result<()> {
        if state.is_settling {
            // A call that was dropped in between, or failed, has made some of it.
            let now = Self::adopt(&self.uplink, &self.inside, &self.ledger).await?;
            state.rules = now.rules;
            state.wide_routes = now.wide_routes;
            state.refused = now.refused;
        }
        state.is_settling = true;
        let routes = state.wide_routes(&self.uplink, self.node);
        let (old_routes, new_routes) = plan::difference(&state.wide_routes, &routes);
        self.inside.set_routes(&new_routes).await?;
        let within = plan::networks(state.application());
        let rules = plan::changing_rules(self.node, &state.exposed, &state.wide(), &within);
        let (old_rules, new_rules) = plan::difference(&state.rules, &rules);
        for rule in &new_rules {
            self.inside.add_rule(rule).await?;
        }
        for rule in &old_rules {
            self.inside.delete_rule(rule).await?;
        }
        state.rules = rules;
        self.inside.delete_routes(&old_routes).await?;
        state.wide_routes = routes;
        let in_use = state.in_use();
        let new: Vec<Change> = in_use
            .difference(&state.refused)
            .map(|net| plan::host_refuses(*net))
            .collect();
        self.ledger.apply_all(new).await?;
        for net in state.refused.difference(&in_use) {
            self.ledger.undo(&plan::host_refuses(*net)).await?;
        }
        state.refused = in_use;
        state.is_settling = false;
        Ok(())
    }
}

/// The parts that are always there: the namespace, the link between it and the host, and the rules of both.
async fn plumb(
    config: &RouterConfig,
    host: &Netlink,
    ledger: &Ledger,
    node: NodeAddr,
    mtu: u16,
) -> Result<Netlink> {
    let pin = Change::PinNamespace {
        path: config.pin.clone(),
    };
    let links = plan::host_links(config, node, mtu);
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let routes = plan::host_routes(config, node, plan::last_user(&uid_map));
    // What an earlier start of another node, or with another MTU, has left.
    for standing in ledger.standing().await.into_iter().rev() {
        let wanted = standing == pin
            || links.contains(&standing)
            || routes.contains(&standing)
            || plan::refused(&standing).is_some();
        if !wanted {
            ledger.undo(&standing).await?;
        }
    }
    ledger.apply(pin).await?;
    let namespace = Namespace::open(&config.pin)?;
    namespace.set_sysctls(plan::SETTINGS)?;
    let inside = namespace.handle()?;
    inside.set_up("lo", true).await?;
    for address in plan::router_addresses(node) {
        inside.add_address("lo", address).await?;
    }
    ledger.apply_all(links).await?;
    host.set_up(HOST_LINK, true).await?;
    inside.set_up(ROUTER_LINK, true).await?;
    host.wait_until_carrying(HOST_LINK, CARRYING).await?;
    inside.wait_until_carrying(ROUTER_LINK, CARRYING).await?;
    inside.set_routes(&plan::wide_refusals()).await?;
    inside.set_route(&plan::to_host(node)).await?;
    for rule in plan::router_rules() {
        inside.add_rule(&rule).await?;
    }
    inside.delete_rule(&plan::replaced_rule()).await?;
    ledger.apply_all(routes).await?;
    Ok(inside)
}
