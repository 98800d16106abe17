//! Links: veth pairs, and the state of every other kind.

use std::fmt;
use std::io;
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use serde::{Deserialize, Serialize};

use crate::error::{own, system};
use crate::{Namespace, Netlink};

/// The longest name that the kernel takes, IFNAMSIZ without its end.
const LONGEST_NAME: usize = 15;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number, which a new link of the same name does not get again.
    pub index: u32,
    /// `veth`, `tun`, `bridge`, …; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it asks for neighbours' Ethernet addresses (false: NOARP).
    pub arp: bool,
    /// The number of the other end of a veth pair, in the namespace of that end.
    pub peer: Option<u32>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// A note that anybody may leave on a link.
    pub alias: Option<String>,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VethEnd {
    name: String,
    namespace: Namespace,
    mac: Option<MacAddr>,
    mtu: Option<u32>,
    arp: bool,
}

impl VethEnd {
    /// An end of this name in this namespace.
    #[must_use]
    pub fn new(name: impl Into<String>, namespace: &Namespace) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.clone(),
            mac: None,
            mtu: None,
            arp: true,
        }
    }

    /// With this Ethernet address, not a random one.
    #[must_use]
    pub const fn mac(mut self, mac: MacAddr) -> Self {
        self.mac = Some(mac);
        self
    }

    /// With this MTU, in bytes, not 1500.
    #[must_use]
    pub const fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// With NOARP: packets go to the end's own Ethernet address. If both ends have the same, the other end takes them,
    /// and the pair behaves as a point-to-point link without a link layer.
    #[must_use]
    pub const fn no_arp(mut self) -> Self {
        self.arp = false;
        self
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        if !self.arp {
            message.header.flags = LinkFlags::Noarp;
            message.header.change_mask = LinkFlags::Noarp;
        }
        message
            .attributes
            .push(LinkAttribute::IfName(self.name.clone()));
        message
            .attributes
            .push(LinkAttribute::NetNsFd(self.namespace.raw()));
        message
            .attributes
            .extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message
    }
}

impl Netlink {
    /// All links.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they change faster than they can be read.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let entries = self
            .dump(
                RouteNetlinkMessage::GetLink(LinkMessage::default()),
                "links",
            )
            .await?;
        Ok(entries.into_iter().filter_map(link).collect())
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// As [`links`](Self::links).
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        Ok(self
            .links()
            .await?
            .into_iter()
            .find(|link| link.name == name))
    }

    /// The link of this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn require_link(&self, name: &str) -> Result<Link> {
        let link = self.link(name).await?;
        link.ok_or_else(|| {
            own(
                "find a link",
                ErrorKind::NotFound,
                format!("there is no link {name}"),
            )
        })
    }

    /// Makes a veth pair, both ends down, each born in its namespace. Not idempotent by itself, since only the caller
    /// knows what makes two pairs the same.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if either name is taken, [`ErrorKind::InvalidInput`] for a name the kernel refuses.
    pub async fn add_veth(&self, near: &VethEnd, far: &VethEnd) -> Result<()> {
        for end in [near, far] {
            check_name(&end.name)?;
        }
        let mut message = near.message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far.message()))),
        ]));
        let made = self
            .change(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await;
        made.map_err(|error| {
            system(
                "add a link",
                format!("the veth pair {} and {} can't be made", near.name, far.name),
                error,
            )
        })
    }

    /// Makes a bridge, down. One that is there is left as it is.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if a link of another kind has the name.
    pub async fn add_bridge(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.link(name).await? {
            Some(link) if link.kind.as_deref() == Some("bridge") => return Ok(()),
            Some(_) => {
                let message = format!("{name} is there and is no bridge");
                return Err(own("add a link", ErrorKind::AlreadyExists, message));
            }
            None => {}
        }
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        let made = self
            .change(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await;
        made.map_err(|error| {
            system(
                "add a link",
                format!("the bridge {name} can't be made"),
                error,
            )
        })
    }

    /// Removes a link, and with it the other end of a veth pair. Succeeds if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for links that can't be removed, such as `lo`.
    pub async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header = LinkHeader {
            index: link.index,
            ..LinkHeader::default()
        };
        match self.change(RouteNetlinkMessage::DelLink(message), 0).await {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(system(
                "delete a link",
                format!("the link {name} can't be removed"),
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Switches a link on or off.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link.
    pub async fn set_up(&self, name: &str, up: bool) -> Result<()> {
        self.set_link(name, |message| {
            message.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
            message.header.change_mask = LinkFlags::Up;
        })
        .await
    }

    /// Returns once a link that is up carries packets. The kernel switches a veth end on in the background, some time
    /// after its other end came up; until then it drops them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::Timeout`] if it takes longer than `limit`, as when
    /// the other end is down.
    pub async fn wait_until_carrying(&self, name: &str, limit: Duration) -> Result<()> {
        let index = self.require_link(name).await?.index;
        let carrying = async {
            let mut pause = Duration::from_micros(200);
            while !self.is_carrying(index).await? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Ok(())
        };
        tokio::time::timeout(limit, carrying)
            .await
            .unwrap_or_else(|_| {
                Err(own(
                    "wait for a link",
                    ErrorKind::Timeout,
                    format!("the link {name} did not come up in {limit:?}"),
                ))
            })
    }

    /// Asked for alone, since Linux 6.8 the link's state is first brought to what the carrier says; in a list of all,
    /// and before, the carrier is shown at once while packets are still dropped. The state follows in the step before
    /// the queue is opened, and both steps are one to who asks.
    async fn is_carrying(&self, index: u32) -> Result<bool> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let entries = self
            .get(RouteNetlinkMessage::GetLink(request), "link")
            .await?;
        Ok(entries.into_iter().any(|entry| match entry {
            RouteNetlinkMessage::NewLink(message) => {
                let flags = message.header.flags;
                flags.contains(LinkFlags::LowerUp | LinkFlags::Running)
                    && !message
                        .attributes
                        .contains(&LinkAttribute::Qdisc("noop".to_owned()))
            }
            _ => false,
        }))
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::InvalidInput`] for a size it can't have.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.set_link(name, |message| {
            message.attributes.push(LinkAttribute::Mtu(mtu))
        })
        .await
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link.
    pub async fn set_mac(&self, name: &str, mac: MacAddr) -> Result<()> {
        self.set_link(name, |message| {
            message
                .attributes
                .push(LinkAttribute::Address(mac.0.to_vec()))
        })
        .await
    }

    /// Leaves a note on the link, at most 255 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link.
    pub async fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        self.set_link(name, |message| {
            message
                .attributes
                .push(LinkAttribute::IfAlias(alias.to_owned()))
        })
        .await
    }

    /// Makes a link a port of a bridge, or of none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if either is not there.
    pub async fn set_master(&self, name: &str, bridge: Option<&str>) -> Result<()> {
        let index = match bridge {
            Some(bridge) => self.require_link(bridge).await?.index,
            None => 0,
        };
        self.set_link(name, |message| {
            message.attributes.push(LinkAttribute::Controller(index))
        })
        .await
    }

    /// Gives a link another name. It has to be down on kernels before 6.2.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::AlreadyExists`] if the new name is taken.
    pub async fn rename_link(&self, name: &str, new: &str) -> Result<()> {
        check_name(new)?;
        self.set_link(name, |message| {
            message
                .attributes
                .push(LinkAttribute::IfName(new.to_owned()))
        })
        .await
    }

    /// Moves a link into another namespace, where it arrives down and without addresses.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such link, [`ErrorKind::AlreadyExists`] if its name is taken there.
    pub async fn move_link(&self, name: &str, namespace: &Namespace) -> Result<()> {
        self.set_link(name, |message| {
            message
                .attributes
                .push(LinkAttribute::NetNsFd(namespace.raw()))
        })
        .await
    }

    async fn set_link(&self, name: &str, set: impl FnOnce(&mut LinkMessage)) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.require_link(name).await?.index;
        set(&mut message);
        let failed = |error: io::Error| {
            system(
                "change a link",
                format!("the link {name} can't be changed"),
                error,
            )
        };
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .await
            .map_err(failed)
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let valid = (1..=LONGEST_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0);
    if valid {
        return Ok(());
    }
    let message = format!("{name:?} can't be the name of a link");
    Err(own("add a link", ErrorKind::InvalidInput, message)
        .with_hint("a name has 1 to 15 bytes, no space, no slash, no colon"))
}

fn link(entry: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = entry else {
        return None;
    };
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        peer: None,
        master: None,
        alias: None,
    };
    let mut lower = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(index) => lower = Some(index),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // For other kinds the attribute names the link below, as of a VLAN.
    link.peer = lower.filter(|_| link.kind.as_deref() == Some("veth"));
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        for good in ["eth0", "a", "exactly15bytes_"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "sixteen_bytes_ab", "a b", "a/b", ".", ".."] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ethernet_address_prints_as_everywhere() {
        assert_eq!(
            MacAddr::new([2, 0, 0, 0, 0, 255]).to_string(),
            "02:00:00:00:00:ff"
        );
    }
}
