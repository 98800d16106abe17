//! Docker Swarm, on the engines of the lab's hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::hosts::{Hosts, runs, until};
use super::names::Question;
use super::peer::{Outcome, Path, Peer, PeerKind, Why};

/// Docker's client, as Debian has it.
pub(super) const CLIENT: &str = "/usr/bin/docker";
/// Where addresses of its networks are from.
const POOL: &str = "172.30.0.0/16";
/// The network that containers are in.
const NET: &str = "bench-mesh";
/// The container on each of the first two hosts that asks for names, and that traffic goes between.
const END: &str = "bench-mesh-end";

/// It is a part of the engines that run arpanet2's containers, too.
#[derive(Debug)]
pub(super) struct Swarm {
    hosts: Arc<Hosts>,
}

impl Swarm {
    pub(super) const fn new(hosts: Arc<Hosts>) -> Self {
        Self { hosts }
    }

    fn end(&self, host: u8) -> Outcome<arpanet_netlink::Namespace> {
        let line = format!("exec {END} readlink /proc/self/ns/net");
        Hosts::namespace_called(&self.hosts.docker(host, &line)?)
    }
}

impl Peer for Swarm {
    fn kind(&self) -> PeerKind {
        PeerKind::Swarm
    }

    fn version(&self) -> Outcome<String> {
        self.hosts.engines()?;
        let line = "version --format {{.Server.Version}}";
        self.hosts.docker(1, line)
    }

    fn boot(&self) -> Outcome<()> {
        let line = format!(
            "swarm init --advertise-addr {} --default-addr-pool {POOL}",
            Hosts::ip(1)
        );
        self.hosts.docker(1, &line).map(drop)
    }

    fn join(&self, host: u8) -> Outcome<()> {
        let token = self.hosts.docker(1, "swarm join-token -q worker")?;
        let line = format!("swarm join --token {token} {}:2377", Hosts::ip(1));
        self.hosts.docker(host, &line).map(drop)
    }

    fn leave(&self) -> Outcome<()> {
        for host in (1..=self.hosts.count()).rev() {
            let state = self
                .hosts
                .docker(host, "info --format {{.Swarm.LocalNodeState}}")?;
            if state != "inactive" {
                self.hosts.docker(host, "swarm leave --force")?;
            }
        }
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        let make = format!("network create -d overlay --attachable {NET}");
        self.hosts.docker(1, &make)?;
        for host in [1, 2] {
            let image = arpanet_lab::IMAGE;
            let line = format!("run -d --name {END} --network {NET} {image} sleep 36000");
            // A worker hears of the network a little later.
            let limit = std::time::Duration::from_secs(10);
            until("a container in Swarm's network", limit, || {
                self.hosts.docker(host, &line).ok()
            })?;
        }
        Ok(())
    }

    fn register(&self, _host: u8, _name: &str) -> Outcome<()> {
        Err(Why::applicable("it registers nothing but its containers"))
    }

    fn start(&self, host: u8, name: &str) -> Outcome<()> {
        let image = arpanet_lab::IMAGE;
        let place = format!("--network {NET} --network-alias {name}");
        let line = format!("run -d --name {name}-mesh {place} {image} sleep 3600");
        self.hosts.docker(host, &line).map(drop)
    }

    fn remove(&self, host: u8, name: &str) -> Outcome<()> {
        let line = format!("rm -f {name}-mesh");
        self.hosts.docker(host, &line).map(drop)
    }

    fn question(&self, host: u8, name: &str) -> Outcome<Question> {
        Ok(Question {
            asker: self.end(host)?,
            server: SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), 53)),
            name: format!("{name}."),
        })
    }

    fn path(&self) -> Outcome<Path> {
        let net: Ipv4Net = POOL.parse().map_err(|_| Why::failed("no network"))?;
        let (from, to) = (self.end(1)?, self.end(2)?);
        let ip = self.hosts.address_in(&to, net)?;
        Ok(Path { from, to, ip })
    }

    fn agent(&self) -> Outcome<Vec<i32>> {
        self.hosts.processes(1, |words| runs(words, "dockerd"))
    }
}
