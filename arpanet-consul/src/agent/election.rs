//! Having the one server of a new cluster lead it at once.
//!
//! A server of raft waits for a leader before it stands for election: one to two seconds at the least, and for nothing where
//! it is the first. A leader that hands over has another server stand at once, by the message `TimeoutNow` (Ongaro's
//! dissertation, 3.10); consul takes it on its port for servers, as `hashicorp/raft` writes it (`net_transport.go`). One that
//! does not understand it waits as ever.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Connect;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The byte by which consul tells connections of raft from others, that of the message, and the message itself as msgpack:
/// a map of one pair, a text of 15 bytes and the version of raft's protocol.
const TIMEOUT_NOW: &[u8] = b"\x01\x03\x81\xafProtocolVersion\x03";

/// No error, as msgpack: an empty text.
const NO_ERROR: u8 = 0xa0;

/// Asks a server, the only one that there is, to stand for election.
pub(super) fn stand(connect: &Connect, at: SocketAddr) -> io::Result<()> {
    let stream = connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    ask(stream)
}

fn ask(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(TIMEOUT_NOW)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match answer {
        [NO_ERROR] => Ok(()),
        _ => Err(io::Error::other("the server does not stand for election")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_server_is_asked_and_its_refusal_heard() {
        let connect: Connect = Arc::new(TcpStream::connect::<SocketAddr>);
        for (answer, agrees) in [
            (&b"\xa0\x80"[..], true),
            (b"\xa4oops\x80", false),
            (b"", false),
        ] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = server.local_addr().unwrap();
            let served = std::thread::spawn(move || {
                let (mut stream, _) = server.accept().unwrap();
                let mut asked = vec![0; TIMEOUT_NOW.len()];
                stream.read_exact(&mut asked).unwrap();
                stream.write_all(answer).unwrap();
                asked
            });
            assert_eq!(stand(&connect, at).is_ok(), agrees, "{answer:?}");
            assert_eq!(served.join().unwrap(), TIMEOUT_NOW);
        }
    }
}
