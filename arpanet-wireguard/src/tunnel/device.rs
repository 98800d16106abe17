//! The TUN device, in the namespace that routes into it.

use std::io;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Makes the device, or opens the one that an earlier process left: it is persistent, so that its routes and the
/// connections over it outlive this process. Up, and not blocking.
pub(super) fn open(namespace: &Namespace, name: &str, mtu: u16) -> Result<SyncDevice> {
    namespace.run(|| build(name, mtu))?.map_err(|error| {
        let kind = match error.raw_os_error() {
            Some(libc::EBUSY) => ErrorKind::Conflict,
            Some(libc::EPERM | libc::EACCES) => ErrorKind::PermissionDenied,
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("the TUN device {name} can't be opened"))
            .operation("launch")
            .backend("wireguard")
            .with_hint(match kind {
                ErrorKind::Conflict => "another process has it open: is an agent running?",
                ErrorKind::Unsupported => "is the kernel's module tun loaded?",
                _ => "it needs /dev/net/tun and CAP_NET_ADMIN",
            })
            .with_source(error)
    })
}

fn build(name: &str, mtu: u16) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(mtu)
        .offload(true)
        .build_sync()?;
    // Refused in a user namespace, and then it is 500: only bursts are shorter.
    let _ = device.set_tx_queue_len(1000);
    device.persist()?;
    fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(device)
}
