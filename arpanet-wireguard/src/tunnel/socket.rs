//! The UDP socket, with the kernel's segmentation both ways.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use arpanet_netlink::Namespace;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, SockRef, Type};

/// Socket buffers, in bytes: what a fast sender fills while this process does not run.
const BUFFER: usize = 4 << 20;
/// What one UDP datagram or one run of segments can carry.
const MAX_DATAGRAM: usize = 65_535;
/// Payload of one run of segments: a datagram less IPv6 and UDP headers.
const MAX_RUN: usize = MAX_DATAGRAM - 48;
/// The kernel's limit (UDP_MAX_SEGMENTS of Linux before 6.9).
const MAX_SEGMENTS: usize = 64;
/// Messages a call of recvmmsg.
const MESSAGES: usize = 8;

#[derive(Debug)]
pub(super) struct Socket {
    udp: UdpSocket,
}

/// How many runs still go as single datagrams, since the network below has refused one: a card without checksums, or
/// a path whose MTU is smaller than the link's.
#[derive(Debug, Default)]
pub(super) struct Singly(AtomicU32);

/// Runs until the network below is tried again.
const RUNS_SINGLY: u32 = 10_000;

impl Singly {
    fn next(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, get, one_less).is_ok()
    }
}

pub(super) fn enlarge_buffers(udp: &UdpSocket) {
    // The first of each pair needs CAP_NET_ADMIN and passes the host's limit; smaller buffers only cost speed.
    if setsockopt(udp, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(udp, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(udp, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(udp, sockopt::SndBuf, &BUFFER);
    }
}

/// The socket and more on its port, together as many as wanted. The kernel gives what one sender sends to one of them,
/// so that nothing is overtaken by what was sent later. Who binds the port without asking to share it is still refused.
pub(super) fn share(
    first: UdpSocket,
    namespace: &Namespace,
    count: usize,
) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = vec![first];
    if count > 1 {
        setsockopt(&sockets[0], sockopt::ReusePort, &true)?;
    }
    while sockets.len() < count {
        let like = SockRef::from(&sockets[0]);
        let (domain, addr, mark) = (like.domain()?, like.local_addr()?, like.mark()?);
        let next = namespace.run(|| socket2::Socket::new(domain, Type::DGRAM, None));
        let next = next.map_err(io::Error::other)??;
        if domain == Domain::IPV6 {
            next.set_only_v6(like.only_v6()?)?;
        }
        next.set_mark(mark)?;
        next.set_reuse_port(true)?;
        next.bind(&addr)?;
        sockets.push(next.into());
    }
    Ok(sockets)
}

impl Socket {
    pub(super) fn new(udp: UdpSocket) -> Self {
        enlarge_buffers(&udp);
        // Without it, datagrams come one by one.
        let _ = setsockopt(&udp, sockopt::UdpGroSegment, &true);
        Self { udp }
    }

    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr, flags: MsgFlags) -> io::Result<()> {
        self.send_run(&[IoSlice::new(datagram)], None, &to.into(), flags)
            .map_err(Into::into)
    }

    /// Sends datagrams, those of one size with one call. Returns how many were refused.
    pub(super) fn send_all(
        &self,
        datagrams: &[IoSlice<'_>],
        to: SocketAddr,
        singly: &Singly,
    ) -> u64 {
        let to = SockaddrStorage::from(to);
        let (mut refused, mut rest) = (0, datagrams);
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_length(rest));
            refused += self.send_sized(run, &to, singly);
            rest = after;
        }
        refused
    }

    fn send_sized(&self, run: &[IoSlice<'_>], to: &SockaddrStorage, singly: &Singly) -> u64 {
        if run.len() > 1 && !singly.next() {
            let segment = u16::try_from(run[0].len()).ok();
            match self.send_run(run, segment.as_ref(), to, MsgFlags::empty()) {
                Ok(()) => return 0,
                Err(error @ (Errno::EIO | Errno::EMSGSIZE | Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                    tracing::info!(%error, "the underlay refused a run of datagrams; sending one by one for a while");
                    singly.0.store(RUNS_SINGLY, Ordering::Relaxed);
                }
                Err(_) => return run.len() as u64,
            }
        }
        run.chunks(1)
            .map(|one| u64::from(self.send_run(one, None, to, MsgFlags::empty()).is_err()))
            .sum()
    }

    /// One datagram in parts, or many where each part is as long as told, but the last.
    fn send_run(
        &self,
        parts: &[IoSlice<'_>],
        segment: Option<&u16>,
        to: &SockaddrStorage,
        flags: MsgFlags,
    ) -> nix::Result<()> {
        let control = segment.map(ControlMessage::UdpGsoSegments);
        let fd = self.udp.as_raw_fd();
        loop {
            match sendmsg(fd, parts, control.as_slice(), flags, Some(to)) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

/// How many of the first datagrams can go as one run: equal in size, of which the last may be shorter.
fn run_length<T: Deref<Target = [u8]>>(datagrams: &[T]) -> usize {
    let (mut total, mut count) = (0, 0);
    let first = datagrams.first().map_or(0, |first| first.len());
    for datagram in datagrams.iter().take(MAX_SEGMENTS) {
        let size = datagram.len();
        if size > first || (count > 0 && total + size > MAX_RUN) {
            break;
        }
        total += size;
        count += 1;
        if size < first {
            break;
        }
    }
    count
}

/// Buffers for one call of recvmmsg, and what it filled in.
pub(super) struct Received {
    buffers: Vec<u8>,
    messages: Vec<Message>,
}

struct Message {
    length: usize,
    segment: usize,
    from: SocketAddr,
}

impl Received {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![0; MESSAGES * MAX_DATAGRAM],
            messages: Vec::with_capacity(MESSAGES),
        }
    }

    /// Takes what has come, without waiting: `WouldBlock` if nothing has.
    pub(super) fn fill(&mut self, socket: &Socket) -> io::Result<()> {
        self.messages.clear();
        // A call needs its own headers: the kernel overwrites the sizes that nix would have to restore.
        let mut headers =
            MultiHeaders::<SockaddrStorage>::preallocate(MESSAGES, Some(cmsg_space!(i32)));
        let mut slices: [_; MESSAGES] = {
            let mut chunks = self.buffers.chunks_exact_mut(MAX_DATAGRAM);
            std::array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap_or_default())])
        };
        let received = recvmmsg(
            socket.udp.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        for message in received {
            let segment = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                })
            });
            let from = message.address.as_ref().and_then(address);
            // Kept in its place even if nobody can be answered, since the place is where its bytes are.
            self.messages.push(Message {
                length: if from.is_some() { message.bytes } else { 0 },
                segment: segment
                    .filter(|size| *size > 0)
                    .unwrap_or(message.bytes.max(1)),
                from: from.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            });
        }
        Ok(())
    }

    /// What came: the bytes, the size of each datagram in them, and the sender.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = (&mut [u8], usize, SocketAddr)> {
        self.buffers
            .chunks_exact_mut(MAX_DATAGRAM)
            .zip(&self.messages)
            .map(|(bytes, message)| (&mut bytes[..message.length], message.segment, message.from))
    }
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddrV6::from(*v6).into())
    })
}

#[cfg(test)]
mod tests {
    use super::run_length;

    #[test]
    fn runs_are_equal_with_a_shorter_end() {
        let length = |sizes: &[usize]| {
            let datagrams: Vec<_> = sizes.iter().map(|size| vec![0; *size]).collect();
            run_length(&datagrams)
        };
        assert_eq!(length(&[9, 9, 9, 5, 5]), 4);
        assert_eq!(length(&[5, 9]), 1);
        assert_eq!(length(&[9]), 1);
        assert_eq!(length(&[]), 0);
        assert_eq!(length(&[100; 200]), 64);
        assert_eq!(length(&[1_452; 60]), 45);
    }
}
