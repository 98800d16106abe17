//! What surprises those who use weave, each with what becomes of it here.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use arpanet_core::overlay::{Announcement, PeerSpec, PeerState};
use arpanet_core::{Error, ErrorKind, Overlay, Plane};
use arpanet_netlink::{Namespace, Route, VethEnd};
use arpanet_router::Pinger;
use arpanet_weave::{ForeignRouter, RouterPassword};
use nix::fcntl::{Flock, FlockArg};

use crate::site::{
    Container, Fate, Host, LIMIT, PORT, becomes, connect, ip, one_host, probe, two_hosts, until,
};

/// The error, its causes and its hint, in one text.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    format!("{text} ({})", error.hint().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_sentinel_does_not_bring_old_peers_back() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    fs::create_dir_all(&one.config.folder).unwrap();
    fs::write(one.config.folder.join("restart.sentinel"), "").unwrap();
    fs::write(one.config.folder.join("weavedata.db"), "192.168.9.77\n").unwrap();
    connect(&one, &two).await;
    assert_eq!(probe(one.namespace(), two.node.overlay()), Fate::Reached);
    let log = fs::read_to_string(one.config.folder.join("weaver.log")).unwrap();
    assert!(
        log.contains("Launch detected - using supplied peer list: []"),
        "{log}"
    );
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_router_has_is_told_at_once() {
    let Some(one) = one_host().await else {
        return;
    };
    fs::create_dir_all(&one.config.folder).unwrap();
    let database = fs::File::create(one.config.folder.join("weavedata.db")).unwrap();
    let held = Flock::lock(database, FlockArg::LockExclusive).unwrap();
    let asked = Instant::now();
    for error in [
        one.overlay.preflight(one.node).await.unwrap_err(),
        one.overlay.launch(&one.membership()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("weavedata.db"), "{error}");
    }
    assert!(asked.elapsed() < LIMIT / 2, "{:?}", asked.elapsed());
    assert_eq!(one.router(), None);
    drop(held);
    one.launch().await;
    one.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_does_not_start_is_told_with_its_words_and_leaves_nothing() {
    let Some(mut one) = one_host().await else {
        return;
    };
    one.configure(one.config.clone().launch_ms(1_500));
    for (start, kind, words) in [
        (
            "exit",
            ErrorKind::Unavailable,
            "cannot create bridge: operation not supported",
        ),
        ("mute", ErrorKind::Timeout, "not ready after 1.5s"),
    ] {
        one.wish("start", start);
        let error = one.overlay.launch(&one.membership()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", whole(&error));
        assert!(whole(&error).contains(words), "{}", whole(&error));
        assert_eq!(one.traces().await, Vec::<String>::new(), "{start}");
    }
    one.configure(one.config.clone().launch_ms(60_000));
    one.wish("start", "late");
    one.launch().await;
    one.leave_nothing_behind().await;
}

/// By TCP, in segments that the kernel would leave to a device to cut and to give checksums.
fn stream_a_megabyte(from: &Host, to: &Host) {
    let listen = || TcpListener::bind((to.node.overlay(), 0));
    let listener = to.namespace().run(listen).unwrap().unwrap();
    let at = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&at, LIMIT);
    let mut sender = from.namespace().run(connect).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let reading = std::thread::spawn(move || {
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).map(|_| received)
    });
    let sent: Vec<u8> = (0..1 << 20)
        .map(|number: u32| (number >> 5) as u8)
        .collect();
    sender.write_all(&sent).unwrap();
    drop(sender);
    assert!(
        reading.join().unwrap().unwrap() == sent,
        "what was received is not what was sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reachable_means_that_packets_come_through() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    for (from, to) in [(&one, &two), (&two, &one)] {
        stream_a_megabyte(from, to);
        assert_eq!(probe(from.namespace(), to.node.overlay()), Fate::Reached);
        let peers = from.overlay.peers().await.unwrap();
        assert_eq!((peers.len(), peers[0].state), (1, PeerState::Up));
        assert!(peers[0].round_trip.is_some());
        // The router's, not where the node joined.
        assert_eq!(peers[0].endpoint.unwrap().port(), PORT);
    }
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_others_on_the_bridge_stay_and_none_of_ours_comes() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    // As `weave expose` leaves them: of two in one network, the second goes with the first unless somebody takes care.
    one.net.add_bridge("weave").await.unwrap();
    for address in ["10.200.0.1/8", "10.200.0.2/8"] {
        one.net
            .add_address("weave", address.parse().unwrap())
            .await
            .unwrap();
    }
    let on_bridge = async || {
        let addresses = one.net.addresses().await.unwrap();
        let addresses = addresses
            .into_iter()
            .filter(|address| address.link == "weave");
        addresses
            .map(|address| address.address.to_string())
            .collect::<Vec<_>>()
    };
    let before = on_bridge().await;
    assert_eq!(before.len(), 2);
    connect(&one, &two).await;
    for plane in [Plane::Docker, Plane::Discovery] {
        one.overlay.expose(plane).await.unwrap();
        becomes(two.namespace(), one.node.in_plane(plane), Fate::Reached);
    }
    assert_eq!(on_bridge().await, before);
    // The router has masqueraded them again as it was launched: what we send is not under that.
    let listener = two
        .namespace()
        .run(|| UdpSocket::bind((two.node.overlay(), 0)))
        .unwrap()
        .unwrap();
    listener.set_read_timeout(Some(LIMIT)).unwrap();
    let to = listener.local_addr().unwrap();
    let sent = one
        .namespace()
        .run(|| UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", to)));
    sent.unwrap().unwrap();
    let (_, from) = listener.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), one.node.overlay());
    for plane in [Plane::Docker, Plane::Discovery] {
        one.overlay.hide(plane).await.unwrap();
    }
    one.overlay.stop().await.unwrap();
    one.overlay.reset().await.unwrap();
    // It was there before, so it is somebody else's.
    assert_eq!(on_bridge().await, before);
    assert!(one.net.link("arpanet-weave").await.unwrap().is_none());
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_is_asked_for_nothing_that_ends_or_blocks_it() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    one.overlay.expose(Plane::Docker).await.unwrap();
    one.overlay.nudge(two.node).await.unwrap();
    one.overlay.forget(two.node).await.unwrap();
    let asked = one.requests();
    // No /metrics, which ends a router that gives out no addresses; and peers by ip, since a name blocks it.
    let known = [
        "GET /status ".to_owned(),
        "GET /report ".to_owned(),
        "POST /connect peer=192.168.9.2%3A6783".to_owned(),
        "POST /forget peer=192.168.9.2%3A6783".to_owned(),
    ];
    for request in &asked {
        assert!(known.contains(request), "{request}");
    }
    for request in &known {
        assert!(asked.contains(request), "{request}");
    }
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_of_one_name_are_told_in_clear_words() {
    let Some((one, mut two)) = two_hosts().await else {
        return;
    };
    let other = two.node;
    // As after a mistake by hand: the address is somebody else's.
    two.node = one.node;
    one.launch().await;
    two.launch().await;
    let spec = PeerSpec::new(other, Some(two.endpoint()), Announcement::default());
    one.overlay.connect(spec).await.unwrap();
    let error = one.overlay.wait_reachable(other, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", whole(&error));
    assert!(error.to_string().contains("same name"), "{error}");
    assert_eq!(one.overlay.peers().await.unwrap()[0].state, PeerState::Down);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_is_told_from_a_fault_of_the_network_on_both_sides() {
    let Some((one, mut two)) = two_hosts().await else {
        return;
    };
    two.key = 8;
    one.launch().await;
    two.launch().await;
    one.overlay.connect(two.peer()).await.unwrap();
    let error = one
        .overlay
        .wait_reachable(two.node, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        whole(&error)
    );
    // The one who is called sees no more than that connections end.
    let unlocated = PeerSpec::new(one.node, None, Announcement::default());
    two.overlay.connect(unlocated).await.unwrap();
    let limit = Duration::from_secs(3);
    let error = two
        .overlay
        .wait_reachable(one.node, limit)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(whole(&error).contains("password"), "{}", whole(&error));
    // Nobody called here, so nothing of passwords is said.
    one.overlay.forget(two.node).await.unwrap();
    let stranger = "0.7".parse().unwrap();
    one.overlay
        .connect(PeerSpec::new(stranger, None, Announcement::default()))
        .await
        .unwrap();
    let limit = Duration::from_secs(1);
    let error = one
        .overlay
        .wait_reachable(stranger, limit)
        .await
        .unwrap_err();
    assert!(!whole(&error).contains("password"), "{}", whole(&error));
    // The passwords are no arguments of the routers.
    for host in [&one, &two] {
        let process = format!("/proc/{}/", host.router().unwrap());
        let arguments = fs::read_to_string(process.clone() + "cmdline").unwrap()
            + &fs::read_to_string(host.folder.path().join("arguments")).unwrap();
        let environment = fs::read(process + "environ").unwrap();
        let secret = RouterPassword::derive(&host.membership().cluster, &host.membership().key);
        assert!(!arguments.contains(secret.expose()));
        assert!(String::from_utf8_lossy(&environment).contains(secret.expose()));
        host.leave_nothing_behind().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_is_told_though_the_router_says_nothing_of_it() {
    let Some(one) = one_host().await else {
        return;
    };
    one.launch().await;
    // Packets to it vanish.
    let hole = Route::new("192.0.2.0/24".parse().unwrap())
        .via(ip("192.168.9.200"))
        .link("eth0");
    one.net.set_route(&hole).await.unwrap();
    let away = "0.9".parse().unwrap();
    let spec = PeerSpec::new(
        away,
        Some("192.0.2.1:51820".parse().unwrap()),
        Announcement::default(),
    );
    one.overlay.connect(spec).await.unwrap();
    let error = one
        .overlay
        .wait_reachable(away, Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        whole(&error)
            .contains("nothing comes back from the weave router of node 0.9 at 192.0.2.1:6783"),
        "{}",
        whole(&error)
    );
    assert_eq!(
        one.overlay.peers().await.unwrap()[0].state,
        PeerState::Connecting
    );
    one.net.delete_route(&hole).await.unwrap();
    one.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_of_somebody_else_is_refused_or_used_but_never_changed() {
    let Some((mut one, two)) = two_hosts().await else {
        return;
    };
    let name = "0a:00:00:00:00:01";
    let password = RouterPassword::derive(&two.membership().cluster, &two.membership().key);
    let mut foreign = one.start_foreign(name, password.expose());
    until("it answers", async || {
        one.requests().len() + usize::from(one.folder.path().join("weave.sock").exists()) > 0
    })
    .await;
    for error in [
        one.overlay.preflight(one.node).await.unwrap_err(),
        one.overlay.launch(&one.membership()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", whole(&error));
        let told = whole(&error);
        for word in ["version 2.9.0", name, "foreign = \"use\""] {
            assert!(told.contains(word), "{told}");
        }
    }
    assert!(one.net.link("arpanet0").await.unwrap().is_none());
    one.configure(one.config.clone().foreign(ForeignRouter::Use));
    // Its name does not follow from the node's address: the others need what the node announces.
    let announcement = one.launch().await;
    two.launch().await;
    let spec = PeerSpec::new(one.node, Some(one.endpoint()), announcement);
    two.overlay.connect(spec).await.unwrap();
    one.overlay.connect(two.peer()).await.unwrap();
    one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
    two.overlay.wait_reachable(one.node, LIMIT).await.unwrap();
    one.overlay.reset().await.unwrap();
    assert!(foreign.is_alive(), "it was ended");
    assert_eq!(one.targets(), Vec::<String>::new());
    let bridge = one.net.require_link("weave").await.unwrap();
    assert_eq!(bridge.mac.unwrap().to_string(), name);
    assert!(one.net.link("arpanet-weave").await.unwrap().is_none());
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_none_is_told_from_one() {
    let Some(one) = one_host().await else {
        return;
    };
    let listener =
        std::os::unix::net::UnixListener::bind(one.folder.path().join("weave.sock")).unwrap();
    let (answers, stop) = (
        listener.try_clone().unwrap(),
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    let stopped = std::sync::Arc::clone(&stop);
    let server = std::thread::spawn(move || {
        for mut stream in answers.incoming().flatten() {
            if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        }
    });
    let error = one.overlay.launch(&one.membership()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", whole(&error));
    assert!(
        error.to_string().contains("no router that works"),
        "{error}"
    );
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let _ = std::os::unix::net::UnixStream::connect(one.folder.path().join("weave.sock"));
    server.join().unwrap();
    drop(listener);
    // What is left of the socket is nobody.
    one.launch().await;
    one.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_dies_and_a_bridge_that_goes_come_back_by_themselves() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    let container = Container::new("a1").await;
    connect(&one, &two).await;
    let held = container.with("10.1.0.5/16");
    one.overlay.attach(&held).await.unwrap();
    let other = Container::new("b1").await;
    two.overlay
        .attach(&other.with("10.1.0.9/16"))
        .await
        .unwrap();
    let tell = async || {
        one.overlay
            .connect(two.peer().holding(vec!["10.1.0.9/16".parse().unwrap()]))
            .await
            .unwrap();
        two.overlay
            .connect(one.peer().holding(vec!["10.1.0.5/16".parse().unwrap()]))
            .await
            .unwrap();
    };
    tell().await;
    becomes(container.namespace(), ip("10.1.0.9"), Fate::Reached);
    let first = one.router().unwrap();
    one.crash_router();
    until("another router runs", async || {
        one.router().is_some_and(|now| now != first)
    })
    .await;
    becomes(container.namespace(), ip("10.1.0.9"), Fate::Reached);
    becomes(two.namespace(), one.node.overlay(), Fate::Reached);
    // As `weave reset` does it, while somebody else launches weave again.
    let second = one.router().unwrap();
    one.net.delete_link("weave").await.unwrap();
    one.crash_router();
    until("a third router runs", async || {
        one.router().is_some_and(|now| now != second)
    })
    .await;
    becomes(other.namespace(), ip("10.1.0.5"), Fate::Reached);
    assert_eq!(one.overlay.attached().await.unwrap().len(), 1);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_its_router_and_connections_go_on() {
    let Some((mut one, two)) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    let router = one.router();
    for stops in [true, false] {
        if stops {
            one.overlay.stop().await.unwrap();
        }
        one.kill().await;
        one.launch().await;
        assert_eq!(one.router(), router, "the router was launched again");
        // Nobody has told the node of its peers yet, and they reach it.
        becomes(two.namespace(), one.node.overlay(), Fate::Reached);
        one.overlay.connect(two.peer()).await.unwrap();
        one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
    }
    // Also where its process was not noted: whoever launched it was killed in that moment.
    let file = one.config.folder.join("router.json");
    let mut record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    record["process"] = serde_json::Value::Null;
    fs::write(&file, record.to_string()).unwrap();
    one.kill().await;
    one.launch().await;
    becomes(two.namespace(), one.node.overlay(), Fate::Reached);
    assert!(
        one.router_runs(router.unwrap()),
        "the router was launched again"
    );
    // With another password it can't go on.
    one.key = 8;
    one.kill().await;
    one.launch().await;
    assert!(
        !one.router_runs(router.unwrap()),
        "it goes on with the old password"
    );
    assert_ne!(one.router(), router);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

/// A namespace behind a bridge of the host, with the host as its way out: as docker's containers are.
async fn behind_a_bridge(host: &arpanet_netlink::Netlink) -> Namespace {
    let container = Namespace::create().unwrap();
    let net = container.handle().unwrap();
    host.namespace()
        .set_sysctl("net.ipv4.ip_forward", "1")
        .unwrap();
    host.add_bridge("docker0").await.unwrap();
    host.add_address("docker0", "172.17.0.1/16".parse().unwrap())
        .await
        .unwrap();
    host.set_up("docker0", true).await.unwrap();
    let near = VethEnd::new("vethd", host.namespace());
    host.add_veth(&near, &VethEnd::new("eth0", &container))
        .await
        .unwrap();
    host.set_master("vethd", Some("docker0")).await.unwrap();
    net.add_address("eth0", "172.17.0.2/16".parse().unwrap())
        .await
        .unwrap();
    host.set_up("vethd", true).await.unwrap();
    net.set_up("eth0", true).await.unwrap();
    net.wait_until_carrying("eth0", LIMIT).await.unwrap();
    let out = Route::new("0.0.0.0/0".parse().unwrap())
        .via(ip("172.17.0.1"))
        .link("eth0");
    net.set_route(&out).await.unwrap();
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_bridge_leads_to_no_part_of_the_overlay() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    two.overlay.expose(Plane::Docker).await.unwrap();
    becomes(one.namespace(), two.node.docker(), Fate::Reached);
    let container = behind_a_bridge(&one.net).await;
    assert_eq!(probe(&container, ip("172.17.0.1")), Fate::Reached);
    // Refused; but the kernel answers only so many refused packets of the whole machine.
    for to in [
        one.node.overlay(),
        two.node.overlay(),
        two.node.docker(),
        one.node.docker(),
    ] {
        assert_ne!(probe(&container, to), Fate::Reached, "{to}");
    }
    one.overlay.reset().await.unwrap();
    two.leave_nothing_behind().await;
}

/// A namespace on weave's bridge, as `weave attach` leaves one.
async fn on_the_bridge(host: &Host, address: &str) -> Namespace {
    let container = Namespace::create().unwrap();
    let net = container.handle().unwrap();
    let near = VethEnd::new("vethwepl1", host.namespace());
    let far = VethEnd::new("ethwe", &container).mtu(1376);
    host.net.add_veth(&near, &far).await.unwrap();
    host.net
        .set_master("vethwepl1", Some("weave"))
        .await
        .unwrap();
    host.net.set_up("vethwepl1", true).await.unwrap();
    net.add_address("ethwe", address.parse().unwrap())
        .await
        .unwrap();
    net.set_up("ethwe", true).await.unwrap();
    net.wait_until_carrying("ethwe", LIMIT).await.unwrap();
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_is_on_weaves_network_reaches_no_host_and_no_plane_as_an_application() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    one.overlay.expose(Plane::Docker).await.unwrap();
    becomes(two.namespace(), one.node.docker(), Fate::Reached);
    // Containers of weave's own, attached to all of 10/8. They reach each other.
    let away = on_the_bridge(&one, "10.32.0.2/8").await;
    let container = on_the_bridge(&two, "10.32.0.1/8").await;
    let pinger = Pinger::new(&container).unwrap();
    let pause = Duration::from_secs(1);
    until("they reach each other", async || {
        pinger.ping(ip("10.32.0.2"), pause).await.is_some()
    })
    .await;
    for to in [one.node.overlay(), two.node.overlay(), one.node.docker()] {
        assert_eq!(pinger.ping(to, pause).await, None, "{to}");
    }
    for host in [&one, &two] {
        host.net.delete_link("vethwepl1").await.unwrap();
    }
    drop(away);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}
