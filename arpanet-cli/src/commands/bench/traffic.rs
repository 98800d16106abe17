//! What a path carries.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::peer::{Outcome, Path, Why};
use super::usage;

/// The most in a segment: what WireGuard's MTU of 1420 leaves. For all alike, whatever their own MTU is.
const SEGMENT: u32 = 1380;
const BLOCK: usize = 128 << 10;
/// Not counted: TCP finds its speed.
const WARM_UP: Duration = Duration::from_millis(300);
/// More than this without a byte is no traffic.
const PATIENCE: Duration = Duration::from_secs(5);
/// A small packet's payload.
const SMALL: usize = 64;
/// A round trip's.
const PING: usize = 56;

/// What streams carried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Carried {
    /// Gbit/s of all together.
    pub(super) rate: f64,
    /// Seconds a Gbit that the machine's cores were busy with meanwhile.
    pub(super) processor: f64,
}

/// So many TCP streams at once, for so long.
pub(super) fn streams(path: &Path, count: usize, length: Duration) -> Outcome<Carried> {
    let ends = (0..count)
        .map(|_| connection(path))
        .collect::<Outcome<Vec<_>>>()?;
    let stops = ends
        .iter()
        .flat_map(|(client, server)| [client.try_clone(), server.try_clone()])
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for (client, server) in ends {
            threads.spawn(move || send(client));
            threads.spawn(|| receive(server, &bytes));
        }
        std::thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
        let busy = usage::busy();
        std::thread::sleep(length);
        let carried = bytes.load(Ordering::Relaxed) - before;
        let (took, after) = (began.elapsed(), usage::busy());
        for stop in stops {
            // One whose other end has gone is closed already.
            let _ = stop.shutdown(Shutdown::Both);
        }
        let gigabits = carried as f64 * 8.0 / 1e9;
        if carried == 0 {
            return Err(Why::failed("nothing arrived"));
        }
        Ok(Carried {
            rate: gigabits / took.as_secs_f64(),
            processor: (after? - busy?) / gigabits,
        })
    })
}

/// Both ends of a new connection.
fn connection(path: &Path) -> Outcome<(TcpStream, TcpStream)> {
    let socket = || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_mss(SEGMENT)?;
        Ok(socket)
    };
    let ip = path.ip;
    let listener: TcpListener = path.to.run(|| -> std::io::Result<_> {
        let socket = socket()?;
        socket.bind(&SocketAddr::from((ip, 0)).into())?;
        socket.listen(1)?;
        Ok(socket.into())
    })??;
    let at = listener.local_addr()?;
    let client: TcpStream = path.from.run(|| -> std::io::Result<_> {
        let socket = socket()?;
        socket.connect_timeout(&at.into(), PATIENCE)?;
        Ok(socket.into())
    })??;
    let (server, _) = listener.accept()?;
    client.set_write_timeout(Some(PATIENCE))?;
    server.set_read_timeout(Some(PATIENCE))?;
    Ok((client, server))
}

fn send(mut client: TcpStream) {
    let block = vec![0x5A; BLOCK];
    while client.write_all(&block).is_ok() {}
}

fn receive(mut server: TcpStream, bytes: &AtomicU64) {
    let mut block = vec![0; BLOCK];
    while let Ok(read @ 1..) = server.read(&mut block) {
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// Two UDP sockets that know each other.
fn datagrams(path: &Path) -> Outcome<(UdpSocket, UdpSocket)> {
    let ip = path.ip;
    let server = path.to.run(|| UdpSocket::bind((ip, 0)))??;
    let at = server.local_addr()?;
    let client = path.from.run(|| -> std::io::Result<_> {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        client.connect(at)?;
        Ok(client)
    })??;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

/// The median time of a datagram's way there and back, in microseconds, of so many.
pub(super) fn round_trip(path: &Path, count: usize) -> Outcome<f64> {
    let (client, server) = datagrams(path)?;
    let mut times = std::thread::scope(|threads| -> std::io::Result<Vec<f64>> {
        threads.spawn(move || {
            let mut buffer = [0; PING];
            // Ends when nothing comes any more, or an empty datagram.
            while let Ok((length @ 1.., source)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(buffer.get(..length).unwrap_or_default(), source);
            }
        });
        let round = |_| {
            let began = Instant::now();
            client.send(&[0; PING])?;
            client.recv(&mut [0; PING])?;
            Ok(began.elapsed().as_secs_f64() * 1e6)
        };
        let times = (0..count).map(round).collect();
        let _ = client.send(&[]);
        times
    })?;
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied();
    median.ok_or_else(|| Why::failed("no round trip"))
}

/// Small datagrams a second that arrive, of one that sends as many as it can.
pub(super) fn packets(path: &Path, length: Duration) -> Outcome<f64> {
    let (client, server) = datagrams(path)?;
    let (over, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // A full queue is a part of it.
                let _ = client.send(&[0; SMALL]);
            }
            let _ = client.send(&[]);
        });
        threads.spawn(|| {
            let mut buffer = [0; SMALL];
            while let Ok(1..) = server.recv(&mut buffer) {
                arrived.fetch_add(1, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        std::thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        std::thread::sleep(length);
        let count = arrived.load(Ordering::Relaxed) - before;
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        match count {
            0 => Err(Why::failed("nothing arrived")),
            count => Ok(count as f64 / took.as_secs_f64()),
        }
    })
}
