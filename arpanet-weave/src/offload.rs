//! Checksums: the kernel leaves them to the device that sends a packet at last. Weave without a fast datapath takes packets from its
//! bridge as they are, and would send them on without: a ping comes through, and no TCP or UDP. So the end that sends onto the
//! bridge says that it can't compute any, as weave itself has it for its containers (net/veth.go).

// Neither a netlink crate nor nix knows this request.
#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use arpanet_core::Result;
use arpanet_netlink::Namespace;

use crate::error::system;

/// `ETHTOOL_STXCSUM` (linux/ethtool.h). Segments go with the checksums: they need them.
const SET_TRANSMIT_CHECKSUMS: u32 = 0x17;

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Has the kernel compute checksums, and cut segments, before a link sends. A second call does nothing.
///
/// # Errors
/// [`arpanet_core::ErrorKind::NotFound`] where the link is not there.
pub(crate) fn switch_off(namespace: &Namespace, link: &str) -> Result<()> {
    namespace.run(|| request(link))?.map_err(|error| {
        system(
            format!("the offloads of {link} can't be switched off"),
            error,
        )
    })
}

fn request(link: &str) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    // The last stays 0: it ends the name.
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(link.bytes()) {
        *to = from.cast_signed();
    }
    let mut value = Value {
        command: SET_TRANSMIT_CHECKSUMS,
        data: 0,
    };
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    // Any socket of the namespace will do.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request is a whole `ifreq`, whose data points to a whole `ethtool_value` that this command reads and writes
    // (ethtool_set_value in net/ethtool/ioctl.c). Both outlive the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
