//! From the TUN device to the network.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gotatun::packet::{Packet, PacketBufPool};
use tun_rs::{SyncDevice, VIRTIO_NET_HDR_LEN};

use super::engine::Engine;
use super::peer::Peer;

/// The largest packet, which bounds the device's MTU.
pub(super) const MAX_PACKET: usize = 2048;
/// The most packets that one segmented read can become.
const SLOTS_A_READ: usize = 128;
/// Packets that are enough to be sealed and sent: the caches still have them, and the other side has something to do.
const ENOUGH: usize = 32;
const SLOTS: usize = ENOUGH + SLOTS_A_READ;

/// A buffer of the pool in the form that tun-rs wants.
#[derive(Default)]
struct Slot(Packet);

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Runs until the tunnel stops, or the device is gone, which is an error.
pub(super) fn run(engine: &Engine, device: &SyncDevice) -> io::Result<()> {
    let pool = PacketBufPool::<MAX_PACKET>::new(SLOTS);
    let mut batch = Batch {
        slots: (0..SLOTS).map(|_| Slot(pool.get())).collect(),
        sizes: vec![0; SLOTS],
        sealed: Vec::with_capacity(SLOTS),
        pool,
    };
    let mut raw = vec![0; VIRTIO_NET_HDR_LEN + 65_535];
    while !engine.is_stopped() {
        let mut used = 0;
        while used < ENOUGH {
            match device.recv_multiple(
                &mut raw,
                &mut batch.slots[used..],
                &mut batch.sizes[used..],
                0,
            ) {
                Ok(read) => used += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a packet from the device can't be used");
                    break;
                }
            }
        }
        if used == 0 {
            engine.wait(Some(device.as_fd()), None);
        } else {
            batch.send(engine, used);
        }
    }
    Ok(())
}

struct Batch {
    pool: PacketBufPool<MAX_PACKET>,
    slots: Vec<Slot>,
    sizes: Vec<usize>,
    /// Empty, kept for its memory.
    sealed: Vec<Packet>,
}

impl Batch {
    fn send(&mut self, engine: &Engine, used: usize) {
        let table = engine.table();
        let mut first = 0;
        while first < used {
            let destination = self.destination(first);
            let count_same = (first..used)
                .take_while(|slot| self.destination(*slot) == destination)
                .count();
            let run = first..first + count_same;
            first = run.end;
            match destination.and_then(|addr| table.routes.lookup(addr)) {
                Some(peer) => self.send_run(engine, peer, run),
                None => {
                    let dropped = run.len() as u64;
                    engine
                        .counters
                        .no_peer
                        .fetch_add(dropped, Ordering::Relaxed);
                }
            }
        }
    }

    fn destination(&self, slot: usize) -> Option<Ipv4Addr> {
        let packet = self.slots[slot].0.get(..self.sizes[slot])?;
        destination(packet)
    }

    /// Seals and sends packets for one peer, under one lock.
    fn send_run(&mut self, engine: &Engine, peer: &Arc<Peer>, run: std::ops::Range<usize>) {
        let endpoint = {
            let mut session = peer.lock();
            for slot in run {
                let mut packet = std::mem::take(&mut self.slots[slot].0);
                let size = self.sizes[slot];
                // Padded as the protocol asks, to hide the exact length, but not beyond the MTU.
                let padded = size
                    .next_multiple_of(16)
                    .min(engine.mtu.into())
                    .max(size)
                    .min(packet.len());
                packet[size..padded].fill(0);
                packet.truncate(padded);
                match session.tunn.encapsulate_with_session(packet) {
                    Ok(sealed) => self.sealed.push(sealed.into_bytes()),
                    Err(packet) => {
                        let dropped = &engine.counters.no_session;
                        if let Some(message) = session.keep(&packet, dropped) {
                            engine.emit(peer, &mut session, message);
                        }
                    }
                }
                // Only now: the packet's buffer is back in the pool.
                self.slots[slot].0 = self.pool.get();
            }
            session.endpoint
        };
        if self.sealed.is_empty() {
            return;
        }
        let refused = match endpoint {
            Some(to) => {
                let datagrams: Vec<_> = self
                    .sealed
                    .iter()
                    .map(|sealed| IoSlice::new(sealed))
                    .collect();
                engine.socket.send_all(&datagrams, to, &peer.singly)
            }
            None => self.sealed.len() as u64,
        };
        self.sealed.clear();
        engine
            .counters
            .not_sent
            .fetch_add(refused, Ordering::Relaxed);
    }
}

/// Where an IPv4 packet goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(octets.into())
}
