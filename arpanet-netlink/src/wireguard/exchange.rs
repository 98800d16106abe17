//! Requests to a family of generic netlink, and their answers. The kernel carries a request out before it returns from the call
//! that sends it, so that nobody waits here.

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use zeroize::Zeroizing;

use super::attributes::{Writer, array, attributes};

/// `NLMSG_ERROR`, which is also how success is told, and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of a `struct nlmsghdr`.
const HEAD: usize = 16;
/// The family that knows the others: `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Against a kernel that answers nothing, which none does.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection to one family.
pub(super) struct Connection {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Connection {
    /// In the namespace of the calling thread. `ENOENT` where the kernel has no such family.
    pub(super) fn open(family: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::from(libc::timeval {
                tv_sec: LIMIT.as_secs() as _,
                tv_usec: 0,
            }),
        )?;
        let mut connection = Self {
            socket,
            family: CONTROL,
            sequence: 0,
        };
        let mut question = Writer::new();
        question.raw(&[GET_FAMILY, 1, 0, 0]);
        question.text(FAMILY_NAME, family);
        let mut found = None;
        connection.exchange(question, NLM_F_ACK, |answer| {
            let id = attributes(answer.get(4..).unwrap_or_default())
                .find(|(kind, _)| *kind == FAMILY_ID);
            found = id.and_then(|(_, id)| array(id)).map(u16::from_ne_bytes);
        })?;
        connection.family =
            found.ok_or_else(|| io::Error::other("the kernel's answer names no family"))?;
        Ok(connection)
    }

    /// Has a request carried out.
    pub(super) fn change(&mut self, request: Writer) -> io::Result<()> {
        self.exchange(request, NLM_F_ACK, |_| {})
    }

    /// Asks for what takes several messages. [`io::ErrorKind::Interrupted`] if it changed meanwhile.
    pub(super) fn dump(&mut self, request: Writer, take: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(request, NLM_F_DUMP, take)
    }

    fn exchange(
        &mut self,
        request: Writer,
        flags: u16,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Writer::new();
        let length = u32::try_from(HEAD + request.len()).map_err(io::Error::other)?;
        message.raw(&length.to_ne_bytes());
        message.raw(&self.family.to_ne_bytes());
        message.raw(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message.raw(&self.sequence.to_ne_bytes());
        message.raw(&[0; 4]);
        message.raw(request.bytes());
        self.socket.send(message.bytes(), 0)?;
        let mut reading = Reading {
            sequence: self.sequence,
            changed: false,
        };
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            // There may be a key in it.
            let bytes = Zeroizing::new(bytes);
            if let Some(outcome) = reading.read(&bytes, &mut take) {
                return outcome;
            }
        }
    }
}

/// An answer that is being read.
struct Reading {
    sequence: u32,
    /// Something was changed while the kernel told it.
    changed: bool,
}

impl Reading {
    /// Takes the messages of one datagram; the outcome once all is there.
    fn read(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&[u8])) -> Option<io::Result<()>> {
        while let Some(message) = next(&mut bytes) {
            if message.sequence != self.sequence {
                // The answer to an earlier request that nobody waited for.
                continue;
            }
            self.changed |= message.flags & NLM_F_DUMP_INTR != 0;
            let code = array(message.body)
                .map(i32::from_ne_bytes)
                .unwrap_or_default();
            match message.kind {
                ERROR | DONE if code != 0 => {
                    return Some(Err(io::Error::from_raw_os_error(code.saturating_abs())));
                }
                ERROR | DONE if self.changed => {
                    return Some(Err(io::ErrorKind::Interrupted.into()));
                }
                ERROR | DONE => return Some(Ok(())),
                _ => take(message.body),
            }
        }
        None
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// Takes the first message off the bytes.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Message<'a>> {
    let length = usize::try_from(u32::from_ne_bytes(array(bytes)?)).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes(array(bytes.get(4..)?)?),
        flags: u16::from_ne_bytes(array(bytes.get(6..)?)?),
        sequence: u32::from_ne_bytes(array(bytes.get(8..)?)?),
        body: bytes.get(HEAD..length)?,
    };
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = (HEAD + body.len()) as u32;
        let mut bytes = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &sequence.to_ne_bytes(),
            &[0; 4],
            body,
        ]
        .concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(datagrams: &[Vec<u8>]) -> (Option<io::Result<()>>, Vec<Vec<u8>>) {
        let mut reading = Reading {
            sequence: 7,
            changed: false,
        };
        let mut taken = Vec::new();
        let mut outcome = None;
        for datagram in datagrams {
            outcome = outcome.or(reading.read(datagram, &mut |body| taken.push(body.to_vec())));
        }
        (outcome, taken)
    }

    #[test]
    fn an_answer_ends_with_its_acknowledgement() {
        let whole = [
            [message(30, 2, 6, b"late"), message(30, 2, 7, b"one")].concat(),
            message(30, 2, 7, b"three"),
            message(DONE, 2, 7, &[0; 4]),
        ];
        let (outcome, taken) = read(&whole);
        assert!(matches!(outcome, Some(Ok(()))));
        assert_eq!(taken, [b"one".to_vec(), b"three".to_vec()]);
        assert!(read(&whole[..2]).0.is_none());
    }

    #[test]
    fn a_refusal_is_the_systems_error() {
        let code = (-libc::EADDRINUSE).to_ne_bytes();
        let (outcome, _) = read(&[message(ERROR, 0, 7, &code)]);
        let error = outcome.unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn what_changed_meanwhile_is_not_believed() {
        let whole = [
            message(30, 2 | NLM_F_DUMP_INTR, 7, b"one"),
            message(DONE, 2, 7, &[0; 4]),
        ];
        let error = read(&whole).0.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_broken_datagram_ends_nothing() {
        for bytes in [&b""[..], &[1; 3], &[0; 16], &[0xFF; 40]] {
            assert!(read(&[bytes.to_vec()]).0.is_none());
        }
    }
}
