//! What a name asks for.

use std::net::Ipv4Addr;

use arpanet_core::addr::OVERLAY;
use arpanet_core::{Error, ErrorKind, Result, ServiceName};
use hickory_proto::rr::Name;

/// What a name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// The domain itself.
    Apex,
    /// A name of ours that holds names and nothing else.
    Branch,
    /// `[tag.]service.service.domain`, or `_service._tag.service.domain` (RFC 2782).
    Service { name: &'a str, tag: Option<&'a str> },
    /// `node.node.domain`.
    Node(&'a str),
    /// `0a010005.addr.domain`: what SRV records point to.
    Addr(Ipv4Addr),
    /// One label: a service, or a node.
    Bare(&'a str),
    /// `d.c.b.a.in-addr.arpa` of the overlay.
    Reverse(Ipv4Addr),
    /// In our domain, but no name that could be.
    Nothing,
    /// Not ours.
    Foreign,
}

/// The domain, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    name: Name,
    labels: Vec<String>,
}

impl Domain {
    /// A domain of one or more DNS labels.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for anything else.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{text:?} can't be a DNS domain"),
            )
            .with_hint("a domain is one or more DNS labels, as in consul or cluster.local")
        };
        // A domain's labels follow the rule of service names.
        let labels: Vec<String> = text
            .trim_end_matches('.')
            .split('.')
            .map(|label| label.parse().map(|label: ServiceName| label.to_string()))
            .collect::<Result<_>>()
            .map_err(|source| invalid().with_source(source))?;
        let mut name =
            Name::from_labels(labels.iter().map(String::as_bytes)).map_err(|_| invalid())?;
        name.set_fqdn(true);
        Ok(Self { name, labels })
    }

    pub(crate) const fn name(&self) -> &Name {
        &self.name
    }

    /// A name below the domain.
    pub(crate) fn below(&self, labels: &[&str]) -> Option<Name> {
        let labels = labels
            .iter()
            .copied()
            .chain(self.labels.iter().map(String::as_str));
        let mut name = Name::from_labels(labels.map(str::as_bytes)).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    /// What a name asks for, by its labels in lower case.
    pub(crate) fn asked<'a>(&self, labels: &[&'a str]) -> Asked<'a> {
        if let Some(below) = strip(labels, &self.labels) {
            return within(below);
        }
        match labels {
            [label] => Asked::Bare(label),
            [.., "in-addr", "arpa"] => reverse(&labels[..labels.len() - 2]),
            _ => Asked::Foreign,
        }
    }
}

/// The labels of a name as they are looked for. Those of ours are all ASCII.
pub(crate) fn lowered(name: &Name) -> Vec<String> {
    name.iter()
        .map(|label| {
            let mut label = label.to_vec();
            sought(&mut label);
            String::from_utf8_lossy(&label).into_owned()
        })
        .collect()
}

/// Makes a label what is looked for: in lower case, and with hyphens for underscores. Engines call containers `shop_web_1`,
/// and no name of the catalogue has an underscore. The first letter stays, since one there says what kind of label it is.
pub(crate) fn sought(label: &mut [u8]) {
    label.make_ascii_lowercase();
    for letter in label.iter_mut().skip(1) {
        if *letter == b'_' {
            *letter = b'-';
        }
    }
}

fn strip<'a, 'b>(labels: &'a [&'b str], domain: &[String]) -> Option<&'a [&'b str]> {
    let (below, end) = labels.split_at_checked(labels.len().checked_sub(domain.len())?)?;
    end.iter()
        .zip(domain)
        .all(|(label, expected)| label == expected)
        .then_some(below)
}

fn within<'a>(below: &[&'a str]) -> Asked<'a> {
    let service = |name: &'a str, tag| Asked::Service { name, tag };
    match below {
        [] => Asked::Apex,
        ["service" | "node" | "addr"] => Asked::Branch,
        [name, tag, "service"] if name.starts_with('_') && tag.starts_with('_') => {
            match &tag[1..] {
                "tcp" | "udp" => service(&name[1..], None),
                tag => service(&name[1..], Some(tag)),
            }
        }
        [name, "service"] => service(name, None),
        [tag, name, "service"] => service(name, Some(tag)),
        [name, "node"] => Asked::Node(name),
        [hex, "addr"] if hex.len() == 8 => u32::from_str_radix(hex, 16)
            .map(Ipv4Addr::from)
            .ok()
            .filter(|ip| OVERLAY.contains(ip))
            .map_or(Asked::Nothing, Asked::Addr),
        _ => Asked::Nothing,
    }
}

/// `4.3.2.1`, as labels, of the overlay.
fn reverse<'a>(labels: &[&str]) -> Asked<'a> {
    let mut octets = [0; 4];
    if labels.len() != octets.len() {
        return Asked::Foreign;
    }
    for (octet, label) in octets.iter_mut().rev().zip(labels) {
        match label.parse() {
            Ok(value) => *octet = value,
            Err(_) => return Asked::Foreign,
        }
    }
    let ip = Ipv4Addr::from(octets);
    if OVERLAY.contains(&ip) {
        Asked::Reverse(ip)
    } else {
        Asked::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(domain: &str, name: &str) -> Asked<'static> {
        let labels = lowered(&Name::from_ascii(name).unwrap());
        let labels: Vec<&'static str> = labels.into_iter().map(|label| &*label.leak()).collect();
        Domain::new(domain).unwrap().asked(&labels)
    }

    const fn service<'a>(name: &'a str, tag: Option<&'a str>) -> Asked<'a> {
        Asked::Service { name, tag }
    }

    #[test]
    fn names_say_what_they_ask_for_in_any_case() {
        assert_eq!(asked("consul", "WEB.Service.CONSUL."), service("web", None));
        assert_eq!(
            asked("consul", "v2.web.service.consul."),
            service("web", Some("v2"))
        );
        assert_eq!(
            asked("consul", "_web._tcp.service.consul."),
            service("web", None)
        );
        assert_eq!(
            asked("consul", "_web._v2.service.consul."),
            service("web", Some("v2"))
        );
        assert_eq!(asked("consul", "node1.node.consul."), Asked::Node("node1"));
        assert_eq!(asked("consul", "Web"), Asked::Bare("web"));
        assert_eq!(asked("consul", "shop_web_1"), Asked::Bare("shop-web-1"));
        assert_eq!(
            asked("consul", "shop_web_1.service.consul."),
            service("shop-web-1", None)
        );
        assert_eq!(
            asked("consul", "0a010005.addr.consul."),
            Asked::Addr([10, 1, 0, 5].into())
        );
        assert_eq!(asked("consul", "08080808.addr.consul."), Asked::Nothing);
        assert_eq!(asked("consul", "consul."), Asked::Apex);
        assert_eq!(asked("consul", "service.consul."), Asked::Branch);
        assert_eq!(asked("consul", "a.b.c.service.consul."), Asked::Nothing);
        assert_eq!(asked("consul", "web.consul."), Asked::Nothing);
        assert_eq!(
            asked("consul", "web.service.consul.example."),
            Asked::Foreign
        );
        assert_eq!(asked("consul", "example.com."), Asked::Foreign);
        assert_eq!(asked("consul", "."), Asked::Foreign);
    }

    #[test]
    fn only_whole_addresses_of_the_overlay_are_ours_in_reverse() {
        let ours = Asked::Reverse([10, 255, 0, 1].into());
        assert_eq!(asked("consul", "1.0.255.10.in-addr.arpa."), ours);
        for name in [
            "1.0.168.192.in-addr.arpa.",
            "255.10.in-addr.arpa.",
            "x.0.255.10.in-addr.arpa.",
        ] {
            assert_eq!(asked("consul", name), Asked::Foreign, "{name}");
        }
    }

    #[test]
    fn a_domain_may_have_several_labels() {
        assert_eq!(
            asked("Cluster.local.", "web.service.cluster.local."),
            service("web", None)
        );
        assert_eq!(asked("cluster.local", "local."), Asked::Bare("local"));
        for text in ["", ".", "a..b", "under_score", "a b"] {
            assert_eq!(
                Domain::new(text).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{text:?}"
            );
        }
    }
}
