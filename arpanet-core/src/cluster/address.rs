//! Picking an address for a container that names only its network.

use std::net::Ipv4Addr;

use crate::{AppAddr, AppNet, Error, ErrorKind, NodeAddr, Result};

/// The first address of `net` that is not taken, beginning at a place of this node's own, so that nodes that pick at the
/// same moment seldom meet. The first host address is left to be the gateway that people expect there.
pub(super) fn pick(
    net: AppNet,
    node: NodeAddr,
    taken: impl Fn(Ipv4Addr) -> bool,
) -> Result<AppAddr> {
    let cidr = net.cidr();
    let first = u32::from(cidr.network()) + 2;
    let count = u32::from(cidr.broadcast()) - first;
    // Fibonacci hashing (Knuth, TAOCP 6.4) spreads neighbouring node addresses far apart.
    let start = u32::from(node.index()).wrapping_mul(0x9E37_79B1);
    (0..count)
        .map(|step| Ipv4Addr::from(first + (start % count + step) % count))
        .find(|ip| !taken(*ip))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                format!("every address of {net} is taken"),
            )
            .with_hint("remove containers from it, or use a wider network")
        })
        .and_then(|ip| net.addr(ip))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hands_out_every_address_once_and_then_says_that_it_is_full() {
        let net: AppNet = "10.1.0.0/28".parse().unwrap();
        let node = "0.7".parse().unwrap();
        let mut taken = BTreeSet::new();
        for _ in 0..13 {
            let addr = pick(net, node, |ip| taken.contains(&ip)).unwrap();
            assert!(net.contains(addr.ip()) && taken.insert(addr.ip()));
        }
        assert!(!taken.contains(&"10.1.0.1".parse().unwrap()));
        let error = pick(net, node, |ip| taken.contains(&ip)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
    }

    #[test]
    fn two_nodes_begin_at_different_places() {
        let net: AppNet = "10.1.0.0/16".parse().unwrap();
        let first = pick(net, "0.1".parse().unwrap(), |_| false).unwrap();
        let second = pick(net, "0.2".parse().unwrap(), |_| false).unwrap();
        assert_ne!(first, second);
    }
}
