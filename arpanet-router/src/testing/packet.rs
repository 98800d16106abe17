//! What becomes of a packet.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use arpanet_netlink::Namespace;

use super::LIMIT;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The other side answered that nothing listens there.
    Reached,
    /// A router answered that it may not pass, or the host that it can't.
    Refused,
    /// No answer.
    Lost,
}

impl Fate {
    fn of(error: &Error) -> Option<Self> {
        match error.kind() {
            ErrorKind::ConnectionRefused => Some(Self::Reached),
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => Some(Self::Refused),
            _ => None,
        }
    }
}

/// Sends datagrams to a port on which nothing listens, for less than 2 s, and says what came back.
#[must_use]
pub fn probe(from: &Namespace, to: Ipv4Addr) -> Fate {
    probe_as(from, Ipv4Addr::UNSPECIFIED, to)
}

/// The same from an address of the caller's choice.
///
/// # Panics
/// Where the namespace can't be entered, or has not that address.
#[must_use]
pub fn probe_as(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Fate {
    from.run(|| send_and_listen(source, to)).unwrap()
}

fn send_and_listen(source: Ipv4Addr, to: Ipv4Addr) -> Fate {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    let pause = Some(Duration::from_millis(50));
    socket.set_read_timeout(pause).unwrap();
    if let Err(error) = socket.connect((to, 9)) {
        return Fate::of(&error).unwrap_or_else(|| panic!("{to}: {error}"));
    }
    // A first packet can be lost while a tunnel agrees on its session, and so can an answer by the kernel's limit.
    for _ in 0..36 {
        let sent = socket.send(b"?").err();
        let received = || socket.recv(&mut [0; 8]).err();
        let fate = sent.as_ref().and_then(Fate::of);
        if let Some(fate) = fate.or_else(|| received().as_ref().and_then(Fate::of)) {
            return fate;
        }
    }
    Fate::Lost
}

/// Waits until a packet has this fate.
///
/// # Panics
/// Where it has not in [`LIMIT`].
pub fn becomes(from: &Namespace, to: Ipv4Addr, fate: Fate) {
    let start = Instant::now();
    loop {
        let now = probe(from, to);
        if now == fate {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{to} is {now:?}, not {fate:?}");
    }
}
