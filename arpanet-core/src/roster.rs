//! The roster: which identity holds which node address, agreed on by merging.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::addr::serde_through_string;
use crate::{Error, ErrorKind, NodeAddr, NodeName, Result};

/// What a node does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Founded the cluster; admits others.
    Boot,
    /// Joined it; admits others.
    Server,
    /// Joined it; holds no password and admits nobody.
    Client,
}

impl Role {
    /// Whether nodes of this role hold the password's hash and admit others.
    #[must_use]
    pub const fn admits(self) -> bool {
        matches!(self, Self::Boot | Self::Server)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "boot",
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn unhex<const N: usize>(what: &str, text: &str) -> Result<[u8; N]> {
    let bytes: Option<Vec<u8>> =
        text.is_ascii()
            .then(|| text.as_bytes().chunks(2))
            .and_then(|pairs| {
                pairs
                    .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                    .collect()
            });
    bytes
        .filter(|_| text.len() == 2 * N)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("not {what}: {} hexadecimal digits are needed", 2 * N),
            )
        })
}

macro_rules! public_bytes {
    ($(#[$doc:meta])* $name:ident, $size:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                unhex($what, text).map(Self)
            }
        }

        serde_through_string!($name);
    };
}

public_bytes!(
    /// What tells one cluster from every other: random, made by `boot`. Not a secret.
    ClusterId, 16, "a cluster id"
);

public_bytes!(
    /// A node's long-lived ed25519 public key (RFC 8032). It signs all that the node says.
    Identity, 32, "an identity"
);

/// One node's place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RosterEntry {
    /// The address that is held.
    pub node: NodeAddr,
    /// Its name, alone in the cluster.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Who holds it.
    pub identity: Identity,
    /// Where it was on the underlay when it was admitted; gossip knows better while the node lives.
    pub endpoint: Option<SocketAddr>,
    /// Counts the holders of this address: 1 for the first, one more for each `forget` and `--replace`. The higher wins.
    pub generation: u32,
    /// The cluster's logical time of the admission: of two admissions of one generation, the lower wins.
    pub epoch: u64,
    /// Removed by `forget`: nobody holds the address, and this identity is refused.
    pub forgotten: bool,
}

impl RosterEntry {
    /// A first admission.
    #[must_use]
    pub fn new(node: NodeAddr, name: NodeName, role: Role, identity: Identity, epoch: u64) -> Self {
        Self {
            node,
            name,
            role,
            identity,
            endpoint: None,
            generation: 1,
            epoch,
            forgotten: false,
        }
    }

    /// With the underlay endpoint.
    #[must_use]
    pub fn at(mut self, endpoint: Option<SocketAddr>) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Whether this one wins over `other` for the same address, on every node alike.
    fn wins_over(&self, other: &Self) -> bool {
        let rank = |entry: &Self| {
            // Higher generation first, then forgotten, then the older epoch, then the lower identity.
            (
                entry.generation,
                entry.forgotten,
                std::cmp::Reverse(entry.epoch),
                std::cmp::Reverse(entry.identity),
            )
        };
        rank(self) > rank(other)
    }
}

/// What merging an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// It is in the roster now.
    Taken,
    /// It was there already.
    Known,
    /// The roster holds one that wins over it.
    Refused,
}

/// All nodes of a cluster. Merging two rosters is commutative, associative and idempotent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    entries: BTreeMap<NodeAddr, RosterEntry>,
}

impl Roster {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry of this address, forgotten ones included.
    #[must_use]
    pub fn entry(&self, node: NodeAddr) -> Option<&RosterEntry> {
        self.entries.get(&node)
    }

    /// The holder of this address.
    #[must_use]
    pub fn holder(&self, node: NodeAddr) -> Option<&RosterEntry> {
        self.entry(node).filter(|entry| !entry.forgotten)
    }

    /// The holder of this name.
    #[must_use]
    pub fn by_name(&self, name: &NodeName) -> Option<&RosterEntry> {
        self.holders().find(|entry| entry.name == *name)
    }

    /// All that hold an address, by address.
    pub fn holders(&self) -> impl Iterator<Item = &RosterEntry> {
        self.entries.values().filter(|entry| !entry.forgotten)
    }

    /// All entries, forgotten ones included: what is replicated.
    pub fn entries(&self) -> impl Iterator<Item = &RosterEntry> {
        self.entries.values()
    }

    /// Takes in an entry heard of elsewhere, unless a better one is here.
    pub fn merge(&mut self, entry: RosterEntry) -> Merged {
        match self.entries.get_mut(&entry.node) {
            Some(held) if *held == entry => Merged::Known,
            Some(held) if entry.wins_over(held) => {
                *held = entry;
                Merged::Taken
            }
            // The same admission with other particulars (a new endpoint, say): the later word stays with its owner.
            Some(held) if held.wins_over(&entry) => Merged::Refused,
            Some(_) => Merged::Known,
            None => {
                self.entries.insert(entry.node, entry);
                Merged::Taken
            }
        }
    }

    /// Says where a node is on the underlay, as this node has seen it. Does nothing for an address that nobody holds.
    pub fn locate(&mut self, node: NodeAddr, endpoint: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.endpoint = Some(endpoint);
        }
    }

    /// Marks the holder of an address as forgotten and returns the entry to spread; `None` when nobody holds it.
    pub fn forget(&mut self, node: NodeAddr) -> Option<&RosterEntry> {
        let entry = self
            .entries
            .get_mut(&node)
            .filter(|entry| !entry.forgotten)?;
        entry.generation += 1;
        entry.forgotten = true;
        Some(entry)
    }

    /// A number that grows with every departure: with a node that is forgotten or leaves for good, and with an address
    /// that gets another holder. Of two rosters, one that knows more has a higher one.
    #[must_use]
    pub fn departures(&self) -> u64 {
        self.entries()
            .map(|entry| {
                let changes = u64::from(entry.generation.saturating_sub(1));
                2 * changes + u64::from(entry.forgotten)
            })
            .sum()
    }
}

impl FromIterator<RosterEntry> for Roster {
    fn from_iter<I: IntoIterator<Item = RosterEntry>>(entries: I) -> Self {
        let mut roster = Self::new();
        for entry in entries {
            roster.merge(entry);
        }
        roster
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<RosterEntry>> {
        prop::collection::vec(
            (1..4u16, 1..3u8, 1..3u32, 0..3u64, any::<bool>()).prop_map(
                |(node, who, generation, epoch, forgotten)| {
                    let mut entry = RosterEntry::new(
                        NodeAddr::from_index(node).unwrap(),
                        format!("n{who}").parse().unwrap(),
                        Role::Server,
                        Identity::from_bytes([who; 32]),
                        epoch,
                    );
                    entry.generation = generation;
                    entry.forgotten = forgotten;
                    entry
                },
            ),
            0..12,
        )
    }

    proptest! {
        #[test]
        fn merging_does_not_depend_on_the_order(entries in entries(), seed: u64) {
            let forward: Roster = entries.iter().cloned().collect();
            let mut shuffled = entries.clone();
            for (index, step) in (0..shuffled.len()).zip(1u64..) {
                let other = (seed.wrapping_mul(step) as usize) % shuffled.len();
                shuffled.swap(index, other);
            }
            let other: Roster = shuffled.into_iter().chain(entries).collect();
            prop_assert_eq!(forward, other);
        }
    }

    #[test]
    fn a_forgotten_address_is_free_and_its_identity_stays_known() {
        let node = "0.2".parse().unwrap();
        let mut roster = Roster::new();
        let entry = RosterEntry::new(
            node,
            "two".parse().unwrap(),
            Role::Client,
            Identity::from_bytes([7; 32]),
            4,
        );
        assert_eq!(roster.merge(entry.clone()), Merged::Taken);
        assert!(roster.forget(node).is_some());
        assert!(roster.holder(node).is_none() && roster.forget(node).is_none());
        assert_eq!(roster.merge(entry.clone()), Merged::Refused);
        let mut again = entry;
        again.generation = 3;
        assert_eq!(roster.merge(again), Merged::Taken);
    }
}
