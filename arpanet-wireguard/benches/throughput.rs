//! TCP streams and one round trip through the tunnel, beside the same over the bare wire, and the memory it takes.
//!
//! `cargo bench -p arpanet-wireguard`, as root: it makes two network namespaces of its own. An argument, a number, is
//! the seconds of each stream; a second one the threads each way of each tunnel, one unless told.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

#[path = "../tests/rig/mod.rs"]
mod rig;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rig::{Host, connection_at, echo, pair_of};

/// Seconds of a stream unless told.
const SECONDS: u64 = 5;
/// Not counted: TCP finds its speed.
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND_TRIPS: usize = 2_000;
const BLOCK: usize = 128 << 10;

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(SECONDS);
    let threads = numbers.next().map_or(1, |threads| threads as usize);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let start = resident();
    let Some((a, b)) = runtime.block_on(pair_of(threads)) else {
        println!("throughput: skipped, it needs root for network namespaces of its own");
        return;
    };
    echo(&a, &b);
    let idle = resident();
    let length = Duration::from_secs(seconds);
    let before = resident();
    println!("TCP, {seconds} s each, both ends on this machine, {threads} threads each way");
    for streams in [1, 4] {
        let wire = gigabits(&a, &b, b.underlay, streams, length);
        let start = processor_time();
        let tunnel = gigabits(&a, &b, b.overlay, streams, length);
        let used = processor_time() - start;
        println!("  bare wire       {wire:6.2} Gbit/s, {streams} streams");
        println!(
            "  tunnel          {tunnel:6.2} Gbit/s, {:.3} of the wire, {:.2} CPU seconds a Gbit",
            tunnel / wire,
            used.as_secs_f64() / (tunnel * (length + WARM_UP).as_secs_f64())
        );
    }
    let after = resident();
    if without_segmentation(&a) && without_segmentation(&b) {
        let plain = gigabits(&a, &b, b.overlay, 1, length);
        println!(
            "  tunnel          {plain:6.2} Gbit/s where the wire takes single datagrams only, as network cards do"
        );
    }
    let (inside, outside) = (round_trip(&a, &b, true), round_trip(&a, &b, false));
    println!("one datagram there and back, median of {ROUND_TRIPS}");
    println!("  bare wire       {:6.1} µs", micros(outside));
    println!(
        "  tunnel          {:6.1} µs, {:.1} times the wire",
        micros(inside),
        inside.as_secs_f64() / outside.as_secs_f64()
    );
    let kib = |more: u64, less: u64| more.saturating_sub(less) / 2;
    println!("resident memory a tunnel, of this process of two");
    println!("  idle            {:6} KiB", kib(idle, start));
    println!("  more after load {:6} KiB", kib(after, before));
    println!("  whole process   {:6} KiB", resident());
    println!("{:?}", a.tunnel());
    println!("{:?}", b.tunnel());
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What this many TCP connections carry together.
fn gigabits(from: &Host, to: &Host, addr: Ipv4Addr, streams: usize, length: Duration) -> f64 {
    let connections: Vec<_> = (0..streams)
        .map(|_| connection_at(from, to, addr))
        .collect();
    std::thread::scope(|scope| {
        let one = |both| move || stream(both, length);
        let running: Vec<_> = connections
            .into_iter()
            .map(|both| scope.spawn(one(both)))
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

fn stream((mut client, mut server): (TcpStream, TcpStream), length: Duration) -> f64 {
    let stop = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![0x5A; BLOCK];
            while client.write_all(&block).is_ok() {}
        });
        let mut block = vec![0; BLOCK];
        let warm = Instant::now();
        while warm.elapsed() < WARM_UP {
            assert!(server.read(&mut block).unwrap() > 0);
        }
        let (start, mut bytes) = (Instant::now(), 0_u64);
        while start.elapsed() < length {
            bytes += server.read(&mut block).unwrap() as u64;
        }
        let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
        stop.shutdown(Shutdown::Both).unwrap();
        // What is under way is read, or the sender waits for ever.
        while matches!(server.read(&mut block), Ok(read) if read > 0) {}
        rate
    })
}

/// The median time of a datagram's way there and back.
fn round_trip(from: &Host, to: &Host, inside: bool) -> Duration {
    let (here, there) = if inside {
        (from.overlay, to.overlay)
    } else {
        (from.underlay, to.underlay)
    };
    let (client, server) = (from.bind(here, 0), to.bind(there, 0));
    client.connect(server.local_addr().unwrap()).unwrap();
    let mut times: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..ROUND_TRIPS {
                let (length, source) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..length], source).unwrap();
            }
        });
        let round = |_| {
            let start = Instant::now();
            client.send(&[0; 56]).unwrap();
            client.recv(&mut [0; 64]).unwrap();
            start.elapsed()
        };
        (0..ROUND_TRIPS).map(round).collect()
    });
    times.sort_unstable();
    times[ROUND_TRIPS / 2]
}

/// Lets the wire carry no runs of datagrams. Not where the tool is missing.
fn without_segmentation(host: &Host) -> bool {
    let ethtool = || {
        Command::new("ethtool")
            .args(["-K", "eth0", "tx-udp-segmentation", "off"])
            .status()
    };
    match host.net.namespace().run(ethtool).unwrap() {
        Ok(status) => status.success(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("without ethtool, no figure for network cards");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What this process has kept the cores busy with, the kernel's part of it included.
fn processor_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let micros: i64 = times
        .iter()
        .map(nix::sys::time::TimeValLike::num_microseconds)
        .sum();
    Duration::from_micros(micros.unsigned_abs())
}
