//! What a host has besides containers, to compare before and after.

use std::collections::BTreeSet;

use arpanet_netlink::HostSnapshot;

use crate::site::Site;

/// What is looked at by commands: each line is one thing. Docker's bridge to the world of networks without a gateway is
/// docker's own, stays when the last of them goes, and is left out; so is what others have mounted below /tmp, tests beside this
/// one for example, when the host was started.
const LOOKS: [(&str, &str); 6] = [
    (
        "file",
        "find /etc /run /var/lib/arpanet2 -xdev -not -path '/run/docker*' -not -path '/run/containerd*' -not -path '/run/xtables.lock'",
    ),
    (
        "mount",
        "cut -d ' ' -f 5- /proc/self/mountinfo | grep -v -e docker -e '^/tmp/'",
    ),
    (
        "process",
        "ps -e -o args= | grep arpanet2 | grep -v -e ' holder ' -e grep",
    ),
    (
        "firewall",
        "iptables-save | grep -v -e '^#' -e '^:' -e docker_gwbridge",
    ),
    (
        "docker network",
        "/usr/bin/docker network ls --format '{{.Name}} {{.Driver}}' | grep -v docker_gwbridge",
    ),
    ("container", "/usr/bin/docker ps -a --format '{{.Names}}'"),
];
/// Docker's own for containers without a network.
const BRIDGE: &str = "docker0";
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// Docker's own: its bridge, and what an engine that was killed left there of a container it was just starting.
fn is_dockers(link: &str) -> bool {
    link == GATEWAY_BRIDGE || link.starts_with("veth")
}

#[derive(Debug)]
pub(crate) struct Trace {
    net: HostSnapshot,
    lines: BTreeSet<String>,
}

impl Trace {
    pub(crate) async fn of(site: &Site, host: &str) -> Self {
        let namespace = site.lab.namespace(host).unwrap();
        let mut net = namespace.handle().unwrap().snapshot().await.unwrap();
        net.links.retain(|link| !is_dockers(&link.name));
        // The number of the other end is the switch's affair.
        let links = std::mem::take(&mut net.links).into_iter();
        net.links = links
            .map(|mut link| {
                link.peer = None;
                if link.name == BRIDGE {
                    // The engine draws it whenever it makes the bridge.
                    link.mac = None;
                }
                link
            })
            .collect();
        // A bridge has an address of its own making once it had a container.
        net.addresses.retain(|at| {
            let is_made_up = at.link == BRIDGE && at.address.addr().is_ipv6();
            !is_made_up && !is_dockers(&at.link)
        });
        net.routes
            .retain(|route| !format!("{route}").contains(GATEWAY_BRIDGE));
        let mut lines = BTreeSet::new();
        for (what, script) in LOOKS {
            let seen = site.command(host, &["sh", "-c", script]);
            lines.extend(seen.out.lines().map(|line| format!("{what} {line}")));
        }
        Self { net, lines }
    }

    /// What the other one has more (`+`) and less (`-`), a line each.
    pub(crate) fn difference(&self, other: &Self) -> Vec<String> {
        let mut all = self.net.difference(&other.net);
        all.extend(
            self.lines
                .difference(&other.lines)
                .map(|line| format!("- {line}")),
        );
        all.extend(
            other
                .lines
                .difference(&self.lines)
                .map(|line| format!("+ {line}")),
        );
        all
    }
}
