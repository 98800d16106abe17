//! Which peer an address belongs to.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Longest prefix first, with the single addresses, which are nearly all, in a hash table.
#[derive(Debug)]
pub(super) struct Routes<T> {
    single: HashMap<Ipv4Addr, T>,
    /// Longest first.
    wide: Vec<(Ipv4Net, T)>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self {
            single: HashMap::new(),
            wide: Vec::new(),
        }
    }
}

impl<T: Clone> Routes<T> {
    /// Gives a prefix to an owner, and takes it from the one that had it.
    pub(super) fn set(&mut self, net: Ipv4Net, owner: T) {
        let net = net.trunc();
        if net.prefix_len() == 32 {
            self.single.insert(net.addr(), owner);
            return;
        }
        self.wide.retain(|(present, _)| *present != net);
        let at = self
            .wide
            .partition_point(|(present, _)| present.prefix_len() >= net.prefix_len());
        self.wide.insert(at, (net, owner));
    }

    /// Takes everything from the owners that match.
    pub(super) fn remove(&mut self, matches: impl Fn(&T) -> bool) {
        self.single.retain(|_, owner| !matches(owner));
        self.wide.retain(|(_, owner)| !matches(owner));
    }

    /// The owner of an address.
    pub(super) fn lookup(&self, addr: Ipv4Addr) -> Option<&T> {
        self.single.get(&addr).or_else(|| {
            self.wide
                .iter()
                .find(|(net, _)| net.contains(&addr))
                .map(|(_, owner)| owner)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut routes = Routes::default();
        for (text, owner) in [
            ("10.0.0.0/8", 8),
            ("10.1.2.3/32", 32),
            ("10.1.0.0/16", 16),
            ("0.0.0.0/0", 0),
        ] {
            routes.set(net(text), owner);
        }
        let owner = |addr: [u8; 4]| routes.lookup(addr.into()).copied();
        assert_eq!(owner([10, 1, 2, 3]), Some(32));
        assert_eq!(owner([10, 1, 2, 4]), Some(16));
        assert_eq!(owner([10, 2, 0, 1]), Some(8));
        assert_eq!(owner([11, 2, 0, 1]), Some(0));
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let mut routes = Routes::default();
        for owner in [1, 2] {
            routes.set(net("10.1.0.0/16"), owner);
            routes.set(net("10.2.0.1/32"), owner);
        }
        routes.remove(|owner| *owner == 2);
        assert_eq!(routes.lookup([10, 1, 0, 1].into()), None);
        assert_eq!(routes.lookup([10, 2, 0, 1].into()), None);
    }
}
