//! Whether packets are lost while something is done.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arpanet_netlink::Namespace;

/// Where they are sent back: the port for that (RFC 862).
const PORT: u16 = 7;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two datagrams.
const BEAT: Duration = Duration::from_millis(5);
/// What the last one says. It is sent until it has come back.
const LAST: [u8; 1] = [0];

/// Datagrams from one namespace to another and back, 200 a second at most.
#[derive(Debug)]
pub struct Beats {
    ends: Arc<AtomicBool>,
    sending: JoinHandle<u32>,
    counting: JoinHandle<u32>,
    echoing: JoinHandle<()>,
}

impl Beats {
    /// Begins to send, to that address.
    ///
    /// # Panics
    /// Where there is no such address.
    #[must_use]
    pub fn begin(from: &Namespace, to: &Namespace, ip: Ipv4Addr) -> Self {
        let bind = |namespace: &Namespace, at: SocketAddr| {
            let socket = namespace.run(|| UdpSocket::bind(at)).unwrap().unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        };
        let at = SocketAddr::from((ip, PORT));
        let (there, here) = (bind(to, at), bind(from, (Ipv4Addr::UNSPECIFIED, 0).into()));
        here.connect(at).unwrap();
        let receiver = here.try_clone().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (has_ended, all_came) = (Arc::clone(&ends), Arc::new(AtomicBool::new(false)));
        let has_come = Arc::clone(&all_came);
        Self {
            ends,
            echoing: thread::spawn(move || echo(&there)),
            counting: thread::spawn(move || {
                let mut count = 0;
                let mut room = [0; 8];
                // One that was refused is told here.
                while let Ok(length) =
                    receiver
                        .recv(&mut room)
                        .or_else(|error| match error.kind() {
                            std::io::ErrorKind::WouldBlock => Err(error),
                            _ => Ok(0),
                        })
                {
                    match length {
                        0 => {}
                        1 => break,
                        _ => count += 1,
                    }
                }
                all_came.store(true, Ordering::Relaxed);
                count
            }),
            sending: thread::spawn(move || {
                let mut sent = 0_u32;
                while !has_ended.load(Ordering::Relaxed) {
                    // One that is refused is lost, too.
                    let _ = here.send(&sent.to_be_bytes());
                    sent += 1;
                    thread::sleep(BEAT);
                }
                while !has_come.load(Ordering::Relaxed) {
                    let _ = here.send(&LAST);
                    thread::sleep(BEAT);
                }
                sent
            }),
        }
    }

    /// How many were sent, and how many came back.
    ///
    /// # Panics
    /// Where a thread did.
    #[must_use]
    pub fn end(self) -> (u32, u32) {
        self.ends.store(true, Ordering::Relaxed);
        let counted = (self.sending.join().unwrap(), self.counting.join().unwrap());
        self.echoing.join().unwrap();
        counted
    }
}

/// Sends everything back, until the last has come.
fn echo(socket: &UdpSocket) {
    let mut room = [0; 8];
    while let Ok((length, from)) = socket.recv_from(&mut room) {
        let _ = socket.send_to(&room[..length], from);
        if length == LAST.len() {
            return;
        }
    }
}
