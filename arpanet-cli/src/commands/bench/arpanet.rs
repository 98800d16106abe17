//! arpanet2 itself, over WireGuard or over weave.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::hosts::{Hosts, runs};
use super::names::Question;
use super::peer::{Outcome, Path, Peer, PeerKind, Why};

/// The network that its containers are in.
const NET: &str = "10.1.0.0/16";
/// The container on each of the first two hosts that traffic goes between.
const END: &str = "bench-end";

/// This program, on hosts of a lab.
#[derive(Debug)]
pub(super) struct Arpanet {
    kind: PeerKind,
    hosts: Arc<Hosts>,
}

impl Arpanet {
    pub(super) const fn new(hosts: Arc<Hosts>) -> Self {
        Self {
            kind: PeerKind::Arpanet2,
            hosts,
        }
    }

    /// Over weave, by the settings of the hosts: this program weaver is in them.
    pub(super) fn over_weave(hosts: Arc<Hosts>, weaver: &std::path::Path) -> Outcome<Self> {
        for host in 1..=hosts.count() {
            let settings = format!("overlay = \"weave\"\nweaver = \"{}\"", weaver.display());
            let script = format!(
                "mkdir -p /etc/arpanet2 && printf '%s\\n' '{settings}' > /etc/arpanet2/config.toml"
            );
            hosts.script(host, &script)?;
        }
        Ok(Self {
            kind: PeerKind::Weave,
            hosts,
        })
    }

    /// Whose WireGuard it has, once it runs.
    fn tunnel(&self) -> Option<&'static str> {
        let status = self.hosts.arpanet2(1, "status --json").ok()?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        match status["stack"]["tunnel"].as_str()? {
            "kernel" => Some("kernel"),
            _ => Some("agent"),
        }
    }

    fn end(&self, host: u8) -> Outcome<arpanet_netlink::Namespace> {
        let line = format!("exec {END} -- readlink /proc/self/ns/net");
        Hosts::namespace_called(&self.hosts.arpanet2(host, &line)?)
    }
}

impl Peer for Arpanet {
    fn kind(&self) -> PeerKind {
        self.kind
    }

    fn version(&self) -> Outcome<String> {
        let version = env!("CARGO_PKG_VERSION");
        if self.kind == PeerKind::Arpanet2 {
            return Ok(match self.tunnel() {
                Some(tunnel) => format!("{version}, WireGuard of the {tunnel}"),
                None => version.to_owned(),
            });
        }
        let script =
            "exec $(sed -n 's/^weaver = //p' /etc/arpanet2/config.toml | tr -d '\"') --version";
        // It has been asked for: one that tells no version is measured all the same.
        let weave = self.hosts.script(1, script).unwrap_or_default();
        let weave = weave.lines().next().unwrap_or_default().to_owned();
        Ok(format!("{weave} (arpanet2 {version})").trim().to_owned())
    }

    fn boot(&self) -> Outcome<()> {
        self.hosts.arpanet2(1, "boot 0.1 Apples").map(drop)
    }

    fn join(&self, host: u8) -> Outcome<()> {
        let last = self.hosts.count();
        let role = if host < last.min(4) {
            "server"
        } else {
            "client"
        };
        let line = format!("{role} 0.{host} Apples 0.1 {}", Hosts::ip(1));
        self.hosts.arpanet2(host, &line).map(drop)
    }

    fn leave(&self) -> Outcome<()> {
        for host in (1..=self.hosts.count()).rev() {
            self.hosts.arpanet2(host, "reset")?;
        }
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        let image = match self.hosts.engines() {
            Ok(()) => format!("--image {} --pull never ", arpanet_lab::IMAGE),
            Err(_) => String::new(),
        };
        for host in [1, 2] {
            let line = format!("run --net {NET} --name {END} {image}-- sleep 36000");
            self.hosts.arpanet2(host, &line)?;
        }
        Ok(())
    }

    fn register(&self, host: u8, name: &str) -> Outcome<()> {
        let line = format!("register {name} --port 80 --id {name}");
        self.hosts.arpanet2(host, &line).map(drop)
    }

    fn start(&self, host: u8, name: &str) -> Outcome<()> {
        self.hosts.engines()?;
        let labels = format!("--label arpanet.net={NET} --label arpanet.service={name}");
        let image = arpanet_lab::IMAGE;
        let line =
            format!("run -d --name {name} {labels} --label arpanet.port=80 {image} sleep 3600");
        self.hosts.docker(host, &line).map(drop)
    }

    fn remove(&self, host: u8, name: &str) -> Outcome<()> {
        if self
            .hosts
            .arpanet2(host, &format!("deregister {name}"))
            .is_ok()
        {
            return Ok(());
        }
        self.hosts.docker(host, &format!("rm -f {name}")).map(drop)
    }

    fn question(&self, host: u8, name: &str) -> Outcome<Question> {
        Ok(Question {
            asker: self.hosts.namespace(host)?,
            server: SocketAddr::from((Ipv4Addr::new(10, 253, 0, host), 53)),
            name: format!("{name}.service.consul."),
        })
    }

    fn path(&self) -> Outcome<Path> {
        let net: Ipv4Net = NET.parse().map_err(|_| Why::failed("no network"))?;
        let (from, to) = (self.end(1)?, self.end(2)?);
        let ip = self.hosts.address_in(&to, net)?;
        Ok(Path { from, to, ip })
    }

    fn agent(&self) -> Outcome<Vec<i32>> {
        self.hosts.processes(1, |words| {
            let part = words.get(1).map(String::as_str);
            let own = runs(words, "arpanet2") && matches!(part, Some("agent" | "plugin-keeper"));
            own || (self.kind == PeerKind::Weave && runs(words, "weaver"))
        })
    }
}
