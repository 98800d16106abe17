//! Asking other resolvers about what is not ours.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::server::arrives;

/// Questions that are out at once.
const OUT: usize = 512;
/// The most bytes of an answer by datagram.
const ANSWER: usize = 4096;
const HEADER: usize = 12;
const TRUNCATED: u8 = 0x02;

/// How a question came and is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Datagram,
    Stream,
}

/// The resolvers outside.
#[derive(Debug)]
pub(crate) struct Upstreams {
    resolvers: Vec<SocketAddr>,
    timeout: Duration,
    out: Semaphore,
    /// The one that answered last is asked first.
    first: AtomicUsize,
}

impl Upstreams {
    pub(crate) const fn new(resolvers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self {
            resolvers,
            timeout,
            out: Semaphore::const_new(OUT),
            first: AtomicUsize::new(0),
        }
    }

    /// The resolver that is one of our own sockets.
    pub(crate) fn among(&self, own: &[SocketAddr]) -> Option<SocketAddr> {
        let is_ours = |resolver: &&SocketAddr| own.iter().any(|own| arrives(**resolver, *own));
        self.resolvers.iter().find(is_ours).copied()
    }

    /// The answer to a question, both as they stand on the wire. `None` when nobody answers, or too many ask.
    pub(crate) async fn ask(&self, question: &[u8], by: By) -> Option<Vec<u8>> {
        let _permit = self.out.try_acquire().ok()?;
        let mut failure = None;
        let first = self.first.load(Ordering::Relaxed);
        for attempt in 0..self.resolvers.len() {
            let index = (first + attempt) % self.resolvers.len();
            let resolver = self.resolvers[index];
            let asked = async {
                match by {
                    By::Datagram => by_datagram(question, resolver).await,
                    By::Stream => by_stream(question, resolver).await,
                }
            };
            match timeout(self.timeout, asked).await {
                Ok(Ok(answer)) if is_failure(&answer) => {
                    failure.get_or_insert(answer);
                }
                Ok(Ok(answer)) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver can't be asked"),
                Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
            }
        }
        failure
    }
}

/// SERVFAIL and REFUSED: another resolver may know better.
fn is_failure(answer: &[u8]) -> bool {
    matches!(answer.get(3).map(|flags| flags & 0x0f), Some(2 | 5))
}

/// The question with an id that only we know.
fn disguised(question: &[u8]) -> (Vec<u8>, [u8; 2]) {
    let id = rand::random::<[u8; 2]>();
    let mut disguised = question.to_vec();
    disguised[..2].copy_from_slice(&id);
    (disguised, id)
}

async fn by_datagram(question: &[u8], resolver: SocketAddr) -> std::io::Result<Vec<u8>> {
    let own: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A port of its own for every question, so that answers are hard to forge (RFC 5452).
    let socket = UdpSocket::bind(own).await?;
    socket.connect(resolver).await?;
    let (disguised, id) = disguised(question);
    socket.send(&disguised).await?;
    let mut answer = vec![0; ANSWER];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answers(&answer[..length], id, question) {
            answer.truncate(length);
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

async fn by_stream(question: &[u8], resolver: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let (disguised, id) = disguised(question);
    let length = u16::try_from(disguised.len()).map_err(std::io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&disguised);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if !answers(&answer, id, question) {
        return Err(std::io::Error::other("the answer is to another question"));
    }
    answer[..2].copy_from_slice(&question[..2]);
    Ok(answer)
}

/// Whether this is the answer to our question: its id, and the same question in it.
fn answers(answer: &[u8], id: [u8; 2], question: &[u8]) -> bool {
    let is_response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let asked = question_section(question);
    is_response
        && answer.starts_with(&id)
        && asked.is_some()
        && asked
            .zip(question_section(answer))
            .is_some_and(|(asked, answered)| asked.eq_ignore_ascii_case(answered))
}

/// The one question of a message: its name, type and class.
fn question_section(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        match length {
            0 => return message.get(HEADER..at + 4),
            // A pointer, which the first name of a message can't be.
            64.. => return None,
            _ => {}
        }
    }
}

/// The answer in at most `limit` bytes: whole, or the question with the truncation flag.
pub(crate) fn fit(mut answer: Vec<u8>, limit: u16) -> Vec<u8> {
    if answer.len() <= usize::from(limit) {
        return answer;
    }
    let length = HEADER + question_section(&answer).map_or(0, <[u8]>::len);
    answer.truncate(length);
    answer[2] |= TRUNCATED;
    answer[6..HEADER].fill(0);
    if length == HEADER {
        answer[4..6].fill(0);
    }
    answer
}
