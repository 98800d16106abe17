//! Routing rules: which table decides for which packets.

use std::net::IpAddr;

use arpanet_core::Result;
use ipnet::Ipv4Net;
use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{
    RuleAction as KernelAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange, RuleUidRange,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::Netlink;
use crate::error::system;

/// An IPv4 routing rule. Rules are the same if all of their fields are.
///
/// ```
/// use arpanet_netlink::{Rule, RuleAction, TABLE_LOCAL};
/// let rule = Rule::new(500, RuleAction::Lookup(TABLE_LOCAL)).to("10.255.0.1/32".parse().unwrap()).iif("lo");
/// assert_eq!(rule.to_string(), "500: from all to 10.255.0.1/32 iif lo lookup 255");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rule {
    /// Rules are asked in the order of this number.
    pub priority: u32,
    /// The packet's source.
    pub from: Option<Ipv4Net>,
    /// The packet's destination.
    pub to: Option<Ipv4Net>,
    /// The link it came in by; `lo` means that this machine made it.
    pub iif: Option<String>,
    /// The link that its socket is bound to.
    pub oif: Option<String>,
    /// The users, from and to, both included, that made it.
    pub uids: Option<(u32, u32)>,
    /// Its protocol (`IPPROTO_…`: 6 tcp, 17 udp).
    #[serde(default)]
    pub ip_protocol: Option<u8>,
    /// Its source ports, from and to, both included.
    #[serde(default)]
    pub source_ports: Option<(u16, u16)>,
    /// Its mark and the mask under which they are compared.
    pub mark: Option<(u32, u32)>,
    /// What happens to it.
    pub action: RuleAction,
    /// Routes with a prefix of this length or shorter count as not found.
    pub suppress_prefixlength: Option<u32>,
    /// Whether the rule is for all packets that do *not* match.
    pub inverted: bool,
    /// Who made it (`RTPROT_…`), for those who look; 0 unspecified, 2 the kernel.
    pub protocol: u8,
}

/// What a rule does with its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuleAction {
    /// Looks for a route in this table, and goes on to the next rule if there is none.
    Lookup(u32),
    /// Refuses, with "administratively prohibited" to the sender.
    Prohibit,
    /// Refuses, with "network unreachable" to the sender.
    Unreachable,
    /// Refuses silently.
    Blackhole,
    /// Something else, by the kernel's number (`FR_ACT_…`).
    Other(u8),
}

impl Rule {
    /// A rule for all packets.
    #[must_use]
    pub const fn new(priority: u32, action: RuleAction) -> Self {
        Self {
            priority,
            from: None,
            to: None,
            iif: None,
            oif: None,
            uids: None,
            ip_protocol: None,
            source_ports: None,
            mark: None,
            action,
            suppress_prefixlength: None,
            inverted: false,
            protocol: 0,
        }
    }

    /// Only for packets from here.
    #[must_use]
    pub const fn from(mut self, source: Ipv4Net) -> Self {
        self.from = Some(source);
        self
    }

    /// Only for packets to here.
    #[must_use]
    pub const fn to(mut self, destination: Ipv4Net) -> Self {
        self.to = Some(destination);
        self
    }

    /// Only for packets that came in by this link.
    #[must_use]
    pub fn iif(mut self, link: impl Into<String>) -> Self {
        self.iif = Some(link.into());
        self
    }

    /// Only for packets of these users, both included.
    #[must_use]
    pub const fn uids(mut self, first: u32, last: u32) -> Self {
        self.uids = Some((first, last));
        self
    }

    /// Only for packets of this protocol (`IPPROTO_…`: 6 tcp, 17 udp).
    #[must_use]
    pub const fn ip_protocol(mut self, protocol: u8) -> Self {
        self.ip_protocol = Some(protocol);
        self
    }

    /// Only for packets from this port; the protocol has to be told too.
    #[must_use]
    pub const fn source_port(mut self, port: u16) -> Self {
        self.source_ports = Some((port, port));
        self
    }

    /// Only for packets with this mark.
    #[must_use]
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some((mark, u32::MAX));
        self
    }

    /// Counting routes with a prefix this short or shorter as not found.
    #[must_use]
    pub const fn suppress_prefixlength(mut self, longest: u32) -> Self {
        self.suppress_prefixlength = Some(longest);
        self
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        let header = &mut message.header;
        header.family = AddressFamily::Inet;
        header.src_len = self.from.map_or(0, |net| net.prefix_len());
        header.dst_len = self.to.map_or(0, |net| net.prefix_len());
        header.action = match self.action {
            RuleAction::Lookup(_) => KernelAction::ToTable,
            RuleAction::Prohibit => KernelAction::Prohibit,
            RuleAction::Unreachable => KernelAction::Unreachable,
            RuleAction::Blackhole => KernelAction::Blackhole,
            RuleAction::Other(number) => KernelAction::Other(number),
        };
        if self.inverted {
            header.flags |= RuleFlags::Invert;
        }
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        attributes.extend(
            self.from
                .map(|net| RuleAttribute::Source(IpAddr::V4(net.network()))),
        );
        attributes.extend(
            self.to
                .map(|net| RuleAttribute::Destination(IpAddr::V4(net.network()))),
        );
        attributes.extend(self.iif.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.oif.clone().map(RuleAttribute::Oifname));
        attributes.extend(
            self.ip_protocol
                .map(|protocol| RuleAttribute::IpProtocol(protocol.into())),
        );
        attributes.extend(
            self.source_ports
                .map(|(start, end)| RuleAttribute::SourcePortRange(RulePortRange { start, end })),
        );
        attributes.extend(
            self.uids
                .map(|(start, end)| RuleAttribute::UidRange(RuleUidRange { start, end })),
        );
        attributes.extend(
            self.suppress_prefixlength
                .map(RuleAttribute::SuppressPrefixLen),
        );
        if let Some((mark, mask)) = self.mark {
            attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
        }
        if let RuleAction::Lookup(table) = self.action {
            attributes.push(RuleAttribute::Table(table));
        }
        message
    }

    fn read(entry: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewRule(message) = entry else {
            return None;
        };
        let header = message.header;
        let mut table = u32::from(header.table);
        let mut rule = Self::new(0, RuleAction::Prohibit);
        rule.inverted = header.flags.contains(RuleFlags::Invert);
        let net = |ip, prefix| match ip {
            IpAddr::V4(ip) => Ipv4Net::new(ip, prefix).ok(),
            IpAddr::V6(_) => None,
        };
        let (mut mark, mut mask) = (None, u32::MAX);
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Source(ip) => rule.from = net(ip, header.src_len),
                RuleAttribute::Destination(ip) => rule.to = net(ip, header.dst_len),
                RuleAttribute::Iifname(name) => rule.iif = Some(name),
                RuleAttribute::Oifname(name) => rule.oif = Some(name),
                RuleAttribute::IpProtocol(protocol) => rule.ip_protocol = Some(protocol.into()),
                RuleAttribute::SourcePortRange(range) => {
                    rule.source_ports = Some((range.start, range.end));
                }
                RuleAttribute::UidRange(range) => rule.uids = Some((range.start, range.end)),
                RuleAttribute::FwMark(value) => mark = Some(value),
                RuleAttribute::FwMask(value) => mask = value,
                RuleAttribute::Table(value) => table = value,
                // The kernel answers with -1 for "none".
                RuleAttribute::SuppressPrefixLen(length) if length != u32::MAX => {
                    rule.suppress_prefixlength = Some(length);
                }
                RuleAttribute::Protocol(protocol) => rule.protocol = protocol.into(),
                _ => {}
            }
        }
        rule.mark = mark.map(|mark| (mark, mask));
        rule.action = match header.action {
            KernelAction::ToTable => RuleAction::Lookup(table),
            KernelAction::Prohibit => RuleAction::Prohibit,
            KernelAction::Unreachable => RuleAction::Unreachable,
            KernelAction::Blackhole => RuleAction::Blackhole,
            other => RuleAction::Other(other.into()),
        };
        Some(rule)
    }
}

impl std::fmt::Display for Rule {
    /// As `ip rule` shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.inverted {
            f.write_str(" not")?;
        }
        match self.from {
            Some(from) => write!(f, " from {from}")?,
            None => f.write_str(" from all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(oif) = &self.oif {
            write!(f, " oif {oif}")?;
        }
        if let Some(protocol) = self.ip_protocol {
            write!(f, " ipproto {protocol}")?;
        }
        if let Some((first, last)) = self.source_ports {
            write!(f, " sport {first}-{last}")?;
        }
        if let Some((first, last)) = self.uids {
            write!(f, " uidrange {first}-{last}")?;
        }
        match self.action {
            RuleAction::Lookup(table) => write!(f, " lookup {table}")?,
            RuleAction::Prohibit => f.write_str(" prohibit")?,
            RuleAction::Unreachable => f.write_str(" unreachable")?,
            RuleAction::Blackhole => f.write_str(" blackhole")?,
            RuleAction::Other(action) => write!(f, " action {action}")?,
        }
        match self.suppress_prefixlength {
            Some(length) => write!(f, " suppress_prefixlength {length}"),
            None => Ok(()),
        }
    }
}

impl Netlink {
    /// All IPv4 rules, in the order in which they are asked.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::Unavailable`] if they change faster than they can be read.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let entries = self
            .dump(RouteNetlinkMessage::GetRule(message), "rules")
            .await?;
        Ok(entries.into_iter().filter_map(Rule::read).collect())
    }

    /// Adds a rule. One that is there already stays the only one.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::InvalidInput`] for what the kernel refuses, as users that this user namespace lacks.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        // The kernel's own test for "exists" also finds rules with more conditions than this one.
        if self.rules().await?.contains(rule) {
            return Ok(());
        }
        let made = self
            .change(RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE)
            .await;
        made.map_err(|error| {
            system(
                "add a rule",
                format!("the rule \"{rule}\" can't be added"),
                error,
            )
        })
    }

    /// Removes a rule. Succeeds if it is not there.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<()> {
        let before = self.rules().await?;
        if !before.contains(rule) {
            return Ok(());
        }
        let failed = |error| {
            system(
                "delete a rule",
                format!("the rule \"{rule}\" can't be removed"),
                error,
            )
        };
        match self
            .change(RouteNetlinkMessage::DelRule(rule.message()), 0)
            .await
        {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            removed => removed.map_err(failed)?,
        }
        // The kernel takes the first rule of this priority that fits, which may be one with more conditions.
        let siblings = before
            .iter()
            .filter(|other| other.priority == rule.priority)
            .count();
        if siblings == 1 {
            return Ok(());
        }
        let after = self.rules().await?;
        let Some(wrong) = before
            .iter()
            .find(|other| *other != rule && !after.contains(other))
        else {
            return Ok(());
        };
        let removed = Box::pin(self.delete_rule(rule)).await;
        self.add_rule(wrong).await.and(removed)
    }
}
