//! Containers: one link for each address, named after it, whose note says whose it is. Nothing of it is kept elsewhere.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use arpanet_core::addr::{OVERLAY, PluginBlock, ROUTER_ADDRESS, system_range};
use arpanet_core::overlay::{AttachAddr, Attachment, NetNamespace, Plug};
use arpanet_core::{AppAddr, ContainerName, EndpointId, Error, ErrorKind, NodeAddr, Plane, Result};
use arpanet_netlink::{Link, MacAddr, Namespace, Netlink, Route, VethEnd};
use ipnet::Ipv4Net;

use crate::plan;
use crate::router::{CARRYING, Router, State};

/// What the names of containers' links begin with.
const PREFIX: &str = "ap";
/// What the kernel keeps of a note, in bytes.
const LONGEST_NOTE: usize = 255;
/// What the note of a plugin's link has in the place of an address.
const PLUGIN: &str = "plugin:";
/// What stands before an endpoint's id in a note: no name of a container has it.
const ENDPOINT: char = '+';
/// Metrics of routes in a container start here, so that the image's own routes win.
const METRIC: u32 = 1000;

/// The name of the link of an address, at both ends.
pub(crate) fn link_of(ip: Ipv4Addr) -> String {
    format!("{PREFIX}{:08x}", u32::from(ip))
}

fn is_ours(link: &str) -> bool {
    let digits = link.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// What stands on a link: whose it is, and where its other end was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// None while a runtime has not yet put the other end into one that runs.
    pub(crate) container: Option<ContainerName>,
    /// Where a runtime moves the other end.
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) addr: AttachAddr,
    namespace: Option<PathBuf>,
}

impl Note {
    fn new(attachment: &Attachment) -> Self {
        let namespace = match &attachment.namespace {
            NetNamespace::Path(path) => Some(path.clone()),
            _ => None,
        };
        Self {
            container: Some(attachment.container.clone()),
            endpoint: None,
            addr: attachment.addr,
            namespace,
        }
    }

    pub(crate) fn plugged(plug: &Plug) -> Self {
        Self {
            container: None,
            endpoint: Some(plug.endpoint.clone()),
            addr: AttachAddr::Application(plug.addr),
            namespace: None,
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (holder, addr) = (parts.next()?, parts.next()?);
        let addr = match addr.strip_prefix(PLUGIN) {
            Some(octet) => AttachAddr::Plugin(PluginBlock::new(octet.parse().ok()?)?),
            None => AttachAddr::Application(addr.parse().ok()?),
        };
        let (container, endpoint) = match holder.split_once(ENDPOINT) {
            None => (holder, None),
            Some((container, endpoint)) => (container, Some(endpoint.parse().ok()?)),
        };
        let container = match container {
            "" if endpoint.is_some() => None,
            container => Some(container.parse().ok()?),
        };
        Some(Self {
            container,
            endpoint,
            addr,
            namespace: parts.next().map(PathBuf::from),
        })
    }

    pub(crate) fn on(link: &Link) -> Option<Self> {
        Self::read(link.alias.as_deref()?)
    }

    /// The kernel keeps 255 bytes: a longer path is left out, and then not found again.
    pub(crate) fn write(&self) -> String {
        let container = self.container.as_ref().map_or("", ContainerName::as_str);
        let holder = match &self.endpoint {
            Some(endpoint) => format!("{container}{ENDPOINT}{endpoint}"),
            None => container.to_owned(),
        };
        let short = match self.addr {
            AttachAddr::Plugin(block) => {
                format!("{holder} {PLUGIN}{}", Plane::Plugin(block).octet())
            }
            AttachAddr::Application(addr) => format!("{holder} {addr}"),
            other => format!("{holder} {other:?}"),
        };
        let path = self.namespace.as_ref().and_then(|path| path.to_str());
        path.map(|path| format!("{short} {path}"))
            .filter(|long| long.len() <= LONGEST_NOTE)
            .unwrap_or(short)
    }
}

/// Whether two links are the ends of one of our pairs. Numbers alone tell nothing: they are small in every namespace.
fn is_pair(near: &Link, far: &Link) -> bool {
    near.peer == Some(far.index)
        && far.peer == Some(near.index)
        && near.mac == far.mac
        && !near.arp
        && !far.arp
}

/// Who has which address, and the endpoints that have a link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) attached: BTreeMap<AttachAddr, ContainerName>,
    pub(crate) plugged: BTreeMap<EndpointId, AppAddr>,
}

/// What is attached and plugged, as the router's links say.
pub(crate) fn adopt(links: &[Link]) -> Holdings {
    let mut holdings = Holdings::default();
    for note in links
        .iter()
        .filter(|link| is_ours(&link.name))
        .filter_map(Note::on)
    {
        if let (Some(endpoint), AttachAddr::Application(addr)) = (note.endpoint, note.addr) {
            holdings.plugged.insert(endpoint, addr);
        }
        if let Some(container) = note.container {
            holdings.attached.insert(note.addr, container);
        }
    }
    holdings
}

/// Takes away the links that an attach has left which was cut short: only the last step gives one its note.
pub(crate) async fn clean(inside: &Netlink) -> Result<()> {
    for link in inside.links().await? {
        if is_ours(&link.name) && Note::on(&link).is_none() {
            inside.delete_link(&link.name).await?;
        }
    }
    Ok(())
}

/// Brings the links of containers, also of those that an earlier process attached, to the MTU, in bytes. Where the other
/// end is not found any more, both stay as they are: the router then tells the container what is too large.
pub(crate) async fn resize(inside: &Netlink, mtu: u16) -> Result<()> {
    let mtu = u32::from(mtu);
    for link in inside.links().await? {
        if !is_ours(&link.name) || link.mtu == mtu {
            continue;
        }
        let path = Note::on(&link).and_then(|note| note.namespace);
        let Some(far) = path.and_then(|path| Namespace::open(path).ok()) else {
            continue;
        };
        let far = far.handle()?;
        let links = far.links().await?;
        let Some(other) = links.iter().find(|other| is_pair(&link, other)) else {
            continue;
        };
        // First the end that must not send what the other would not take any more.
        let order = if mtu < link.mtu {
            [(&far, other), (inside, &link)]
        } else {
            [(inside, &link), (&far, other)]
        };
        for (end, link) in order {
            match end.set_mtu(&link.name, mtu).await {
                // It has gone with its container.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// The address with the prefix that the container sees.
fn inner(node: NodeAddr, addr: AttachAddr) -> Result<Ipv4Net> {
    match addr {
        AttachAddr::Application(addr) => Ok(addr.as_ipnet()),
        AttachAddr::Plugin(block) => Ok(Ipv4Net::from(node.plugin(block))),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{other:?} can't be attached"),
        )),
    }
}

impl Router {
    /// Gives a container an address. When it returns, the address works.
    ///
    /// # Errors
    /// Those of [`Overlay::attach`](arpanet_core::overlay::Overlay::attach).
    pub async fn attach(&self, attachment: &Attachment) -> Result<()> {
        let Attachment {
            container, addr, ..
        } = attachment;
        let address = inner(self.node, *addr)?;
        let mut state = self.state.lock().await;
        if let Some((_, holder)) = state.attached.iter().find(|(other, holder)| {
            *holder != container
                && inner(self.node, **other).is_ok_and(|other| other.addr() == address.addr())
        }) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} is attached to {holder}", address.addr()),
            ));
        }
        let namespace = self.open(attachment)?;
        let inside = namespace.handle()?;
        let links = inside.links().await?;
        let others = self.inside.links().await?;
        let other = others
            .iter()
            .filter(|near| is_ours(&near.name))
            .find_map(|near| {
                let holder = Note::on(near)?.container?;
                let is_here = links.iter().any(|far| is_pair(near, far));
                (holder != *container && is_here).then_some(holder)
            });
        if let Some(other) = other {
            return Err(shared(format!(
                "the namespace of {container} is that of {other} too"
            )));
        }
        self.link(attachment, address, (&inside, &links), state.mtu)
            .await?;
        state.attached.insert(*addr, container.clone());
        if let AttachAddr::Application(own) = addr {
            // The same address with another prefix is another attachment of the same link.
            let own = *own;
            state.attached.retain(|other, _| {
                !matches!(other, AttachAddr::Application(other) if other.ip() == own.ip() && *other != own)
            });
        }
        self.settle(&mut state).await
    }

    fn open(&self, attachment: &Attachment) -> Result<Namespace> {
        let NetNamespace::Path(path) = &attachment.namespace else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} has no network namespace", attachment.container),
            ));
        };
        let namespace = Namespace::open(path)?;
        if namespace.same_as(self.host.namespace()) || namespace.same_as(self.namespace()) {
            return Err(shared(format!(
                "{} has the host's network namespace",
                attachment.container
            )));
        }
        Ok(namespace)
    }

    async fn link(
        &self,
        attachment: &Attachment,
        address: Ipv4Net,
        (inside, links): (&Netlink, &[Link]),
        mtu: u16,
    ) -> Result<()> {
        let ip = address.addr();
        let name = link_of(ip);
        let mut note = Note::new(attachment);
        let near = self.inside.link(&name).await?;
        let old = near.as_ref().and_then(Note::on);
        let far = near
            .as_ref()
            .and_then(|near| links.iter().find(|far| is_pair(near, far)));
        let far = match (far, old) {
            // Its own, or one that a runtime has put there.
            (Some(far), Some(old))
                if old.addr == note.addr
                    && old
                        .container
                        .as_ref()
                        .is_none_or(|holder| *holder == attachment.container) =>
            {
                note.endpoint = old.endpoint;
                if far.mtu != u32::from(mtu) {
                    self.inside.set_mtu(&name, mtu.into()).await?;
                    inside.set_mtu(&far.name, mtu.into()).await?;
                }
                far.name.clone()
            }
            (
                None,
                Some(Note {
                    container: None,
                    endpoint: Some(endpoint),
                    ..
                }),
            ) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "{ip} is for endpoint {endpoint}, and {} has not got its link",
                        attachment.container
                    ),
                ));
            }
            _ => {
                // Half of a pair, of a namespace that is gone, of an earlier prefix, or of an attach that was cut short.
                self.inside.delete_link(&name).await?;
                inside.delete_link(&name).await?;
                self.add_pair(ip, plan::mac_of(ip), inside.namespace(), mtu)
                    .await?;
                name.clone()
            }
        };
        // The image may forward, or check sources strictly: with several addresses answers come by another link.
        let filter = format!("net.ipv4.conf.{far}.rp_filter");
        inside.namespace().set_sysctl(&filter, "2")?;
        inside.add_address(&far, address).await?;
        inside.set_up(&far, true).await?;
        self.inside.set_up(&name, true).await?;
        inside.wait_until_carrying(&far, CARRYING).await?;
        self.inside.wait_until_carrying(&name, CARRYING).await?;
        let index = inside.require_link(&far).await?.index;
        let metric = METRIC.saturating_add(index);
        let way = |to: Ipv4Net| Route::new(to).link(&far).source(ip).metric(metric);
        let mut ways = vec![way(Ipv4Net::from(ROUTER_ADDRESS))];
        // What a runtime moves there may be joined by more of its kind, which it refuses where a route leads already.
        let overlay = match note.endpoint {
            Some(_) => system_range().to_vec(),
            None => vec![OVERLAY],
        };
        ways.extend(
            overlay
                .into_iter()
                .map(|to| way(to).via(ROUTER_ADDRESS).onlink()),
        );
        inside.set_routes(&ways).await?;
        let mut routes = vec![plan::to_container(&name, ip)];
        if matches!(attachment.addr, AttachAddr::Application(addr) if addr.net().is_none()) {
            routes.push(plan::wide(routes[0].clone()));
        }
        self.inside.set_routes(&routes).await?;
        // The last: a link without a note is half made.
        self.inside.set_alias(&name, &note.write()).await
    }

    /// Takes an address from a container.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        let mut state = self.state.lock().await;
        let ip = inner(self.node, addr)?.addr();
        let is_same =
            |other: &AttachAddr| inner(self.node, *other).is_ok_and(|other| other.addr() == ip);
        let holder = state.attached.iter().find(|(other, _)| is_same(other));
        if holder.is_some_and(|holder| holder != (&addr, container)) {
            return Ok(());
        }
        let name = link_of(ip);
        let note = self.inside.link(&name).await?.as_ref().and_then(Note::on);
        match note {
            // On its way to the next container with this address.
            Some(Note {
                container: None,
                endpoint: Some(_),
                ..
            }) => {}
            // Also where nobody holds it: an attach that was cut short may have left its link.
            note => {
                self.inside.delete_link(&name).await?;
                if let Some(endpoint) = note.and_then(|note| note.endpoint) {
                    state.plugged.remove(&endpoint);
                }
            }
        }
        state.attached.remove(&addr);
        self.settle(&mut state).await
    }

    /// What is attached. A link that went with its container's namespace is attached no longer.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        let mut state = self.state.lock().await;
        self.look(&mut state).await?;
        Ok(state
            .attached
            .iter()
            .map(|(addr, container)| (container.clone(), *addr))
            .collect())
    }

    /// Brings what is known of links to what is there.
    pub(crate) async fn look(&self, state: &mut State) -> Result<()> {
        let Holdings { attached, plugged } = adopt(&self.inside.links().await?);
        if attached != state.attached || plugged != state.plugged {
            state.attached = attached;
            state.plugged = plugged;
            self.settle(state).await?;
        }
        Ok(())
    }

    /// Makes the pair of an address, both ends down, one in the router and one there.
    pub(crate) async fn add_pair(
        &self,
        ip: Ipv4Addr,
        mac: MacAddr,
        there: &Namespace,
        mtu: u16,
    ) -> Result<()> {
        let name = link_of(ip);
        let end = |namespace| {
            VethEnd::new(&name, namespace)
                .mac(mac)
                .mtu(mtu.into())
                .no_arp()
        };
        self.inside
            .add_veth(&end(self.namespace()), &end(there))
            .await
    }
}

fn shared(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
        .with_hint("a container needs a network namespace of its own to be attached")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_whose_the_address_is() {
        let container: ContainerName = "w1".parse().unwrap();
        let block = PluginBlock::new(242).unwrap();
        for addr in [
            AttachAddr::Application("10.1.0.5/16".parse().unwrap()),
            AttachAddr::Application("10.1.0.5/8".parse().unwrap()),
            AttachAddr::Plugin(block),
        ] {
            for path in ["/proc/1/ns/net", "/run/with a space/net"] {
                let namespace = NetNamespace::Path(path.into());
                let note = Note::new(&Attachment::new(container.clone(), namespace, addr));
                assert_eq!(Note::read(&note.write()), Some(note));
            }
            let long = NetNamespace::Path("/long".repeat(50).into());
            let note = Note::new(&Attachment::new(container.clone(), long, addr));
            assert!(note.write().len() <= LONGEST_NOTE);
            let read = Note::read(&note.write()).unwrap();
            assert_eq!((read.addr, read.namespace), (addr, None));
        }
        let plug = Plug::new("6a9c03".parse().unwrap(), "10.1.0.5/16".parse().unwrap());
        let plugged = Note::plugged(&plug);
        assert_eq!(Note::read(&plugged.write()), Some(plugged.clone()));
        let taken_over = Note {
            container: Some(container),
            namespace: Some("/proc/1/ns/net".into()),
            ..plugged
        };
        assert_eq!(Note::read(&taken_over.write()), Some(taken_over));
        for foreign in [
            "",
            "+ 10.1.0.5/16",
            "w1",
            "w1 ",
            "w1 plugin:7",
            "_w 10.1.0.5/16",
            "w1 10.255.0.1/16",
        ] {
            assert_eq!(Note::read(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_link_has_the_name_of_its_address() {
        let name = link_of(Ipv4Addr::new(10, 1, 0, 5));
        assert_eq!(name, "ap0a010005");
        assert!(is_ours(&name) && !is_ours("ap0") && !is_ours("apache-link"));
    }
}
