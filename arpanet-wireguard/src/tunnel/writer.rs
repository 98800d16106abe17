//! Packets on their way into the TUN device, joined where the kernel takes them as one.

use std::io;

use tun_rs::{GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

/// Packets a batch.
const SLOTS: usize = 64;
/// Room for what is joined to a packet.
const CAPACITY: usize = 2 * VIRTIO_NET_HDR_LEN + 65_535;

pub(super) struct Writer {
    table: GROTable,
    packets: Vec<Vec<u8>>,
    used: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            table: GROTable::new(),
            // Memory is only taken for what is written to.
            packets: (0..SLOTS).map(|_| Vec::with_capacity(CAPACITY)).collect(),
            used: 0,
        }
    }

    /// Adds a packet, and writes all of them if they are many.
    pub(super) fn push(&mut self, packet: &[u8], device: &SyncDevice) -> io::Result<()> {
        let slot = &mut self.packets[self.used];
        slot.clear();
        slot.resize(VIRTIO_NET_HDR_LEN, 0);
        slot.extend_from_slice(packet);
        self.used += 1;
        if self.used == SLOTS {
            return self.flush(device);
        }
        Ok(())
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self, device: &SyncDevice) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        match device.send_multiple(
            &mut self.table,
            &mut self.packets[..used],
            VIRTIO_NET_HDR_LEN,
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(error),
            Err(error) => {
                // As on a full queue of a network card: the packet is lost and the transport above sends it again.
                tracing::debug!(%error, "the device refused a packet");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
