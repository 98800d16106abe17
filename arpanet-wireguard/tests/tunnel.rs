//! Two tunnels over a wire, in namespaces of the test's own.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod rig;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arpanet_core::{Datagrams, ErrorKind};
use arpanet_wireguard::tunnel::{PrivateKey, SideChannel, Tunnel, UserTunnel, UserTunnelConfig};
use rig::{Host, LIMIT, PORT, connection, echo, namespace, pair, pair_of, wait_until};
use tokio::time::timeout;

#[tokio::test]
async fn datagrams_go_both_ways() {
    let Some((a, b)) = pair().await else { return };
    echo(&a, &b);
    echo(&b, &a);
    let status = a.sees(&b).unwrap();
    assert!(status.last_handshake.unwrap() < LIMIT);
    assert_eq!(status.endpoint, Some(b.endpoint()));
    assert!(status.rx_bytes > 0 && status.tx_bytes > 0);
}

fn a_megabyte_both_ways((mut client, mut server): (TcpStream, TcpStream)) {
    let data: Vec<u8> = (0..1_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for _ in 0..2 {
        let mut received = vec![0; data.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&data).unwrap());
            server.read_exact(&mut received).unwrap();
        });
        assert!(received == data);
        std::mem::swap(&mut client, &mut server);
    }
}

#[tokio::test]
async fn a_megabyte_goes_both_ways_unharmed() {
    let Some((a, b)) = pair().await else { return };
    a_megabyte_both_ways(connection(&a, &b));
}

#[tokio::test]
async fn connections_over_several_threads_are_unharmed() {
    let Some((a, b)) = pair_of(3).await else {
        return;
    };
    echo(&a, &b);
    let connections: Vec<_> = (0..12).map(|_| connection(&a, &b)).collect();
    std::thread::scope(|scope| {
        for both in connections {
            scope.spawn(|| a_megabyte_both_ways(both));
        }
    });
    // The other protocol on the port may arrive at any of its sockets.
    let (left, right) = (a.tunnel().side_channel(), b.tunnel().side_channel());
    for number in 0..20 {
        left.send(&[0xA2, number], b.endpoint()).await.unwrap();
        assert_eq!(received(&right).await, [0xA2, number]);
    }
}

#[tokio::test]
async fn a_device_of_several_threads_has_one_owner_and_outlives_it_too() {
    let Some((mut a, mut b)) = pair_of(2).await else {
        return;
    };
    let (client, server) = connection(&a, &b);
    let second = || {
        let socket = a.net.namespace().run(|| UdpSocket::bind("0.0.0.0:0"));
        let config = UserTunnelConfig::new(
            PrivateKey::generate().unwrap(),
            socket.unwrap().unwrap(),
            a.net.namespace().clone(),
        );
        UserTunnel::launch(config.threads(a.net.namespace().clone(), 2))
    };
    assert_eq!(second().unwrap_err().kind(), ErrorKind::Conflict);
    // And its port is nobody else's.
    let port = a.net.namespace().run(|| UdpSocket::bind(("0.0.0.0", PORT)));
    assert!(port.unwrap().is_err());
    a_megabyte_both_ways((client.try_clone().unwrap(), server.try_clone().unwrap()));
    // One thread can have what was made for two, and the other way.
    for (host, threads) in [(&mut a, 1), (&mut b, 1)] {
        host.drop_tunnel();
        host.threads = threads;
        host.start(PORT);
    }
    a.knows(&b, Some(b.endpoint()), &[b.overlay]);
    b.knows(&a, Some(a.endpoint()), &[a.overlay]);
    a_megabyte_both_ways((client, server));
}

#[tokio::test]
async fn a_device_that_was_made_for_one_thread_goes_on_with_one() {
    let Some((mut a, b)) = pair().await else {
        return;
    };
    let both = connection(&a, &b);
    a.drop_tunnel();
    a.threads = 4;
    a.start(PORT);
    a.knows(&b, Some(b.endpoint()), &[b.overlay]);
    a_megabyte_both_ways(both);
}

#[tokio::test]
async fn datagrams_in_a_burst_arrive_one_by_one() {
    let Some((a, b)) = pair().await else { return };
    echo(&a, &b);
    let (client, server) = (a.bind(a.overlay, 0), b.bind(b.overlay, 0));
    client.connect(server.local_addr().unwrap()).unwrap();
    // Mostly of one size, as those are that travel joined.
    let sizes = (0..100_u8).map(|number| (number, if number % 30 == 29 { 77 } else { 500 }));
    for (number, size) in sizes.clone() {
        client.send(&vec![number; size]).unwrap();
    }
    let mut buffer = [0; 2_000];
    for (number, size) in sizes {
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], vec![number; size]);
    }
}

#[tokio::test]
async fn an_underlay_that_takes_less_than_it_said_only_costs_speed() {
    let Some((a, b)) = pair().await else { return };
    let (client, server) = connection(&a, &b);
    for host in [&a, &b] {
        host.net.set_mtu("eth0", 1_300).await.unwrap();
    }
    a_megabyte_both_ways((client, server));
}

#[tokio::test]
async fn a_peer_without_an_endpoint_is_answered_once_it_calls() {
    let Some((a, mut b)) = pair().await else {
        return;
    };
    b.drop_tunnel();
    b.start(PORT);
    b.knows(&a, None, &[a.overlay]);
    assert_eq!(b.sees(&a).unwrap().endpoint, None);
    // Ignored while the handshake with the tunnel before is still young.
    wait_until("it has called", || {
        a.tunnel().nudge(&b.public_key()).unwrap();
        b.sees(&a).unwrap().endpoint.is_some()
    });
    wait_until("the call is answered", || {
        a.sees(&b).unwrap().last_handshake.is_some()
    });
    echo(&a, &b);
    assert_eq!(b.sees(&a).unwrap().endpoint, Some(a.endpoint()));
    echo(&b, &a);
}

#[tokio::test]
async fn a_peer_that_moves_is_followed() {
    let Some((mut a, b)) = pair().await else {
        return;
    };
    echo(&a, &b);
    a.drop_tunnel();
    a.start(PORT + 1);
    a.knows(&b, Some(b.endpoint()), &[b.overlay]);
    echo(&a, &b);
    let moved = (a.underlay, PORT + 1).into();
    assert_eq!(b.sees(&a).unwrap().endpoint, Some(moved));
    echo(&b, &a);
}

#[tokio::test]
async fn a_source_that_is_not_the_peers_is_dropped() {
    let Some((a, b)) = pair().await else { return };
    let other = Ipv4Addr::new(10, 9, 0, 77);
    a.net.add_address("wg0", other.into()).await.unwrap();
    let server = b.bind(b.overlay, 0);
    let to = server.local_addr().unwrap();
    a.bind(other, 0).send_to(b"forged", to).unwrap();
    // Behind it on the same wire, so what arrives first tells.
    a.bind(a.overlay, 0).send_to(b"honest", to).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"honest"[..], a.overlay.into())
    );
    // And with the address allowed it passes, so it was the check.
    b.knows(&a, None, &[a.overlay, other]);
    a.bind(other, 0).send_to(b"moved", to).unwrap();
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"moved");
}

#[tokio::test]
async fn a_change_of_allowed_addresses_keeps_the_session() {
    let Some((a, b)) = pair().await else { return };
    echo(&a, &b);
    let before = a.sees(&b).unwrap();
    let more = Ipv4Addr::new(10, 9, 0, 78);
    a.knows(&b, None, &[b.overlay, more]);
    b.net.add_address("wg0", more.into()).await.unwrap();
    let server = b.bind(more, 0);
    a.bind(a.overlay, 0)
        .send_to(b"new", server.local_addr().unwrap())
        .unwrap();
    assert_eq!(server.recv(&mut [0; 16]).unwrap(), 3);
    let after = a.sees(&b).unwrap();
    assert!(after.last_handshake >= before.last_handshake);
    // Bytes are counted once they are sent, which may be after they were received.
    wait_until("they are counted", || {
        a.sees(&b).unwrap().tx_bytes > before.tx_bytes
    });
    a.tunnel().remove_peer(&b.public_key()).unwrap();
    a.tunnel().remove_peer(&b.public_key()).unwrap();
    assert_eq!(a.sees(&b), None);
}

/// The longest time for which a stream under way stood still while something was done.
fn longest_stall(
    mut client: TcpStream,
    mut server: TcpStream,
    work: impl FnOnce(&dyn Fn()),
) -> Duration {
    let (arrived, done) = (AtomicU64::new(0), AtomicBool::new(false));
    // Returns once the stream has moved on, from now.
    let flows = || {
        let before = arrived.load(Ordering::Acquire);
        wait_until("the stream goes on", || {
            arrived.load(Ordering::Acquire) > before + 1_000_000
        });
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let block: Vec<u8> = (0..251).cycle().take(251 * 256).collect();
            while !done.load(Ordering::Acquire) {
                client.write_all(&block).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        let reader = scope.spawn(|| {
            let mut buffer = vec![0; 64 << 10];
            let (mut longest, mut last, mut at) = (Duration::ZERO, Instant::now(), 0_u64);
            loop {
                let read = server.read(&mut buffer).unwrap();
                longest = longest.max(last.elapsed());
                last = Instant::now();
                for byte in &buffer[..read] {
                    assert_eq!(u64::from(*byte), at % 251, "byte {at}");
                    at += 1;
                }
                arrived.store(at, Ordering::Release);
                if read == 0 {
                    return longest;
                }
            }
        });
        flows();
        work(&flows);
        done.store(true, Ordering::Release);
        writer.join().unwrap();
        reader.join().unwrap()
    })
}

/// `restarted` dies and comes back, with the same key or another, while a stream runs from `a` to `b`.
fn restart(a: &mut Host, b: &mut Host, sender: bool, fresh: bool) {
    let (client, server) = connection(a, b);
    let stall = longest_stall(client, server, |flows| {
        let (restarted, other) = if sender { (a, b) } else { (b, a) };
        let old = restarted.public_key();
        restarted.drop_tunnel();
        if fresh {
            restarted.key = PrivateKey::generate().unwrap();
        }
        restarted.start(PORT);
        restarted.knows(other, Some(other.endpoint()), &[other.overlay]);
        if fresh {
            other.tunnel().remove_peer(&old).unwrap();
            other.knows(restarted, Some(restarted.endpoint()), &[restarted.overlay]);
            other.tunnel().nudge(&restarted.public_key()).unwrap();
        }
        flows();
    });
    eprintln!("sender {sender}, fresh key {fresh}: stalled {stall:?}");
    assert!(stall < Duration::from_secs(2), "{stall:?}");
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_the_receiver_with_the_same_key() {
    let Some((mut a, mut b)) = pair().await else {
        return;
    };
    restart(&mut a, &mut b, false, false);
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_the_receiver_with_a_fresh_key() {
    let Some((mut a, mut b)) = pair().await else {
        return;
    };
    restart(&mut a, &mut b, false, true);
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_the_sender() {
    let Some((mut a, mut b)) = pair().await else {
        return;
    };
    restart(&mut a, &mut b, true, false);
    restart(&mut a, &mut b, true, true);
}

#[tokio::test]
async fn a_few_packets_wait_for_a_session() {
    let Some((mut a, mut b)) = pair().await else {
        return;
    };
    a.drop_tunnel();
    b.drop_tunnel();
    a.start(PORT);
    a.knows(&b, Some(b.endpoint()), &[b.overlay]);
    let (client, server) = (a.bind(a.overlay, 0), b.bind(b.overlay, 0));
    client.connect(server.local_addr().unwrap()).unwrap();
    for number in 0..200 {
        client.send(&[number; 100]).unwrap();
    }
    wait_until("32 are kept, and the others dropped", || {
        format!("{:?}", a.tunnel()).contains("no_session: 168")
    });
    b.start(PORT);
    b.knows(&a, Some(a.endpoint()), &[a.overlay]);
    wait_until("there is a session", || {
        a.sees(&b).unwrap().last_handshake.is_some()
    });
    client.send(&[255; 100]).unwrap();
    let mut received = Vec::new();
    while received.last() != Some(&255) {
        let mut buffer = [0; 100];
        assert_eq!(server.recv(&mut buffer).unwrap(), 100);
        received.push(buffer[0]);
    }
    let kept: Vec<u8> = (0..32).chain([255]).collect();
    assert_eq!(received, kept);
}

#[tokio::test]
async fn noise_on_the_port_harms_nothing() {
    let Some((a, b)) = pair().await else { return };
    echo(&a, &b);
    let noise = a.bind(a.underlay, 0);
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u32
    };
    for round in 0..3_000_u32 {
        let mut datagram: Vec<u8> = (0..next() % 1_472).map(|_| next() as u8).collect();
        // Most of it dressed up as each kind of message, of the right length too.
        if datagram.len() >= 4 {
            datagram[..4].copy_from_slice(&[(round % 5) as u8, 0, 0, 0]);
        }
        match round % 10 {
            1 => datagram.resize(148, 7),
            2 => datagram.resize(92, 7),
            3 => datagram.resize(64, 7),
            _ => {}
        }
        // The buffer may be full; that is load, not failure.
        let _ = noise.send_to(&datagram, b.endpoint());
    }
    echo(&a, &b);
    assert_eq!(b.sees(&a).unwrap().endpoint, Some(a.endpoint()));
    b.tunnel().stop().unwrap();
}

async fn received(channel: &SideChannel) -> Vec<u8> {
    let (datagram, _) = timeout(LIMIT, channel.recv()).await.unwrap().unwrap();
    datagram.to_vec()
}

#[tokio::test]
async fn the_side_channel_shares_the_port() {
    let Some((a, b)) = pair().await else { return };
    let (left, right) = (a.tunnel().side_channel(), b.tunnel().side_channel());
    left.send(b"\xA2hello", b.endpoint()).await.unwrap();
    let (datagram, from) = timeout(LIMIT, right.recv()).await.unwrap().unwrap();
    assert_eq!((&datagram[..], from), (&b"\xA2hello"[..], a.endpoint()));
    let error = left.send(b"\x01hello", b.endpoint()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // Nobody reads, and more comes than is kept: the tunnel goes on, and so does the channel afterwards.
    for _ in 0..2_000 {
        let _ = left.send(&[0xA2; 1_000], b.endpoint()).await;
    }
    echo(&a, &b);
    left.send(b"\xA2 after", b.endpoint()).await.unwrap();
    let mut kept = 0;
    while timeout(Duration::from_millis(200), right.recv())
        .await
        .is_ok()
    {
        kept += 1;
    }
    assert!((512..2_000).contains(&kept), "{kept}");
    left.send(b"\xA2last", b.endpoint()).await.unwrap();
    assert_eq!(received(&right).await, b"\xA2last");
    b.tunnel().stop().unwrap();
    let error = timeout(LIMIT, right.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

fn count(path: &str) -> usize {
    fs::read_dir(path).unwrap().count()
}

/// In a process of its own, since other tests of this one make threads and descriptors too.
#[test]
fn fifty_starts_leave_no_thread_and_no_descriptor() {
    const ALONE: &str = "ARPANET_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "fifty_starts_leave_no_thread_and_no_descriptor",
                "--nocapture",
            ])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let Some(namespace) = namespace() else { return };
    let cycle = || {
        let socket = namespace.run(|| UdpSocket::bind("0.0.0.0:0"));
        let config = UserTunnelConfig::new(
            PrivateKey::generate().unwrap(),
            socket.unwrap().unwrap(),
            namespace.clone(),
        );
        let tunnel = UserTunnel::launch(config).unwrap();
        tunnel.stop().unwrap();
        tunnel.stop().unwrap();
    };
    cycle();
    let before = (count("/proc/self/task"), count("/proc/self/fd"));
    for _ in 0..50 {
        cycle();
    }
    wait_until("the threads and descriptors are as before", || {
        (count("/proc/self/task"), count("/proc/self/fd")) == before
    });
}
