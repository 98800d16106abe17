//! Frames of the bridge, as weave has them without a fast datapath: captured from a link and sent on it, as they are. A checksum that
//! the kernel leaves to a device is not in them.

use std::os::fd::{AsRawFd, OwnedFd};

use arpanet_netlink::{Namespace, VethEnd};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind,
    recvfrom, send, socket,
};

/// The port of the bridge, and the link that is captured from.
const PORT: &str = "vethwe-bridge";
const PCAP: &str = "vethwe-pcap";
/// `PACKET_OUTGOING`: what this program has sent.
const OUTGOING: u8 = 4;

pub(super) struct Capture(OwnedFd);

impl Capture {
    /// The links stay when the router ends, and are found again.
    pub(super) fn open(bridge: &str) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{PCAP}: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let made = runtime.map_err(told)?.block_on(async {
            let host = Namespace::current()?.handle()?;
            if host.link(PORT).await?.is_none() {
                let end = |name| VethEnd::new(name, host.namespace());
                host.add_veth(&end(PORT), &end(PCAP)).await?;
            }
            host.set_master(PORT, Some(bridge)).await?;
            host.set_up(PORT, true).await?;
            host.set_up(PCAP, true).await
        });
        made.map_err(|error| error.to_string())?;
        let failed = |error: nix::Error| told(error.into());
        let open = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        );
        let socket = open.map_err(failed)?;
        let links = nix::ifaddrs::getifaddrs().map_err(failed)?;
        let own = links
            .filter(|link| link.interface_name == PCAP)
            .find_map(|link| {
                let address = link.address?;
                let is_link = address.family() == Some(AddressFamily::Packet);
                is_link.then(|| address.as_link_addr().copied()).flatten()
            });
        let own: LinkAddr = own.ok_or_else(|| format!("{PCAP} is not there"))?;
        bind(socket.as_raw_fd(), &own).map_err(failed)?;
        Ok(Self(socket))
    }

    /// The next frame that comes from the bridge.
    pub(super) fn recv(&self, frame: &mut [u8]) -> nix::Result<usize> {
        loop {
            let (length, from) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), frame)?;
            if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                return Ok(length);
            }
        }
    }

    /// Gives the bridge a frame; one that is too large for the link is lost.
    pub(super) fn send(&self, frame: &[u8]) {
        let _ = send(self.0.as_raw_fd(), frame, MsgFlags::empty());
    }
}
