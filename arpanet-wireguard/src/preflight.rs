//! What can be known before anything is changed.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{Namespace, Transport, holder_of_port};
use arpanet_router::UNDERLAY_MARK;
use nix::sys::socket::{setsockopt, sockopt};

/// Whether WireGuard in this process can have a device.
pub(crate) fn tun() -> Result<()> {
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
