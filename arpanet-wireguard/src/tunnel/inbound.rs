//! From the network to the TUN device.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use gotatun::noise::TunnResult;
use gotatun::packet::{Packet, PacketBufPool, WgKind};
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::engine::{Engine, Table, count};
use super::outbound::MAX_PACKET;
use super::peer::Peer;
use super::segments::MAX_SEGMENTS;
use super::side::SIDE_CHANNEL_MAGIC;
use super::socket::Received;
use super::writer::Writer;

/// What the protocol adds to a packet: header and tag.
const OVERHEAD: usize = 32;
const DATA: u8 = 4;
/// A sealed packet, or a handshake, fits in.
const MAX_SEALED: usize = MAX_PACKET + OVERHEAD;

/// Runs until the tunnel stops, or the device is gone, which is an error.
pub(super) fn run(
    engine: &Engine,
    device: &SyncDevice,
    side: mpsc::Sender<(Bytes, SocketAddr)>,
) -> io::Result<()> {
    let mut received = Received::new();
    let mut inbound = Inbound {
        engine,
        device,
        side,
        pool: PacketBufPool::new(MAX_SEGMENTS),
        opened: Vec::with_capacity(MAX_SEGMENTS),
        writer: Writer::new(device),
    };
    while !engine.is_stopped() {
        match received.fill(&engine.socket) {
            Ok(()) => {
                for (bytes, segment, from) in received.messages() {
                    inbound.message(bytes, segment, from)?;
                }
                inbound.writer.flush(device)?;
            }
            // Whatever the network reported, for a peer that is gone say, is not the end of the socket.
            Err(_) => engine.wait(Some(engine.socket.as_fd()), None),
        }
    }
    Ok(())
}

struct Inbound<'a> {
    engine: &'a Engine,
    device: &'a SyncDevice,
    side: mpsc::Sender<(Bytes, SocketAddr)>,
    pool: PacketBufPool<MAX_SEALED>,
    /// Kept for its memory.
    opened: Vec<Packet>,
    writer: Writer,
}

impl Inbound<'_> {
    /// Datagrams of one sender, all of one size but the last.
    fn message(&mut self, bytes: &[u8], segment: usize, from: SocketAddr) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(index) = session_index(rest) else {
                let (datagram, after) = rest.split_at(segment.min(rest.len()));
                self.other(datagram, from);
                rest = after;
                continue;
            };
            let datagrams = rest
                .chunks(segment)
                .take_while(|datagram| session_index(datagram) == Some(index))
                .count();
            let (run, after) = rest.split_at((datagrams * segment).min(rest.len()));
            match self.engine.peer_by_index(index) {
                Some(peer) => self.data(&peer, run.chunks(segment), from)?,
                None => count(&self.engine.counters.refused),
            }
            rest = after;
        }
        Ok(())
    }

    /// Opens packets of one session under one lock, and hands them over without it.
    fn data<'b>(
        &mut self,
        peer: &Arc<Peer>,
        datagrams: impl Iterator<Item = &'b [u8]>,
        from: SocketAddr,
    ) -> io::Result<()> {
        let mut session = peer.lock();
        for datagram in datagrams {
            let Some(WgKind::Data(sealed)) = self.packet(datagram).and_then(parse) else {
                count(&self.engine.counters.refused);
                continue;
            };
            // Through the whole protocol, for its timers.
            let TunnResult::WriteToTunnel(packet) =
                session.tunn.handle_incoming_packet(WgKind::Data(sealed))
            else {
                count(&self.engine.counters.refused);
                continue;
            };
            session.endpoint = Some(from);
            if !packet.is_empty() {
                self.opened.push(packet);
            }
        }
        self.engine.send_waiting(peer, &mut session);
        drop(session);
        let table = self.engine.table();
        for mut packet in self.opened.drain(..) {
            match inner(&packet).filter(|(source, _)| may_send(&table, peer, *source)) {
                Some((_, length)) => {
                    packet.truncate(length);
                    self.writer.push(packet, self.device)?;
                }
                None => count(&self.engine.counters.spoofed),
            }
        }
        Ok(())
    }

    /// A handshake, a datagram of the side channel, or noise.
    fn other(&mut self, datagram: &[u8], from: SocketAddr) {
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

    fn handshake(&mut self, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let packet = self.packet(datagram)?;
        let message = match self.engine.limiter.verify_packet(from, packet) {
            Ok(message) => message,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.engine.send(cookie, from);
                return Some(());
            }
            Err(_) => return None,
        };
        let peer = match &message {
            WgKind::HandshakeInit(init) => self.engine.initiator(init),
            WgKind::HandshakeResp(response) => {
                self.engine.peer_by_index(response.receiver_idx.get())
            }
            WgKind::CookieReply(reply) => self.engine.peer_by_index(reply.receiver_idx.get()),
            WgKind::Data(_) => None,
        }?;
        let mut session = peer.lock();
        match session.tunn.handle_incoming_packet(message) {
            TunnResult::WriteToNetwork(answer) => {
                session.endpoint = Some(from);
                self.engine.emit(&peer, &mut session, answer);
                self.engine.send_waiting(&peer, &mut session);
                Some(())
            }
            TunnResult::Done => Some(()),
            TunnResult::Err(_) | TunnResult::WriteToTunnel(_) => None,
        }
    }

    fn packet(&self, datagram: &[u8]) -> Option<Packet> {
        let mut packet = self.pool.get();
        packet.get_mut(..datagram.len())?.copy_from_slice(datagram);
        packet.truncate(datagram.len());
        Some(packet)
    }
}

fn parse(packet: Packet) -> Option<WgKind> {
    packet.try_into_wg().ok()
}

/// The session that a data message says it belongs to.
fn session_index(datagram: &[u8]) -> Option<u32> {
    if datagram.get(..4)? != [DATA, 0, 0, 0] {
        return None;
    }
    Some(u32::from_le_bytes(datagram.get(4..8)?.try_into().ok()?))
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
