//! What somebody on the wire can do who hears all and sends what he likes: say again what was said, and ask for more
//! handshakes than anybody can make.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod rig;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arpanet_wireguard::tunnel::{PublicKey, Tunnel};
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rig::{Host, LIMIT, PORT, echo, pair, wait_until};
use socket2::{Domain, Protocol, Socket, Type};

/// All protocols (linux/if_ether.h), as the network has it.
const ALL: u16 = 3_u16.to_be();
const UDP: u8 = 17;
const IP: usize = 20;
const HEADERS: usize = IP + 8;

/// A datagram as it was on the wire.
#[derive(Debug, Clone)]
struct Heard {
    /// From the header of IP on.
    packet: Vec<u8>,
}

impl Heard {
    fn of(packet: &[u8]) -> Option<Self> {
        let is_whole = packet.len() >= HEADERS + 12 && packet[0] == 0x45 && packet[9] == UDP;
        is_whole.then(|| Self {
            packet: packet.to_vec(),
        })
    }

    fn end(&self, address: usize, port: usize) -> SocketAddrV4 {
        let [a, b, c, d] = self.packet[address..address + 4].try_into().unwrap();
        let port = u16::from_be_bytes([self.packet[port], self.packet[port + 1]]);
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port)
    }

    fn from(&self) -> SocketAddrV4 {
        self.end(12, IP)
    }

    fn to(&self) -> SocketAddrV4 {
        self.end(16, IP + 2)
    }

    fn message(&self) -> &[u8] {
        &self.packet[HEADERS..]
    }

    /// Of WireGuard: 1 to 4.
    fn kind(&self) -> u8 {
        self.message()[0]
    }
}

/// Hears all datagrams of WireGuard that are on a host's wire from now on.
struct Tap(Socket);

impl Tap {
    fn on(host: &Host) -> Self {
        let open = || {
            Socket::new(
                Domain::PACKET,
                Type::DGRAM,
                Some(Protocol::from(i32::from(ALL))),
            )
        };
        let socket = host.net.namespace().run(open).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// What has come since the last call.
    fn heard(&self) -> Vec<Heard> {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(length) => all.extend(Heard::of(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Says again what was heard, to the bit, as if its sender did.
struct Parrot(Socket);

impl Parrot {
    fn at(host: &Host) -> Self {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        Self(host.net.namespace().run(open).unwrap().unwrap())
    }

    fn say(&self, heard: &Heard) {
        let mut packet = heard.packet.clone();
        // The sender's card had yet to finish the checksum; without one it is as good.
        packet[IP + 6..HEADERS].fill(0);
        let to = SocketAddr::from(heard.to()).into();
        assert_eq!(self.0.send_to(&packet, &to).unwrap(), packet.len());
    }
}

/// How many datagrams the tunnel of a host has refused.
fn refused(host: &Host) -> u64 {
    let told = format!("{:?}", host.tunnel());
    let (_, after) = told.split_once("refused: ").unwrap();
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

/// What the tunnel of a host has handed over to it, in bytes and packets.
fn handed_over(host: &Host) -> (u64, u64) {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let all = host.net.namespace().run(read).unwrap().unwrap();
    let line = all
        .lines()
        .find_map(|line| line.trim().strip_prefix("wg0:"));
    let mut numbers = line.unwrap().split_whitespace().map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// `a` again, with the key that it had: both sides agree anew.
fn again(a: &mut Host, b: &Host) {
    a.drop_tunnel();
    a.start(PORT);
    a.knows(b, Some(b.endpoint()), &[b.overlay]);
}

#[tokio::test]
async fn what_was_heard_on_the_wire_and_is_said_again_is_refused() {
    let Some((mut a, b)) = pair().await else {
        return;
    };
    let tap = Tap::on(&a);
    again(&mut a, &b);
    for _ in 0..3 {
        echo(&a, &b);
    }
    let heard = tap.heard();
    let (ours, theirs): (Vec<_>, Vec<_>) = heard
        .iter()
        .filter(|heard| heard.to().port() == PORT && (1..=4).contains(&heard.kind()))
        .partition(|heard| *heard.to().ip() == b.underlay);
    for (kind, least) in [(1, 1), (4, 3)] {
        let count = ours.iter().filter(|heard| heard.kind() == kind).count();
        assert!(count >= least, "{count} of kind {kind}");
    }
    assert!(theirs.iter().any(|heard| heard.kind() == 2), "no response");

    let before = (b.sees(&a).unwrap(), a.sees(&b).unwrap());
    let handed = (handed_over(&a), handed_over(&b));
    let count = (refused(&a), refused(&b));
    let parrots = (Parrot::at(&b), Parrot::at(&a));
    let stranger = a.bind(a.underlay, 0);
    for heard in &theirs {
        parrots.0.say(heard);
    }
    for heard in &ours {
        parrots.1.say(heard);
        stranger.send_to(heard.message(), heard.to()).unwrap();
    }
    let all = (
        count.0 + theirs.len() as u64,
        count.1 + 2 * ours.len() as u64,
    );
    wait_until("all of it is refused", || (refused(&a), refused(&b)) == all);
    assert_eq!((handed_over(&a), handed_over(&b)), handed);
    let responses = |all: &[&Heard]| all.iter().filter(|heard| heard.kind() == 2).count();
    let heard_now = || responses(&tap.heard().iter().collect::<Vec<_>>());
    let repeated = responses(&theirs) + 2 * responses(&ours);
    assert_eq!(heard_now(), repeated, "a recording is answered");
    for (now, before) in [(b.sees(&a), before.0), (a.sees(&b), before.1)] {
        let now = now.unwrap();
        assert_eq!(now.endpoint, before.endpoint);
        assert_eq!(now.rx_bytes, before.rx_bytes);
        assert!(now.last_handshake >= before.last_handshake, "a new session");
    }
    // They go on with each other, by the session that they had.
    echo(&a, &b);
    echo(&b, &a);
    assert_eq!(heard_now(), 0, "a new session");
}

/// An initiation of nobody, to somebody whose key is known: worth reading, by its first MAC, until it is read.
fn call(to: &PublicKey, number: u32) -> [u8; 148] {
    let mut message = [0; 148];
    message[0] = 1;
    for (place, word) in message[4..116].chunks_exact_mut(4).zip(0_u32..) {
        let noise = (number ^ word.rotate_left(17)).wrapping_mul(2_654_435_761);
        place.copy_from_slice(&noise.to_le_bytes());
    }
    let key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(to.as_bytes())
        .finalize();
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap();
    Mac::update(&mut mac, &message[..116]);
    message[116..132].copy_from_slice(&mac.finalize().into_bytes());
    message
}

/// Far more than are answered without a question, from each of the sources in turn, until it is told to end. What the
/// sources got, by kind.
fn flood(sources: &[UdpSocket], to: &Host, ended: &AtomicBool) -> [usize; 5] {
    const AT_ONCE: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);
    let (key, mut number, mut got) = (to.public_key(), 0, [0; 5]);
    let began = Instant::now();
    while !ended.load(Ordering::SeqCst) && began.elapsed() < 6 * LIMIT {
        for _ in 0..AT_ONCE {
            let source = &sources[number as usize % sources.len()];
            // The buffer may be full; that is load, not failure.
            let _ = source.send_to(&call(&key, number), to.endpoint());
            number += 1;
        }
        for source in sources {
            let mut buffer = [0; 200];
            while let Ok(length) = source.recv(&mut buffer) {
                let is_cookie = buffer[..4] == [3, 0, 0, 0] && length == 64;
                got[if is_cookie {
                    3
                } else {
                    usize::from(buffer[0].min(4))
                }] += 1;
            }
        }
        // The flood's own pace, and no waiting for something to happen.
        std::thread::park_timeout(PAUSE);
    }
    got
}

#[tokio::test]
async fn under_a_flood_of_calls_who_shows_where_it_is_gets_through() {
    const SOURCES: u8 = 50;
    let Some((mut a, b)) = pair().await else {
        return;
    };
    echo(&a, &b);
    let mut sources = Vec::new();
    for last in 100..100 + SOURCES {
        let at = Ipv4Addr::new(192, 168, 9, last);
        a.net.add_address("eth0", at.into()).await.unwrap();
        let source = a.bind(at, 0);
        source.set_nonblocking(true).unwrap();
        sources.push(source);
    }
    let tap = Tap::on(&a);
    let ended = AtomicBool::new(false);
    let got = std::thread::scope(|threads| {
        let flooding = threads.spawn(|| flood(&sources, &b, &ended));
        // Whether it does is looked at from here, so that the flood ends either way.
        let asked = get_through(&mut a, &b, &tap);
        ended.store(true, Ordering::SeqCst);
        assert!(asked, "nobody was asked where it is and got through");
        flooding.join().unwrap()
    });
    // Whoever did not show it got questions, and whoever is nobody no answer.
    let [_, calls, responses, questions, others] = got;
    assert!(questions > 500, "{got:?}");
    assert_eq!((calls, responses, others), (0, 0, 0), "{got:?}");
    assert_eq!(b.tunnel().peers().len(), 1);
    assert_eq!(b.sees(&a).unwrap().endpoint, Some(a.endpoint()));
    echo(&a, &b);
    echo(&b, &a);
}

/// Has `a` call `b` until it was asked where it is, said so, and was answered. In the first moments of a second, before
/// too much came, it may be answered without: then it calls anew.
fn get_through(a: &mut Host, b: &Host, tap: &Tap) -> bool {
    let began = Instant::now();
    while began.elapsed() < 4 * LIMIT {
        tap.heard();
        again(a, b);
        let (mut asked, mut shown) = (false, BTreeSet::new());
        while began.elapsed() < 4 * LIMIT {
            a.tunnel().nudge(&b.public_key()).unwrap();
            std::thread::park_timeout(Duration::from_millis(5));
            let mut answered = None;
            for heard in tap.heard() {
                let message = heard.message();
                let index: [u8; 4] = message[4..8].try_into().unwrap();
                match heard.kind() {
                    1 if heard.from() == SocketAddrV4::new(a.underlay, PORT)
                        && message[132..] != [0; 16] =>
                    {
                        shown.insert(index);
                    }
                    3 if *heard.to().ip() == a.underlay => asked = true,
                    2 if *heard.to().ip() == a.underlay => {
                        answered = Some(<[u8; 4]>::try_from(&message[8..12]).unwrap());
                    }
                    _ => {}
                }
            }
            if let Some(index) = answered {
                if asked && shown.contains(&index) {
                    return true;
                }
                break;
            }
        }
    }
    false
}
