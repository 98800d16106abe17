//! What the kernel does by itself: the limit for all others.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::hosts::Hosts;
use super::peer::{Outcome, Path, Peer, PeerKind, Why};

/// The VXLAN link.
const LINK: &str = "bench-vxlan";
/// Its UDP port. Swarm has the usual one.
const PORT: u16 = 4790;

/// The hosts' own links.
#[derive(Debug)]
pub(super) struct Veth {
    hosts: Arc<Hosts>,
}

impl Veth {
    pub(super) const fn new(hosts: Arc<Hosts>) -> Self {
        Self { hosts }
    }
}

impl Peer for Veth {
    fn kind(&self) -> PeerKind {
        PeerKind::Veth
    }

    fn version(&self) -> Outcome<String> {
        Ok("of the kernel".to_owned())
    }

    fn path(&self) -> Outcome<Path> {
        self.hosts.path(Hosts::ip(2))
    }
}

/// While it lives, the links of the first two hosts take UDP datagrams one by one.
#[derive(Debug)]
pub(super) struct SingleDatagrams<'a>(&'a [Arc<Hosts>]);

impl<'a> SingleDatagrams<'a> {
    pub(super) fn on(sites: &'a [Arc<Hosts>]) -> Outcome<Self> {
        if crate::host::in_path("ethtool").is_none() {
            return Err(Why::installed(
                "Debian's package ethtool, which sets up the links",
            ));
        }
        let these = Self(sites);
        these.segmentation("off")?;
        Ok(these)
    }

    fn segmentation(&self, state: &str) -> Outcome<()> {
        for hosts in self.0 {
            for host in [1, 2] {
                hosts.run(
                    host,
                    &["ethtool", "-K", "eth0", "tx-udp-segmentation", state],
                )?;
            }
        }
        Ok(())
    }
}

impl Drop for SingleDatagrams<'_> {
    fn drop(&mut self) {
        if let Err(why) = self.segmentation("on") {
            tracing::warn!(%why, "the hosts' links still take single datagrams only");
        }
    }
}

/// A VXLAN link between the first two hosts.
#[derive(Debug)]
pub(super) struct Vxlan {
    hosts: Arc<Hosts>,
}

impl Vxlan {
    pub(super) const fn new(hosts: Arc<Hosts>) -> Self {
        Self { hosts }
    }
}

/// An end's address inside.
const fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 98, host)
}

impl Peer for Vxlan {
    fn kind(&self) -> PeerKind {
        PeerKind::Vxlan
    }

    fn version(&self) -> Outcome<String> {
        match crate::host::in_path("ip") {
            Some(_) => Ok("of the kernel".to_owned()),
            None => Err(Why::installed(
                "Debian's package iproute2, which makes the link",
            )),
        }
    }

    fn settle(&self) -> Outcome<()> {
        for (own, other) in [(1, 2), (2, 1)] {
            let (here, there) = (ip(own), Hosts::ip(other));
            let script = format!(
                "ip link add {LINK} type vxlan id 98 dev eth0 remote {there} dstport {PORT} && \
                 ip address add {here}/24 dev {LINK} && ip link set {LINK} up"
            );
            self.hosts.script(own, &script)?;
        }
        Ok(())
    }

    fn leave(&self) -> Outcome<()> {
        for host in [1, 2] {
            let script = format!(
                "if test -e /proc/sys/net/ipv4/conf/{LINK}; then ip link delete {LINK}; fi"
            );
            self.hosts.script(host, &script)?;
        }
        Ok(())
    }

    fn path(&self) -> Outcome<Path> {
        self.hosts.path(ip(2))
    }
}
