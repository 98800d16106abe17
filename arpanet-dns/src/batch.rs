//! Datagrams by the batch: a system call for many.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams of a batch.
const DATAGRAMS: usize = 32;
/// More of a question than anybody sends.
const LONGEST: usize = 4096;

/// Questions that came together, and what is said to them.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    came: Vec<(usize, SocketAddr)>,
    /// As many as there are addresses in `to` are to be sent; those behind are kept for their memory.
    answers: Vec<Vec<u8>>,
    to: Vec<SocketAddr>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; DATAGRAMS * LONGEST],
            came: Vec::with_capacity(DATAGRAMS),
            answers: vec![Vec::new(); DATAGRAMS],
            to: Vec::with_capacity(DATAGRAMS),
        }
    }

    /// Takes what has come, without waiting: `WouldBlock` if nothing has.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let Self { bytes, came, .. } = self;
        came.clear();
        socket.try_io(Interest::READABLE, || {
            // Made for each call, since they are not for another thread, and a task may go to one.
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS, None);
            let mut places = bytes.chunks_exact_mut(LONGEST);
            let mut slices: [_; DATAGRAMS] =
                std::array::from_fn(|_| [IoSliceMut::new(places.next().unwrap_or_default())]);
            let fd = socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let all = recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None)?;
            came.extend(all.map(|one| match one.address.as_ref().and_then(sender) {
                Some(from) => (one.bytes, from),
                // Kept in its place, since the place is where the bytes of the next are; nothing is answered to it.
                None => (0, SocketAddr::from(([0, 0, 0, 0], 0))),
            }));
            Ok(())
        })
    }

    /// How many came.
    pub(crate) fn len(&self) -> usize {
        self.came.len()
    }

    /// What came, and from whom.
    pub(crate) fn question(&self, number: usize) -> (&[u8], SocketAddr) {
        let (length, from) = self.came[number];
        (&self.bytes[number * LONGEST..][..length], from)
    }

    /// Takes an answer to be sent, and gives memory for another in its place. At most one for each that came.
    pub(crate) fn answer(&mut self, answer: &mut Vec<u8>, to: SocketAddr) {
        std::mem::swap(&mut self.answers[self.to.len()], answer);
        self.to.push(to);
    }

    /// Sends the answers. Those that the socket has no room for are lost, as on every network: whoever asked asks again.
    pub(crate) fn send(&mut self, socket: &UdpSocket) {
        let to: Vec<_> = self
            .to
            .drain(..)
            .map(|to| Some(SockaddrStorage::from(to)))
            .collect();
        let answers: Vec<_> = self.answers[..to.len()]
            .iter()
            .map(|answer| [IoSlice::new(answer)])
            .collect();
        let mut first = 0;
        while first < to.len() {
            let sent = socket.try_io(Interest::WRITABLE, || {
                let mut headers = MultiHeaders::preallocate(to.len() - first, None);
                let fd = socket.as_raw_fd();
                let (answers, to) = (&answers[first..], &to[first..]);
                let flags = MsgFlags::MSG_DONTWAIT;
                let sent = sendmmsg(fd, &mut headers, answers, to, [], flags)?;
                Ok(sent.count())
            });
            match sent {
                Ok(count) => first += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tracing::trace!(lost = to.len() - first, "answering");
                    return;
                }
                // Of the first alone: it can't be sent to.
                Err(error) => {
                    tracing::trace!(%error, "answering");
                    first += 1;
                }
            }
        }
    }
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| {
        let v6 = address.as_sockaddr_in6();
        v6.map(|v6| SocketAddrV6::from(*v6).into())
    })
}
