//! Packets on their way into the TUN device, joined where the kernel takes them as one.

use std::io::{self, IoSlice};

use nix::sys::uio::writev;
use tun_rs::SyncDevice;

use super::segments::Run;

/// Keeps one run of packets. Their checksums inside are not looked at: as in the kernel's own WireGuard, what the
/// tunnel has authenticated has not changed on its way.
pub(super) struct Writer<'a>(Run<&'a [u8]>);

impl<'a> Writer<'a> {
    pub(super) fn new(device: &SyncDevice) -> Self {
        Self(Run::new(device.udp_gso()))
    }

    /// Adds a packet, and writes those that it does not follow.
    pub(super) fn push(&mut self, packet: &'a [u8], device: &SyncDevice) -> io::Result<()> {
        if let Some(packet) = self.0.push(packet) {
            self.flush(device)?;
            // To an empty run, anything can be added.
            self.0.push(packet);
        }
        Ok(())
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self, device: &SyncDevice) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let written = {
            let (header, parts) = self.0.parts();
            let mut slices = Vec::with_capacity(64);
            slices.push(IoSlice::new(header.as_bytes()));
            slices.extend(parts.map(IoSlice::new));
            writev(device, &slices)
        };
        self.0.clear();
        match written {
            Err(nix::errno::Errno::EBADFD) => Err(nix::errno::Errno::EBADFD.into()),
            Err(error) => {
                // As on a full queue of a network card: the packet is lost and the transport above sends it again.
                tracing::debug!(%error, "the device refused a packet");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
