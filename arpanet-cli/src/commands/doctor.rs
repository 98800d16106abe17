//! `arpanet2 doctor`

mod docker;
mod weave;

use std::io::Write;
use std::process::ExitCode;

use arpanet_core::addr::UNDERLAY_PORT;
use arpanet_core::{Error, Result};
use arpanet_netlink::{Namespace, Transport, holder_of_port};
use arpanet_wireguard::tunnel::kernel_has_wireguard;
use arpanet_wireguard::tunnel_port_beside;
use serde::Serialize;

use super::Context;
use crate::agent::state::{DiscoveryKind, OverlayKind, StackKind, Tunnel};
use crate::agent::status::Status;
use crate::host;

/// The links of arpanet2's own on a host, which clash with nothing.
const OUR_LINKS: &[&str] = &["arpanet0"];

/// What one change of a node's state needs, in bytes.
const ROOM: usize = 64 << 10;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    pub(super) const fn is_ok(&self) -> bool {
        self.ok
    }

    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            ok: true,
            message: message.into(),
            hint: None,
        }
    }

    /// In nobody's way, and worth a word.
    fn note(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::good(check, message)
        }
    }

    fn bad(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            ok: false,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Looks at everything.
pub(super) async fn findings(context: &Context) -> Result<Vec<Finding>> {
    let running = context.agent()?.is_running().await;
    let mut findings = vec![root()];
    findings.extend(tunnel(context, running).await);
    findings.extend(clashes(context).await?);
    let port = context.config.port.unwrap_or(UNDERLAY_PORT);
    findings.extend([Transport::Tcp, Transport::Udp].map(|transport| {
        let hint = "end that process, or choose another port with --port";
        port_is_free(transport, port, running, hint)
    }));
    findings.push(disk(context));
    findings.extend(docker::findings(context).await?);
    findings.extend(weave::findings(context, running).await?);
    findings.extend(consul(context));
    findings.push(match running {
        true => Finding::good("agent", "the agent is running"),
        false => Finding::good("agent", "no agent is running"),
    });
    Ok(findings)
}

/// One line each, and one for a hint.
pub(super) fn render(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        let mark = match (finding.ok, &finding.hint) {
            (true, None) => "ok  ",
            (true, Some(_)) => "note",
            (false, _) => "FAIL",
        };
        let hint = finding
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("\n     hint: {hint}"));
        format!("{mark} {}: {}{hint}", finding.check, finding.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails when anything is in the way of a node.
pub(crate) async fn run(context: &Context) -> Result<ExitCode> {
    let findings = findings(context).await?;
    context
        .printer
        .result(&findings, |findings| render(findings))?;
    Ok(if findings.iter().all(|finding| finding.ok) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The consul program, where services are to be in consul.
fn consul(context: &Context) -> Option<Finding> {
    let config = &context.config;
    let discovery = config.discovery.or(config.stack.map(StackKind::discovery));
    (discovery == Some(DiscoveryKind::Consul)).then(|| {
        match host::consul(config.consul.as_deref()) {
            Ok(program) => Finding::good("consul", format!("it is {}", program.display())),
            Err(error) => Finding::bad(
                "consul",
                error.to_string(),
                error.hint().unwrap_or_default(),
            ),
        }
    })
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::good("root", "this is root")
    } else {
        Finding::bad("root", "this is not root", "run it with sudo")
    }
}

fn tun() -> Finding {
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => Finding::good("tun", "/dev/net/tun can be opened"),
        Err(error) => Finding::bad(
            "tun",
            format!("/dev/net/tun can't be opened: {error}"),
            "load the module tun, or open the device to this user",
        ),
    }
}

/// Which WireGuard carries the overlay, or would.
async fn tunnel(context: &Context, running: bool) -> Vec<Finding> {
    let config = &context.config;
    let overlay = config.overlay.or(config.stack.map(StackKind::overlay));
    if overlay == Some(OverlayKind::Weave) {
        return vec![tun()];
    }
    let wanted = config.tunnel.unwrap_or_default();
    let used = match running {
        true => used_tunnel(context).await,
        false => None,
    };
    let has = kernel_has_wireguard().await;
    let uses_kernel = match (used.as_deref(), wanted) {
        (Some(used), _) => used == "kernel",
        (None, Tunnel::User) => false,
        (None, _) => matches!(has, Ok(true)),
    };
    if uses_kernel {
        let port = config.port.unwrap_or(UNDERLAY_PORT);
        let port = config.tunnel_port.unwrap_or(tunnel_port_beside(port));
        let message = format!("the kernel's WireGuard is used, on UDP port {port}");
        let hint = "end that process, choose another with tunnel_port in the configuration, or do without the kernel's WireGuard: --tunnel user";
        // An agent that was killed leaves its own there, and takes it over when it is back.
        let is_ours = running || context.paths.router().exists();
        return vec![
            Finding::good("wireguard", message),
            port_is_free(Transport::Udp, port, is_ours, hint),
        ];
    }
    let own = match (wanted, has) {
        (Tunnel::Kernel, Ok(false)) if used.is_none() => Finding::bad(
            "wireguard",
            "the kernel has no WireGuard, and the configuration asks for it",
            "load its module wireguard (modprobe wireguard), or set tunnel to auto",
        ),
        (Tunnel::User, _) | (_, Ok(true)) => Finding::good(
            "wireguard",
            "the agent's own WireGuard is used, as was chosen",
        ),
        _ => Finding::good(
            "wireguard",
            "the kernel has no WireGuard: the agent's own is used",
        ),
    };
    vec![own, tun()]
}

async fn used_tunnel(context: &Context) -> Option<String> {
    let status: Result<Status> = context.agent().ok()?.get("/v1/status").await;
    status.ok()?.stack.tunnel
}

async fn clashes(context: &Context) -> Result<Vec<Finding>> {
    let netlink = Namespace::current()?.handle()?;
    let clashes = netlink
        .preflight(&context.config.networks, &host::resolvers(), OUR_LINKS)
        .await?;
    if clashes.is_empty() {
        return Ok(vec![Finding::good(
            "addresses",
            "no address, route or resolver of this host is in the way",
        )]);
    }
    Ok(clashes
        .into_iter()
        .map(|clash| {
            let error = Error::from(clash);
            Finding::bad(
                "addresses",
                error.to_string(),
                error.hint().unwrap_or_default(),
            )
        })
        .collect())
}

/// Whether there is room for the node's state. A folder that is not there yet is made when a node comes up.
fn disk(context: &Context) -> Finding {
    let folder = context.paths.state();
    if !folder.exists() {
        return Finding::good("disk", format!("there is no {} yet", folder.display()));
    }
    let attempt = tempfile::tempfile_in(folder).and_then(|mut file| {
        file.write_all(&[0; ROOM])?;
        file.sync_all()
    });
    match attempt {
        Ok(()) => Finding::good("disk", format!("{} can be written", folder.display())),
        Err(error) => Finding::bad(
            "disk",
            format!("{} can't be written: {error}", folder.display()),
            "make room there, or see to its permissions: the node goes on, but can't keep what changes",
        ),
    }
}

/// Where this node has it, whoever holds it is right.
fn port_is_free(transport: Transport, port: u16, is_ours: bool, hint: &str) -> Finding {
    let check = match transport {
        Transport::Udp => "udp",
        _ => "tcp",
    };
    match holder_of_port(transport, port) {
        Some(holder) if is_ours => Finding::good(check, format!("port {port} is held by {holder}")),
        Some(holder) => Finding::bad(check, format!("port {port} is held by {holder}"), hint),
        None => Finding::good(check, format!("port {port} is free")),
    }
}
