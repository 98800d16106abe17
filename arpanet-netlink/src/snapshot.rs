//! Everything in a namespace at once, to compare before and after, and to look for clashes in.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use arpanet_core::Result;
use serde::{Deserialize, Serialize};

use crate::{Address, Link, Netlink, Route, Rule};

/// The links, addresses, routes and rules of a namespace, sorted. IPv6 routes and rules are not in it: nothing of
/// arpanet2 touches them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostSnapshot {
    /// All links.
    pub links: BTreeSet<Link>,
    /// All addresses, of both families.
    pub addresses: BTreeSet<Address>,
    /// All IPv4 routes of all tables.
    pub routes: BTreeSet<Route>,
    /// All IPv4 rules.
    pub rules: BTreeSet<Rule>,
}

impl HostSnapshot {
    /// What another snapshot has more (`+`) and less (`-`), a line each. Empty if they are the same.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Vec<String> {
        fn lines<T: Ord + Display>(before: &BTreeSet<T>, after: &BTreeSet<T>) -> Vec<String> {
            let less = before.difference(after).map(|gone| format!("- {gone}"));
            less.chain(after.difference(before).map(|new| format!("+ {new}")))
                .collect()
        }
        let mut all = lines(&self.links, &other.links);
        all.extend(lines(&self.addresses, &other.addresses));
        all.extend(lines(&self.routes, &other.routes));
        all.extend(lines(&self.rules, &other.rules));
        all
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_deref().unwrap_or("link");
        write!(f, "{kind} {}: {} mtu {}", self.index, self.name, self.mtu)?;
        f.write_str(if self.up { " up" } else { " down" })?;
        f.write_str(if self.arp { "" } else { " noarp" })?;
        match self.mac {
            Some(mac) => write!(f, " {mac}"),
            None => Ok(()),
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} on {}", self.address, self.link)
    }
}

impl Netlink {
    /// Takes a snapshot. Changes made meanwhile may be in one part of it and not in another.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::Unavailable`] if things change faster than they can be read.
    pub async fn snapshot(&self) -> Result<HostSnapshot> {
        Ok(HostSnapshot {
            links: self.links().await?.into_iter().collect(),
            addresses: self.addresses().await?.into_iter().collect(),
            routes: self.routes().await?.into_iter().collect(),
            rules: self.rules().await?.into_iter().collect(),
        })
    }
}
