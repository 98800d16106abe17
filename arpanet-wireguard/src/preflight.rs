//! What can be known before anything is changed.

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{Namespace, Netlink, Transport, holder_of_port};
use nix::sys::socket::{setsockopt, sockopt};

use crate::WireGuardConfig;
use crate::router::UNDERLAY_MARK;

/// What an underlay has whose MTU can't be known.
const USUAL_MTU: u16 = 1500;

/// Looks for what would make a launch fail.
pub(crate) async fn check(
    namespace: &Namespace,
    config: &WireGuardConfig,
    own_link: &str,
    is_running: bool,
) -> Result<()> {
    tun()?;
    let host = namespace.handle()?;
    let clashes = host
        .preflight(&config.networks, &config.resolvers, &[own_link])
        .await?;
    if let Some(clash) = clashes.into_iter().next() {
        return Err(Error::from(clash));
    }
    if !is_running {
        bind(namespace, config.port)?;
    }
    Ok(())
}

fn tun() -> Result<()> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    opened.map(drop).map_err(|error| {
        let (kind, hint) = match error.kind() {
            io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, "run it as root"),
            io::ErrorKind::NotFound => (
                ErrorKind::Unsupported,
                "load the kernel's module tun: modprobe tun",
            ),
            _ => (ErrorKind::Unsupported, "is the kernel's module tun there?"),
        };
        Error::new(kind, "/dev/net/tun can't be opened")
            .with_hint(hint)
            .with_source(error)
    })
}

/// The UDP socket on the underlay.
pub(crate) fn bind(namespace: &Namespace, port: u16) -> Result<UdpSocket> {
    let bound = namespace.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        setsockopt(&socket, sockopt::Mark, &UNDERLAY_MARK)?;
        Ok::<_, io::Error>(socket)
    })?;
    bound.map_err(|error| {
        let failed = |kind, what: String| {
            Error::new(kind, format!("UDP port {port} {what}"))
                .operation("open the UDP port")
                .backend(crate::backend::BACKEND)
        };
        let error = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let holder = namespace.run(|| holder_of_port(Transport::Udp, port));
                let holder = holder
                    .ok()
                    .flatten()
                    .map_or_else(String::new, |holder| format!(" by {holder}"));
                // The holder is the cause; the system's words would add nothing to it.
                return failed(ErrorKind::Conflict, format!("is in use{holder}"))
                    .with_hint("end that process, or choose another port with --port");
            }
            io::ErrorKind::PermissionDenied => {
                failed(ErrorKind::PermissionDenied, "is not allowed".to_owned()).with_source(error)
            }
            _ => failed(ErrorKind::Internal, "can't be bound".to_owned()).with_source(error),
        };
        error.with_hint("try it as root, or choose another port with --port")
    })
}

/// The MTU of the link that packets to other nodes take, in bytes: the one with the advertised address, or else the one
/// with the default route, or else the smallest that is up.
pub(crate) async fn underlay_mtu(host: &Netlink, advertised: Option<SocketAddr>) -> Result<u16> {
    let snapshot = host.snapshot().await?;
    let advertised = advertised.map(|endpoint| endpoint.ip());
    let by_address = snapshot
        .addresses
        .iter()
        .find(|address| Some(address.address.addr()) == advertised.filter(is_specific))
        .map(|address| address.link.clone());
    let by_default = || {
        let defaults = snapshot.routes.iter();
        defaults
            .filter(|route| route.destination.prefix_len() == 0)
            .min_by_key(|route| route.metric)
            .and_then(|route| route.link.clone())
    };
    let link = by_address.or_else(by_default);
    let carrying = snapshot.links.iter().filter(|other| match &link {
        Some(link) => other.name == *link,
        None => other.up && other.name != "lo" && other.name != crate::router::HOST_LINK,
    });
    let mtu = carrying.map(|link| link.mtu).min();
    Ok(mtu
        .and_then(|mtu| u16::try_from(mtu).ok())
        .unwrap_or(USUAL_MTU))
}

const fn is_specific(ip: &IpAddr) -> bool {
    !ip.is_unspecified()
}
