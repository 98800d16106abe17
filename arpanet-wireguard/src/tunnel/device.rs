//! The TUN device, in the namespace that routes into it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tun_rs::{DeviceBuilder, SyncDevice};

/// A device that is open, by nobody but this.
pub(super) struct Device {
    /// One or more. The kernel keeps packets of one connection in one of them.
    pub(super) queues: Vec<SyncDevice>,
    /// A device with several queues can be opened by more than one: who has this name is the one.
    _owner: Option<UnixListener>,
}

/// Makes the device, or opens the one that an earlier process left: it is persistent, so that its routes and the
/// connections over it outlive this process. Up, and not blocking.
pub(super) fn open(namespace: &Namespace, name: &str, mtu: u16, queues: usize) -> Result<Device> {
    namespace
        .run(|| build(name, mtu, queues))?
        .map_err(|error| {
            let kind = match error.raw_os_error() {
                Some(libc::EBUSY | libc::EADDRINUSE) => ErrorKind::Conflict,
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

fn build(name: &str, mtu: u16, queues: usize) -> io::Result<Device> {
    let several = queues > 1;
    match attempt(name, mtu, several, queues) {
        // An earlier process made it of the other kind, and what is routed into it must not be lost.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            attempt(name, mtu, !several, 1).map_err(|_| error)
        }
        result => result,
    }
}

fn attempt(name: &str, mtu: u16, several: bool, count: usize) -> io::Result<Device> {
    let owner = match several {
        true => {
            let addr = SocketAddr::from_abstract_name(format!("arpanet2/tun/{name}"))?;
            Some(UnixListener::bind_addr(&addr)?)
        }
        false => None,
    };
    let mut queues = vec![queue(name, mtu, several)?];
    while queues.len() < count {
        let next = queues[0].try_clone()?;
        do_not_block(&next)?;
        queues.push(next);
    }
    Ok(Device {
        queues,
        _owner: owner,
    })
}

fn queue(name: &str, mtu: u16, one_of_several: bool) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(mtu)
        .offload(true)
        .multi_queue(one_of_several)
        .build_sync()?;
    // Refused in a user namespace, and then it is 500: only bursts are shorter.
    let _ = device.set_tx_queue_len(1000);
    device.persist()?;
    do_not_block(&device)?;
    Ok(device)
}

fn do_not_block(device: &SyncDevice) -> io::Result<()> {
    fcntl(device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
