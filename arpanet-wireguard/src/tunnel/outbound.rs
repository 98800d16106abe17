//! From the TUN device to the network.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tun_rs::{SyncDevice, VIRTIO_NET_HDR_LEN};

use super::engine::Engine;
use super::peer::Peer;
use super::protocol::{DATA_HEADER, DATA_OVERHEAD, Keypair, TAG};
use super::socket::Socket;

/// The largest packet, which bounds the device's MTU.
pub(super) const MAX_PACKET: usize = 2048;
/// The most packets that one segmented read can become.
const SLOTS_A_READ: usize = 128;
/// Packets that are enough to be sealed and sent. More at once wake the other side less often, but leave the caches.
const ENOUGH: usize = 128;
const SLOTS: usize = ENOUGH + SLOTS_A_READ;

/// Room for a packet, between what is put before and behind it when it is sealed where it is.
struct Slot([u8; DATA_OVERHEAD + MAX_PACKET]);

impl Slot {
    fn packet(&self, size: usize) -> &[u8] {
        &self.0[DATA_HEADER..][..size]
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.0[..DATA_HEADER + MAX_PACKET]
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0[..DATA_HEADER + MAX_PACKET]
    }
}

/// Runs until the tunnel stops, or the device is gone, which is an error.
pub(super) fn run(engine: &Engine, device: &SyncDevice, socket: &Socket) -> io::Result<()> {
    let mut batch = Batch {
        engine,
        socket,
        slots: (0..SLOTS)
            .map(|_| Slot([0; DATA_OVERHEAD + MAX_PACKET]))
            .collect(),
        sizes: vec![0; SLOTS],
    };
    let mut raw = vec![0; VIRTIO_NET_HDR_LEN + 65_535];
    while !engine.is_stopped() {
        let mut used = 0;
        while used < ENOUGH {
            match device.recv_multiple(
                &mut raw,
                &mut batch.slots[used..],
                &mut batch.sizes[used..],
                DATA_HEADER,
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
            batch.send(used);
        }
    }
    Ok(())
}

struct Batch<'a> {
    engine: &'a Engine,
    socket: &'a Socket,
    slots: Vec<Slot>,
    sizes: Vec<usize>,
}

impl Batch<'_> {
    fn send(&mut self, used: usize) {
        let (now, engine) = (Instant::now(), self.engine);
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
                Some(peer) => self.send_run(peer, run, now),
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
        destination(self.slots[slot].packet(self.sizes[slot]))
    }

    /// Seals and sends packets for one peer.
    fn send_run(&mut self, peer: &Arc<Peer>, run: Range<usize>, now: Instant) {
        let (way, engine) = (peer.way(), self.engine);
        let session = way
            .usable(now)
            .and_then(|keypair| Some((keypair, keypair.reserve(run.len() as u64)?)));
        let Some((keypair, counters)) = session else {
            let packets = run.map(|slot| self.slots[slot].packet(self.sizes[slot]));
            engine.keep(peer, packets, now);
            return;
        };
        let mut datagrams = Vec::with_capacity(run.len());
        let (mut bytes, length) = (0, run.len());
        let slots = self.slots[run.clone()].iter_mut().zip(&self.sizes[run]);
        for ((slot, size), counter) in slots.zip(counters) {
            if let Some(datagram) = seal(engine, keypair, counter, slot, *size) {
                bytes += datagram.len();
                datagrams.push(IoSlice::new(datagram));
            }
        }
        let unsealed = length - datagrams.len();
        let refused = match way.endpoint {
            Some(to) => self.socket.send_all(&datagrams, to, &peer.singly),
            None => datagrams.len() as u64,
        };
        engine
            .counters
            .not_sent
            .fetch_add(refused + unsealed as u64, Ordering::Relaxed);
        peer.traffic.sent(bytes as u64, true, now);
        engine.sent(peer, keypair, now);
    }
}

fn seal<'a>(
    engine: &Engine,
    keypair: &Keypair,
    counter: u64,
    slot: &'a mut Slot,
    size: usize,
) -> Option<&'a [u8]> {
    let padded = engine.padded(size);
    let message = slot.0.get_mut(..DATA_OVERHEAD + padded)?;
    message[DATA_HEADER + size..DATA_HEADER + padded].fill(0);
    keypair.seal(counter, message).ok()?;
    debug_assert_eq!(message.len(), DATA_HEADER + padded + TAG);
    Some(message)
}

/// Where an IPv4 packet goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(octets.into())
}
