//! ICMP echo (RFC 792) from the host to the overlay addresses of peers: the way that everything else takes too.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// Sends echo requests and hands out the answers. Dropping it ends it.
#[derive(Debug)]
pub struct Pinger {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// A raw socket: only sending and receiving are the same as for UDP.
    socket: UdpSocket,
    identifier: u16,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u16,
    answers: HashMap<(u16, Ipv4Addr), oneshot::Sender<Instant>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) {
        let mut buffer = [0; 256];
        loop {
            // Errors are those of earlier requests that were refused: an answer may come all the same.
            let Ok((length, SocketAddr::V4(from))) = self.socket.recv_from(&mut buffer).await
            else {
                tokio::task::yield_now().await;
                continue;
            };
            let now = Instant::now();
            if let Some(sequence) = answer(&buffer[..length], self.identifier)
                && let Some(waiting) = self.waiting().answers.remove(&(sequence, *from.ip()))
            {
                // Whoever asked may have given up.
                let _ = waiting.send(now);
            }
        }
    }
}

impl Pinger {
    /// Opens the socket in this namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] without CAP_NET_RAW.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, "no socket for ICMP can be opened")
                .with_hint("it needs CAP_NET_RAW")
                .with_source(error)
        };
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = namespace.run(open)?.map_err(failed)?;
        let shared = Arc::new(Shared {
            socket: UdpSocket::from_std(OwnedFd::from(socket).into()).map_err(failed)?,
            identifier: rand::random(),
            waiting: Mutex::default(),
        });
        let reader = Arc::clone(&shared);
        Ok(Self {
            shared,
            reader: tokio::spawn(async move { reader.read().await }),
        })
    }

    /// The round trip of one packet, or `None` if no answer came within `limit`.
    pub async fn ping(&self, to: Ipv4Addr, limit: Duration) -> Option<Duration> {
        let (sender, receiver) = oneshot::channel();
        let sequence = {
            let mut waiting = self.shared.waiting();
            waiting.next = waiting.next.wrapping_add(1);
            let sequence = waiting.next;
            waiting.answers.insert((sequence, to), sender);
            sequence
        };
        let _forget = Forget(&self.shared, (sequence, to));
        let packet = request(self.shared.identifier, sequence);
        let sent = Instant::now();
        if let Err(error) = self
            .shared
            .socket
            .send_to(&packet, SocketAddr::from((to, 0)))
            .await
        {
            tracing::trace!(%to, %error, "an echo request was refused");
        }
        let answered = tokio::time::timeout(limit, receiver).await.ok()?.ok()?;
        Some(answered.saturating_duration_since(sent))
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Takes a question back that nobody waits for any more.
struct Forget<'a>(&'a Shared, (u16, Ipv4Addr));

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting().answers.remove(&self.1);
    }
}

fn request(identifier: u16, sequence: u16) -> [u8; HEADER] {
    let mut packet = [ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The sequence number of an answer to one of ours, from a packet with its IP header.
fn answer(packet: &[u8], identifier: u16) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0F) * 4;
    let echo: &[u8; HEADER] = packet.get(header..header + HEADER)?.try_into().ok()?;
    let ours = echo[0] == ECHO_REPLY && echo[4..6] == identifier.to_be_bytes();
    ours.then(|| u16::from_be_bytes([echo[6], echo[7]]))
}

/// RFC 1071.
fn checksum(bytes: &[u8; HEADER]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let folded = (folded & 0xFFFF) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_nothing() {
        assert_eq!(checksum(&request(0xBEEF, 7)), 0);
    }

    #[test]
    fn only_answers_to_own_questions_count() {
        let mut packet = vec![0x45; 20];
        packet.extend([ECHO_REPLY, 0, 0, 0, 0xBE, 0xEF, 0, 7]);
        assert_eq!(answer(&packet, 0xBEEF), Some(7));
        assert_eq!(answer(&packet, 0xBEE0), None);
        packet[20] = ECHO_REQUEST;
        assert_eq!(answer(&packet, 0xBEEF), None);
        assert_eq!(answer(&packet[..24], 0xBEEF), None);
        assert_eq!(answer(&[], 0xBEEF), None);
    }
}
