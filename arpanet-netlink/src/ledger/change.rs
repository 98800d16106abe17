//! What can be done to a host through the ledger, and what has to be known to undo it.

use std::fmt;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{MacAddr, Route, Rule};

/// A change to the host. Making one that is in effect already changes nothing, and is then not ours to undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Change {
    /// Adds a rule. Undone by removing it.
    AddRule(Rule),
    /// Adds one rule and then removes another. Undone the other way round.
    MoveRule {
        /// The rule that goes.
        from: Rule,
        /// The rule that comes.
        to: Rule,
    },
    /// Adds a route, which must not replace one. Undone by removing it.
    AddRoute(Route),
    /// Makes a veth pair without a link layer, into a pinned namespace. Undone by removing it.
    AddVeth(VethPair),
    /// Puts an address on a link. Undone by taking it off.
    AddAddress {
        /// The link's name.
        link: String,
        /// The address.
        address: Ipv4Net,
    },
    /// Writes a setting of the network namespace. Undone by writing the value from before, unless somebody else has
    /// written another one since.
    SetSysctl {
        /// Its name, such as `net.ipv4.ip_forward`.
        name: String,
        /// Its value.
        value: String,
    },
    /// Makes a network namespace and pins it. Undone by removing all links in it, and the pin.
    PinNamespace {
        /// Where it is pinned.
        path: PathBuf,
    },
    /// Writes a whole file. Undone by writing what was in it before, or removing it, unless somebody else has written
    /// to it since.
    WriteFile {
        /// The file.
        path: PathBuf,
        /// What it then has in it.
        contents: String,
        /// Its permissions, as in `0o644`.
        mode: u32,
    },
}

/// A veth pair between the host and a pinned namespace, both ends NOARP and with the same Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VethPair {
    /// The end on the host.
    pub name: String,
    /// The other end.
    pub far_name: String,
    /// Where the other end's namespace is pinned.
    pub far_namespace: PathBuf,
    /// The Ethernet address of both.
    pub mac: MacAddr,
    /// The MTU of both, in bytes.
    pub mtu: u32,
}

impl VethPair {
    /// A pair from `name` on the host to `far_name` in the namespace pinned at `far_namespace`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        far_name: impl Into<String>,
        far_namespace: impl Into<PathBuf>,
        mac: MacAddr,
        mtu: u32,
    ) -> Self {
        Self {
            name: name.into(),
            far_name: far_name.into(),
            far_namespace: far_namespace.into(),
            mac,
            mtu,
        }
    }
}

/// What was there before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Before {
    /// Nothing that has to be known.
    Nothing,
    /// Which of the two rules of a move were there.
    Rules { from: bool, to: bool },
    /// The setting's value.
    Value(String),
    /// The file: its bytes and permissions.
    File { contents: Vec<u8>, mode: u32 },
}

impl Change {
    /// Whether it ends with the kernel, at a reboot, whatever anybody does.
    pub(crate) const fn ends_with_the_kernel(&self) -> bool {
        !matches!(self, Self::WriteFile { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRule(rule) => write!(f, "the rule \"{rule}\""),
            Self::MoveRule { from, to } => write!(f, "the move of the rule \"{from}\" to \"{to}\""),
            Self::AddRoute(route) => write!(f, "the route \"{route}\""),
            Self::AddVeth(pair) => write!(f, "the link {}", pair.name),
            Self::AddAddress { link, address } => write!(f, "the address {address} on {link}"),
            Self::SetSysctl { name, value } => write!(f, "the setting {name} = {value}"),
            Self::PinNamespace { path } => write!(f, "the namespace at {}", path.display()),
            Self::WriteFile { path, .. } => write!(f, "the file {}", path.display()),
        }
    }
}
