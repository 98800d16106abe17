//! `arpanet2 boot A.B PASSWORD`

use std::net::SocketAddr;

use arpanet_core::addr::UNDERLAY_PORT;
use arpanet_core::{Error, ErrorKind, NodeAddr, NodeName, Result};
use arpanet_weave::RouterPassword;
use clap::Args;

use super::{Context, require_root};
use crate::agent;
use crate::agent::launch;
use crate::agent::order::{Me, Order, Report};
use crate::agent::state::{
    DiscoveryKind, DnsKind, OverlayKind, RuntimeKind, Settings, StackKind, Tunnel,
};
use crate::args::{NodeOptions, PasswordOptions, endpoint};
use crate::failure::usage;
use crate::output::say;
use crate::password::password;

#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// This node's address, A.B
    address: NodeAddr,
    /// The cluster's password; - for standard input; may be left out with ARPANET2_PASSWORD or --password-file
    password: Option<String>,
    #[command(flatten)]
    password_options: PasswordOptions,
    #[command(flatten)]
    node: NodeOptions,
}

pub(crate) fn run(context: &Context, args: BootArgs) -> Result<()> {
    let me = me(context, args.address, &args.node)?;
    let password = password(args.password, &args.password_options)?;
    let order = Order::Boot {
        me,
        password: password.expose().to_owned(),
    };
    come_up(
        context,
        order,
        args.node.foreground,
        &format!("booting {}", args.address),
    )?;
    say(format!("node {} is up", args.address));
    Ok(())
}

/// Brings the node up, in the background or here.
pub(super) fn come_up(context: &Context, order: Order, foreground: bool, what: &str) -> Result<()> {
    require_root("bring a node up")?;
    if !foreground {
        return launch::detached(context, &order, what);
    }
    agent::run(context, order, |report| {
        if let Report::Ready = report {
            say("the node is up");
        }
    })
}

/// Who this node is, by flags over environment over file over the host.
pub(super) fn me(context: &Context, node: NodeAddr, options: &NodeOptions) -> Result<Me> {
    let port = options
        .port
        .or(context.config.port)
        .unwrap_or(UNDERLAY_PORT);
    let chosen = Choice::of(context, options);
    let runtime = chosen
        .runtime
        .unwrap_or_else(|| match context.config.docker().socket.exists() {
            true => RuntimeKind::Docker,
            false => RuntimeKind::Process,
        });
    let advertise: Option<SocketAddr> = options
        .advertise
        .as_ref()
        .or(context.config.advertise.as_ref())
        .map(|text| endpoint(text, port))
        .transpose()?;
    let name: NodeName = match (&options.name, &context.config.name) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => name.parse()?,
        (None, None) => host_name()?.parse()?,
    };
    let Choice {
        overlay, discovery, ..
    } = chosen;
    let dns = options.dns.or(context.config.dns).unwrap_or_default();
    require_answers(dns, discovery)?;
    Ok(Me {
        node,
        name,
        advertise,
        settings: Settings {
            port,
            runtime,
            discovery,
            dns,
            overlay,
            tunnel: tunnel(context, options, overlay)?,
            weave_password: weave_password(options, overlay)?,
        },
    })
}

/// What the node is made of, by flags over environment over file: what is chosen by itself, and else what the stack says.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    overlay: OverlayKind,
    discovery: DiscoveryKind,
    /// `None`: what the host has.
    runtime: Option<RuntimeKind>,
}

impl Choice {
    fn of(context: &Context, options: &NodeOptions) -> Self {
        let config = &context.config;
        let (flag, file) = (options.stack, config.stack);
        let overlay = options.overlay.or(flag.map(StackKind::overlay));
        let discovery = options.discovery.or(flag.map(StackKind::discovery));
        let runtime = options.runtime.or(flag.and_then(StackKind::runtime));
        Self {
            overlay: overlay
                .or(config.overlay)
                .or(file.map(StackKind::overlay))
                .unwrap_or_default(),
            discovery: discovery
                .or(config.discovery)
                .or(file.map(StackKind::discovery))
                .unwrap_or_default(),
            runtime: runtime
                .or(config.runtime)
                .or(file.and_then(StackKind::runtime)),
        }
    }
}

/// Which WireGuard it is, by flags over environment over file.
fn tunnel(context: &Context, options: &NodeOptions, overlay: OverlayKind) -> Result<Tunnel> {
    if options.tunnel.is_some() && overlay != OverlayKind::Wireguard {
        return Err(usage(
            "which WireGuard it is matters only to the overlay wireguard",
            "leave out --tunnel, or say --overlay wireguard too",
        ));
    }
    Ok(options.tunnel.or(context.config.tunnel).unwrap_or_default())
}

/// That of a weave network which was there before.
fn weave_password(options: &NodeOptions, overlay: OverlayKind) -> Result<Option<RouterPassword>> {
    let Some(given) = &options.weave_password else {
        return Ok(None);
    };
    if overlay != OverlayKind::Weave {
        return Err(usage(
            "a weave network's password is of no use without weave",
            "say --overlay weave too",
        ));
    }
    if given.is_empty() {
        return Err(usage(
            "the weave network's password is empty",
            "a network without one is not encrypted: arpanet2 does not join it",
        ));
    }
    Ok(Some(RouterPassword::new(given.as_str())))
}

/// Consul answers names only where it is.
fn require_answers(dns: DnsKind, discovery: DiscoveryKind) -> Result<()> {
    match (dns, discovery) {
        (DnsKind::Consul, DiscoveryKind::Gossip) => Err(usage(
            "consul can't answer names where services are not in it",
            "say --discovery consul too, or do with --dns watch",
        )),
        _ => Ok(()),
    }
}

fn host_name() -> Result<String> {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .map_err(|source| {
            Error::new(ErrorKind::Internal, "the host has no name")
                .with_hint("choose one with --name")
                .with_source(source)
        })
}
