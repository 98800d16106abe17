//! Packets fit the underlay, whatever its MTU, and nothing is cut into pieces on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use arpanet_netlink::Namespace;
use arpanet_wireguard::tunnel::mtu_over;

use crate::site::{self, Container, Host, LIMIT, Site, connect, ip};

const AMOUNT: usize = 4 << 20;

/// Both ends of a TCP connection.
fn connection(from: &Namespace, to: &Namespace, at: Ipv4Addr) -> (TcpStream, TcpStream) {
    let listener = to.run(|| TcpListener::bind((at, 0))).unwrap().unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&addr, LIMIT);
    let client = from.run(connect).unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    (client, server)
}

/// Sends some MB and takes them at the other end: all of them, in order.
fn carries(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..AMOUNT).map(|place| (place % 251) as u8).collect();
    let mut received = vec![0; AMOUNT];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(sent == received);
}

fn transfers(from: &Namespace, to: &Namespace, at: &str) {
    let (mut client, mut server) = connection(from, to, ip(at));
    carries(&mut client, &mut server);
    carries(&mut server, &mut client);
}

/// A counter of the kernel's for IP in a namespace.
fn counter(namespace: &Namespace, name: &str) -> u64 {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.unwrap().unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|other| other == name).unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

fn assert_whole(hosts: &[&Host]) {
    for host in hosts {
        for name in ["FragCreates", "FragFails", "ReasmReqds"] {
            assert_eq!(
                counter(host.namespace(), name),
                0,
                "{name} on {}",
                host.node
            );
        }
    }
}

async fn mtu_of(host: &Host, container: &Container, addr: &str) -> [u32; 4] {
    let router = host
        .overlay
        .router_namespace()
        .await
        .unwrap()
        .handle()
        .unwrap();
    let link = format!("ap{:08x}", u32::from(ip(addr)));
    [
        host.net.require_link("arpanet0").await.unwrap().mtu,
        router.require_link("wg0").await.unwrap().mtu,
        router.require_link(&link).await.unwrap().mtu,
        container.net.require_link(&link).await.unwrap().mtu,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_arrive_whole_over_underlays_of_every_size() {
    for underlay in [1500_u16, 1460, 1450] {
        // Strict filters have lost the kernel's word that a packet is too large.
        for filter in ["0", "1"] {
            let Some(site) = Site::new(2).await else {
                return;
            };
            let switch = site.switch.clone();
            let [mut one, mut two] = <[Host; 2]>::try_from(site.hosts).unwrap();
            site::resize(&switch, &[&one, &two], underlay.into()).await;
            for host in [&one, &two] {
                for link in ["all", "default", "eth0"] {
                    let setting = format!("net.ipv4.conf.{link}.rp_filter");
                    host.namespace().set_sysctl(&setting, filter).unwrap();
                }
            }
            one.launch().await;
            two.launch().await;
            let (a, b) = (Container::new("a").await, Container::new("b").await);
            one.attach(&a, "10.1.0.5/16").await;
            two.attach(&b, "10.1.0.9/16").await;
            connect(&one, &two).await;
            assert_eq!(
                mtu_of(&one, &a, "10.1.0.5").await,
                [u32::from(mtu_over(underlay)); 4]
            );
            transfers(a.namespace(), b.namespace(), "10.1.0.9");
            transfers(one.namespace(), two.namespace(), "10.255.0.2");
            assert_whole(&[&one, &two]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_underlay_reaches_containers_that_are_attached() {
    let Some(site) = Site::new(2).await else {
        return;
    };
    let switch = site.switch.clone();
    let [mut one, mut two] = <[Host; 2]>::try_from(site.hosts).unwrap();
    one.launch().await;
    two.launch().await;
    let (a, b) = (Container::new("a").await, Container::new("b").await);
    one.attach(&a, "10.1.0.5/16").await;
    two.attach(&b, "10.1.0.9/16").await;
    connect(&one, &two).await;
    let (mut client, mut server) = connection(a.namespace(), b.namespace(), ip("10.1.0.9"));
    let (mut near, mut far) = connection(one.namespace(), two.namespace(), ip("10.255.0.2"));
    carries(&mut client, &mut server);
    for (underlay, is_killed) in [(1400_u16, false), (1300, true), (1500, false), (1350, true)] {
        site::resize(&switch, &[&one, &two], underlay.into()).await;
        if is_killed {
            one.kill().await;
            two.kill().await;
        }
        connect(&one, &two).await;
        let mtu = u32::from(mtu_over(underlay));
        assert_eq!(
            mtu_of(&one, &a, "10.1.0.5").await,
            [mtu; 4],
            "over {underlay}"
        );
        assert_eq!(
            mtu_of(&two, &b, "10.1.0.9").await,
            [mtu; 4],
            "over {underlay}"
        );
        carries(&mut client, &mut server);
        carries(&mut server, &mut client);
        carries(&mut near, &mut far);
        assert_whole(&[&one, &two]);
    }
    site::resize(&switch, &[&one, &two], 1500).await;
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}
