//! Peer names: what weave calls a router. They look like Ethernet addresses, and the bridge has its router's for one.

use std::fmt;
use std::str::FromStr;

use arpanet_core::{Error, ErrorKind, NodeAddr};

use crate::error::own;

/// What the names of arpanet2's routers begin with: locally administered, and no other link of ours has it.
const PREFIX: [u8; 4] = [0x06, 0xA2, 0x0A, 0xFF];

/// The name of a router.
///
/// ```
/// use arpanet_weave::PeerName;
/// let name = PeerName::of("2.12".parse()?);
/// assert_eq!(name.to_string(), "06:a2:0a:ff:02:0c");
/// assert_eq!("06:a2:0a:ff:02:0c".parse::<PeerName>()?, name);
/// assert!("h1".parse::<PeerName>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName([u8; 6]);

impl PeerName {
    /// The name of a node's router: as no two nodes have one address, no two have one name.
    #[must_use]
    pub const fn of(node: NodeAddr) -> Self {
        let [p, q, r, s] = PREFIX;
        let [a, b] = node.octets();
        Self([p, q, r, s, a, b])
    }

    /// The node whose router has this name; `None` for a name that is not arpanet2's.
    #[must_use]
    pub fn node(self) -> Option<NodeAddr> {
        let [p, q, r, s, a, b] = self.0;
        ([p, q, r, s] == PREFIX)
            .then(|| NodeAddr::new(a, b))
            .flatten()
    }
}

impl FromStr for PeerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut name = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut name {
            let digits = parts.next().filter(|digits| digits.len() == 2);
            *byte = digits
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(|| no_name(text))?;
        }
        match parts.next() {
            None => Ok(Self(name)),
            Some(_) => Err(no_name(text)),
        }
    }
}

fn no_name(text: &str) -> Error {
    own(
        ErrorKind::InvalidInput,
        format!("{text:?} is no name of a weave router"),
    )
    .with_hint("one looks like 06:a2:0a:ff:02:0c")
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_node_has_a_name_of_its_own_that_leads_back_to_it() {
        let names: BTreeSet<PeerName> = (0..=u16::MAX)
            .filter_map(NodeAddr::from_index)
            .map(|node| {
                let name = PeerName::of(node);
                assert_eq!(name.node(), Some(node));
                assert_eq!(name.to_string().parse::<PeerName>().unwrap(), name);
                name
            })
            .collect();
        assert_eq!(names.len(), 65_534);
    }

    #[test]
    fn a_name_is_locally_administered_and_of_one() {
        assert_eq!(PREFIX[0] & 0b11, 0b10);
    }

    #[test]
    fn others_are_no_nodes_and_no_names() {
        let foreign: PeerName = "0a:00:00:00:00:01".parse().unwrap();
        assert_eq!(foreign.node(), None);
        for bad in [
            "",
            "06:a2:0a:ff:02",
            "06:a2:0a:ff:02:0c:00",
            "6:a2:0a:ff:2:c",
            "06-a2-0a-ff-02-0c",
        ] {
            assert_eq!(
                bad.parse::<PeerName>().unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad}"
            );
        }
    }
}
