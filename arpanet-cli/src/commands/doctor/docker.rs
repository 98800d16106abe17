//! What of docker is in a node's way.

use std::net::{Ipv4Addr, SocketAddrV4};

use arpanet_core::addr::Plane;
use arpanet_core::{AppNet, Result, Runtime};
use arpanet_docker::driver::DRIVER;
use arpanet_docker::{DockerRuntime, EngineFacts, EngineNetwork};
use arpanet_netlink::{Link, Namespace, Transport, holder_of_address, holder_of_port};
use ipnet::Ipv4Net;

use super::Finding;
use crate::agent::state::{RuntimeKind, StackKind};
use crate::commands::Context;

/// The first engine whose API is known to have all that is used.
const OLDEST: u32 = 20;

/// Where engines that serve the network without a secret do so.
const PLAIN_API: u16 = 2375;

/// Everything of docker, where there is an engine or one is asked for.
pub(super) async fn findings(context: &Context) -> Result<Vec<Finding>> {
    let config = context.config.docker();
    let runtime = context.config.stack.and_then(StackKind::runtime);
    let is_wanted = context.config.runtime.or(runtime) == Some(RuntimeKind::Docker);
    if context.config.runtime == Some(RuntimeKind::Process)
        || !(is_wanted || config.socket.exists())
    {
        return Ok(Vec::new());
    }
    let facts = match EngineFacts::ask(&config).await {
        Ok(facts) => facts,
        Err(error) => {
            let hint = "start it, or do without it: runtime = \"process\" in config.toml";
            return Ok(vec![Finding::bad("docker", error.to_string(), hint)]);
        }
    };
    let mut findings = vec![
        version(&facts.version),
        storage(&facts.storage),
        cgroups(&facts.cgroups),
        forwarding(facts.forwarding),
    ];
    findings.extend(networks(&facts.networks, &context.config.networks));
    findings.push(plain_api(holder_of_port(Transport::Tcp, PLAIN_API)));
    let bridge = DockerRuntime::open(config)?.bridge_address().await?;
    findings.extend(bridge.map(|ip| dns(ip, holder_of_bridge(ip))));
    findings.extend(mtu().await?);
    Ok(findings)
}

fn version(version: &str) -> Finding {
    let major: Option<u32> = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    match major {
        Some(major) if major < OLDEST => Finding::bad(
            "docker",
            format!("the engine is {version}"),
            format!("install docker {OLDEST}.10 or later"),
        ),
        _ => Finding::good("docker", format!("the engine is {version}")),
    }
}

fn storage(driver: &str) -> Finding {
    let message = format!("layers are stored by {driver}");
    match driver {
        "vfs" => Finding::note(
            "storage",
            message,
            "it copies every layer: move the engine's data-root to a file system that overlay2 works on",
        ),
        "devicemapper" | "aufs" => Finding::note(
            "storage",
            message,
            "engines of today don't know it any more: change to overlay2",
        ),
        _ => Finding::good("storage", message),
    }
}

fn cgroups(driver: &str) -> Finding {
    let message = format!("containers are limited by {driver}");
    match driver {
        "none" => Finding::bad(
            "cgroups",
            "the engine has no control groups",
            "mount /sys/fs/cgroup before the engine starts; a rootless engine is no engine for a node",
        ),
        _ => Finding::good("cgroups", message),
    }
}

fn forwarding(on: bool) -> Finding {
    if on {
        return Finding::good("forwarding", "the host forwards IPv4 for containers");
    }
    Finding::note(
        "forwarding",
        "the host does not forward IPv4: containers reach the cluster, and nothing else",
        "sysctl -w net.ipv4.ip_forward=1, and net.ipv4.ip_forward = 1 in /etc/sysctl.d",
    )
}

/// The overlay: whatever an engine has in here, hosts of the cluster may want.
const OVERLAY: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8);

fn networks(networks: &[EngineNetwork], declared: &[AppNet]) -> Vec<Finding> {
    let foreign = networks.iter().filter(|network| network.driver != DRIVER);
    let mut findings = Vec::new();
    for network in foreign {
        for subnet in network.subnets.iter().filter(|net| overlap(**net, OVERLAY)) {
            let name = &network.name;
            let other = "give it other addresses: remove it, and make it again with --subnet outside 10.0.0.0/8; for those that docker picks itself see default-address-pools in daemon.json";
            let plane = Plane::all()
                .map(Plane::cidr)
                .find(|net| overlap(*net, *subnet));
            let net = declared.iter().find(|net| overlap(net.cidr(), *subnet));
            findings.push(match (plane, net) {
                (Some(plane), _) => Finding::bad(
                    "networks",
                    format!("docker's network {name}, {subnet}, lies in the plane {plane}"),
                    other,
                ),
                (_, Some(net)) => Finding::bad(
                    "networks",
                    format!("docker's network {name}, {subnet}, overlaps the network {net}"),
                    other,
                ),
                _ => Finding::note(
                    "networks",
                    format!(
                        "docker's network {name}, {subnet}, hides that part of the overlay from this host"
                    ),
                    other,
                ),
            });
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(
            "networks",
            "no network of docker's is in the way",
        ));
    }
    findings
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// In the host's own namespace: the node's own is in its router's.
fn plain_api(holder: Option<String>) -> Finding {
    match holder {
        None => Finding::good(
            "docker api",
            "nobody serves port 2375 on this host's own addresses",
        ),
        Some(holder) => Finding::note(
            "docker api",
            format!("port {PLAIN_API} of this host is held by {holder}"),
            "who reaches a docker API is root: take the tcp:// host out of docker's settings, a node has it at 10.254.A.B",
        ),
    }
}

fn holder_of_bridge(ip: Ipv4Addr) -> Option<String> {
    let at = SocketAddrV4::new(ip, 53);
    [Transport::Udp, Transport::Tcp]
        .into_iter()
        .find_map(|transport| holder_of_address(transport, at))
}

/// On docker's bridge, where containers that are not attached ask.
fn dns(bridge: Ipv4Addr, holder: Option<String>) -> Finding {
    match holder {
        None => Finding::good(
            "dns",
            format!("port 53 is free at docker's bridge {bridge}"),
        ),
        Some(holder) if holder.starts_with("arpanet2 ") => Finding::good(
            "dns",
            format!("the cluster's DNS is served at docker's bridge {bridge}"),
        ),
        Some(holder) => Finding::note(
            "dns",
            format!("port 53 at docker's bridge {bridge} is held by {holder}"),
            "attached containers have the cluster's DNS at 169.254.1.1 all the same; for the others, have that process leave the bridge's address alone",
        ),
    }
}

/// Whether packets of docker's bridge fit through the way out.
async fn mtu() -> Result<Vec<Finding>> {
    let netlink = Namespace::current()?.handle()?;
    let links = netlink.links().await?;
    let mtu_of = |name: &str| {
        let link = links.iter().find(|link: &&Link| link.name == name);
        link.map(|link| link.mtu)
    };
    let Some(bridge) = mtu_of("docker0") else {
        return Ok(Vec::new());
    };
    let routes = netlink.routes().await?;
    let out = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| mtu_of(route.link.as_deref()?))
        .min();
    Ok(vec![match out {
        Some(out) if out < bridge => Finding::note(
            "mtu",
            format!("docker's bridge carries {bridge} bytes, and the way out of this host {out}"),
            format!("set \"mtu\": {out} in docker's daemon.json"),
        ),
        _ => Finding::good("mtu", format!("docker's bridge carries {bridge} bytes")),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(findings: &[Finding]) -> String {
        super::super::render(findings)
    }

    fn network(driver: &str, subnet: &str) -> EngineNetwork {
        let json = serde_json::json!({ "name": "shop", "driver": driver, "subnets": [subnet] });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn networks_that_clash_are_told_from_those_that_only_hide() {
        let declared = ["10.1.0.0/16".parse().unwrap()];
        let of = |driver, subnet| shown(&networks(&[network(driver, subnet)], &declared));
        assert!(of("bridge", "172.18.0.0/16").starts_with("ok"));
        assert!(of("arpanet", "10.1.0.0/16").starts_with("ok"));
        assert!(of("bridge", "10.7.0.0/24").starts_with("note"));
        assert!(of("bridge", "10.1.2.0/24").starts_with("FAIL"));
        assert!(of("overlay", "10.254.0.0/16").starts_with("FAIL"));
        assert!(of("bridge", "10.0.0.0/8").starts_with("FAIL"));
    }

    #[test]
    fn each_finding_has_its_mend() {
        for finding in [
            version("19.03.1"),
            storage("vfs"),
            cgroups("none"),
            forwarding(false),
            plain_api(Some("dockerd (7)".to_owned())),
            dns([172, 17, 0, 1].into(), Some("dnsmasq (8)".to_owned())),
        ] {
            assert!(finding.hint.is_some(), "{finding:?}");
        }
        assert!(version("20.10.24").is_ok() && version("27.1.0-rc1").is_ok());
    }
}
