//! From the network to the TUN device.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::engine::{Engine, Table, count};
use super::index::Indexed;
use super::peer::Peer;
use super::protocol::{Keypair, Kind, Verdict, data_index, receiver};
use super::side::SIDE_CHANNEL_MAGIC;
use super::socket::{Received, Socket};
use super::writer::Writer;

/// Runs until the tunnel stops, or the device is gone, which is an error.
pub(super) fn run(
    engine: &Engine,
    device: &SyncDevice,
    socket: &Socket,
    side: &mpsc::Sender<(Bytes, SocketAddr)>,
) -> io::Result<()> {
    let mut received = Received::new();
    while !engine.is_stopped() {
        match received.fill(socket) {
            Ok(()) => {
                let mut batch = Batch {
                    engine,
                    device,
                    side,
                    now: Instant::now(),
                    writer: Writer::new(device),
                };
                for (bytes, segment, from) in received.messages() {
                    batch.message(bytes, segment, from)?;
                }
                batch.writer.flush(device)?;
            }
            // Whatever the network reported, for a peer that is gone say, is not the end of the socket.
            Err(_) => engine.wait(Some(socket.as_fd()), None),
        }
    }
    Ok(())
}

/// What one call has received. Packets are opened where they are, and written from there.
struct Batch<'a, 'b> {
    engine: &'a Engine,
    device: &'a SyncDevice,
    side: &'a mpsc::Sender<(Bytes, SocketAddr)>,
    now: Instant,
    writer: Writer<'b>,
}

impl<'b> Batch<'_, 'b> {
    /// Datagrams of one sender, all of one size but the last.
    fn message(&mut self, bytes: &'b mut [u8], segment: usize, from: SocketAddr) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = rest.chunks(segment).next().and_then(data_index);
            let Some(index) = index else {
                let (datagram, after) = rest.split_at_mut(segment.min(rest.len()));
                self.other(datagram, from);
                rest = after;
                continue;
            };
            let datagrams = rest
                .chunks(segment)
                .take_while(|datagram| data_index(datagram) == Some(index))
                .count();
            let (run, after) = rest.split_at_mut((datagrams * segment).min(rest.len()));
            rest = after;
            match self.engine.indices.get(index) {
                Some(Indexed {
                    peer,
                    keypair: Some(keypair),
                }) => self.data(&peer, &keypair, run, segment, from)?,
                _ => self.refuse(datagrams),
            }
        }
        Ok(())
    }

    fn refuse(&self, datagrams: usize) {
        let refused = &self.engine.counters.refused;
        refused.fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// Opens packets of one session, and hands them over.
    fn data(
        &mut self,
        peer: &Arc<Peer>,
        keypair: &Arc<Keypair>,
        run: &'b mut [u8],
        segment: usize,
        from: SocketAddr,
    ) -> io::Result<()> {
        let (length, datagrams) = (run.len(), run.len().div_ceil(segment));
        let mut opened = Vec::with_capacity(datagrams);
        if keypair.is_usable(self.now) {
            let packets = run.chunks_mut(segment).map(|one| keypair.open(one));
            opened.extend(packets.flatten());
            keypair.admit(&mut opened);
        }
        self.refuse(datagrams - opened.len());
        if opened.is_empty() {
            return Ok(());
        }
        let data = opened.iter().any(|(_, packet)| !packet.is_empty());
        peer.traffic.received(length as u64, data, self.now);
        self.engine.heard(peer, keypair, from, self.now);
        let table = self.engine.table();
        // Mostly they are all of one source.
        let mut allowed = None;
        for (_, packet) in opened {
            let packet: &'b [u8] = packet;
            if packet.is_empty() {
                continue;
            }
            match inner(packet) {
                Some((source, length))
                    if allowed == Some(source) || may_send(&table, peer, source) =>
                {
                    allowed = Some(source);
                    self.writer.push(&packet[..length], self.device)?;
                }
                _ => count(&self.engine.counters.spoofed),
            }
        }
        Ok(())
    }

    /// A handshake, a datagram of the side channel, or noise.
    fn other(&self, datagram: &[u8], from: SocketAddr) {
        if datagram.first() == Some(&SIDE_CHANNEL_MAGIC) {
            let item = (Bytes::copy_from_slice(datagram), from);
            if self.side.try_send(item).is_err() {
                count(&self.engine.counters.side_full);
            }
            return;
        }
        if self.handshake(datagram, from).is_none() {
            count(&self.engine.counters.refused);
        }
    }

    fn handshake(&self, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let (engine, now) = (self.engine, self.now);
        let kind = Kind::of(datagram)?;
        if kind == Kind::CookieReply {
            return engine.cookie(receiver(kind, datagram), datagram, now);
        }
        match engine.judge(datagram, from, now) {
            Verdict::Read => {}
            Verdict::Ask(reply) => {
                engine.send(&reply, from);
                return Some(());
            }
            Verdict::Drop => return None,
        }
        match kind {
            Kind::Initiation => engine.answer(datagram, from, now),
            Kind::Response => engine.answered(receiver(kind, datagram), datagram, from, now),
            Kind::CookieReply | Kind::Data => None,
        }
    }
}

/// An IPv4 packet's source, and its length without the padding behind it.
fn inner(packet: &[u8]) -> Option<(Ipv4Addr, usize)> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    (20..=packet.len())
        .contains(&length)
        .then_some((source, length))
}

fn may_send(table: &Table, peer: &Arc<Peer>, source: Ipv4Addr) -> bool {
    let owner = table.routes.lookup(source);
    owner.is_some_and(|owner| Arc::ptr_eq(owner, peer))
}
