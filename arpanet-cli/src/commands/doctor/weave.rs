//! What of weave is in a node's way, and what else is on its network.

use arpanet_core::Result;
use arpanet_docker::HostPrograms;
use arpanet_netlink::{Link, Namespace, Transport, holder_of_port};

use super::Finding;
use crate::agent::overlay::BRIDGE;
use crate::agent::state::{NodeState, OverlayKind, StackKind, read};
use crate::commands::Context;
use crate::host;

/// Where routers talk to each other.
const PORTS: [(Transport, &str, u16); 3] = [
    (Transport::Tcp, "tcp", 6783),
    (Transport::Udp, "udp", 6783),
    (Transport::Udp, "udp", 6784),
];

/// What a router and a node have on the bridge.
const OWN: [&str; 3] = ["arpanet-weave", "vethwe-bridge", "vethwe-datapath"];

/// Everything of weave, where it is the overlay or is to be.
pub(super) async fn findings(context: &Context, running: bool) -> Result<Vec<Finding>> {
    let member: Option<NodeState> = read(&context.paths.node()).unwrap_or_default();
    let overlay = match member {
        Some(member) => Some(member.settings.overlay),
        None => {
            let config = &context.config;
            config.overlay.or(config.stack.map(StackKind::overlay))
        }
    };
    if overlay != Some(OverlayKind::Weave) {
        return Ok(Vec::new());
    }
    let mut findings = vec![router(context).await];
    for (transport, what, port) in PORTS {
        findings.push(free(what, port, holder_of_port(transport, port), running));
    }
    let links = Namespace::current()?.handle()?.links().await?;
    findings.push(others(&links));
    Ok(findings)
}

/// What is launched.
async fn router(context: &Context) -> Finding {
    match host::weaver(context.config.weaver.as_deref()) {
        Err(error) => Finding::bad("weave", error.to_string(), error.hint().unwrap_or_default()),
        Ok(Some(program)) if host::in_path("iptables").is_none() => Finding::bad(
            "weave",
            format!("{} needs iptables, which is not there", program.display()),
            "install iptables",
        ),
        Ok(Some(program)) => Finding::good("weave", format!("its router is {}", program.display())),
        Ok(None) => image(context).await,
    }
}

async fn image(context: &Context) -> Finding {
    let image = context.config.weave_image();
    let engine = context.config.docker();
    if !engine.socket.exists() {
        return Finding::bad(
            "weave",
            "there is no weaver in PATH, and no docker engine that its image could be launched by",
            "install weave's program and name it in config.toml: weaver = \"/PATH\"; or install docker",
        );
    }
    match HostPrograms::new(&engine).has(image).await {
        Ok(true) => Finding::good(
            "weave",
            format!("its router is the image {image}, which is here"),
        ),
        Ok(false) => Finding::note(
            "weave",
            format!("its router is the image {image}, which is not here yet"),
            "it is pulled by setup --stack classic, or else when the node comes up",
        ),
        Err(error) => Finding::bad("weave", error.to_string(), error.hint().unwrap_or_default()),
    }
}

fn free(what: &str, port: u16, holder: Option<impl std::fmt::Display>, running: bool) -> Finding {
    let port = format!("weave's {what} port {port}");
    match holder {
        None => Finding::good("weave", format!("{port} is free")),
        Some(holder) if running => Finding::good("weave", format!("{port} is held by {holder}")),
        Some(holder) => Finding::note(
            "weave",
            format!("{port} is held by {holder}"),
            "a weave router that is not arpanet2's is refused, unless --weave-password says that it is to be used",
        ),
    }
}

/// Who else is on weave's network on this host. Weave is one Ethernet: what is on it with NET_ADMIN can send as a node, and no
/// filter of one host's bridge keeps that from the others, since their routers carry it too.
fn others(links: &[Link]) -> Finding {
    let bridge = links.iter().find(|link| link.name == BRIDGE);
    let ports = links.iter().filter(|link| {
        bridge.is_some_and(|bridge| link.master == Some(bridge.index))
            && !OWN.contains(&link.name.as_str())
    });
    let names: Vec<&str> = ports.map(|link| link.name.as_str()).collect();
    if names.is_empty() {
        return Finding::good(
            "weave",
            "nothing but this node is on weave's network on this host",
        );
    }
    Finding::note(
        "weave",
        format!(
            "{} on weave's network beside this node: what of it may change its own addresses (NET_ADMIN) can send as a node, and is not filtered",
            names.join(", ")
        ),
        "give containers addresses of the cluster instead (arpanet.net): these are not on weave's network; or run them without NET_ADMIN and NET_RAW",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_else_is_on_the_bridge_is_named() {
        let Ok(namespace) = Namespace::create() else {
            return;
        };
        let net = namespace.handle().unwrap();
        net.add_bridge(BRIDGE).await.unwrap();
        for name in ["vethwe-bridge", "vethwepl7"] {
            let end = |name: &str| arpanet_netlink::VethEnd::new(name, &namespace);
            let far = format!("f{}", &name[4..8]);
            net.add_veth(&end(name), &end(&format!("{far}{}", name.len())))
                .await
                .unwrap();
            net.set_master(name, Some(BRIDGE)).await.unwrap();
        }
        let finding = others(&net.links().await.unwrap());
        assert!(finding.is_ok(), "{finding:?}");
        let text = super::super::render(&[finding]);
        assert!(text.starts_with("note weave: vethwepl7 on"), "{text}");
        assert!(others(&[]).is_ok());
    }

    #[test]
    fn a_port_that_somebody_has_is_told() {
        assert!(free("tcp", 6783, None::<&str>, false).is_ok());
        let told = super::super::render(&[free("tcp", 6783, Some("weaver (7)"), false)]);
        assert!(
            told.contains("weaver (7)") && told.contains("hint: "),
            "{told}"
        );
    }
}
