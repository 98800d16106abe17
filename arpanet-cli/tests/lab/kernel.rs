//! Over the kernel's WireGuard: three hosts in a guest, since not every kernel has it. They join, fetch, are kept apart, lose an
//! agent and no packet, and are given back.

use std::ffi::OsStr;
use std::io::Write;
use std::time::Duration;

use arpanet_core::conformance::live;
use arpanet_lab::Guest;

use crate::beats::Beats;
use crate::site::{BINARY, Site, until};
use crate::survival::kill_agent;

/// For a machine that does much else meanwhile.
const LIMIT: Duration = Duration::from_secs(600);
/// For what comes at once where computing is slow.
const SOON: Duration = Duration::from_secs(60);
/// What runs in the guest: the same that runs here over the agent's own WireGuard, and what only the kernel's can.
const TESTS: &[&str] = &[
    "cluster::three_hosts_list_each_other_and_find_services_by_name::by_gossip",
    "cluster::reset_gives_every_host_back_as_it_was::by_gossip",
    "kernel::an_agent_dies_and_comes_back_and_not_a_packet_is_lost",
];

#[tokio::test]
async fn three_hosts_in_a_guest() {
    let Some(kernel) = live::kernel() else {
        return;
    };
    let tests = std::env::current_exe().unwrap();
    let guest = Guest::new(kernel)
        .memory(2048)
        .modules(["wireguard", "tun", "veth", "bridge", "overlay"])
        .program(&tests)
        .program(BINARY)
        .program("/usr/bin/ping")
        .program("/usr/bin/setpriv")
        .env("ARPANET_LIVE", "root,wireguard");
    // One after the other: each has three agents.
    let mut command = vec![tests.as_os_str()];
    command.extend(["--exact", "--test-threads=1"].map(OsStr::new));
    command.extend(TESTS.iter().map(OsStr::new));
    let run = guest.run(&command, LIMIT).await.unwrap();
    let closing = run.passed();
    let all = format!("ok. {} passed", TESTS.len());
    assert!(closing.contains(&all), "{}", run.output);
    // Not by the macro, whose words nobody sees of a test that passes.
    let _ = writeln!(std::io::stderr(), "{closing}");
}

#[tokio::test]
async fn an_agent_dies_and_comes_back_and_not_a_packet_is_lost() {
    let promised = live::promises("wireguard");
    if !live::have(
        "wireguard",
        promised,
        "the kernel's, promised by ARPANET_LIVE",
    ) {
        return;
    }
    let site = Site::up(3).await.unwrap();
    let found = site.ok("node1", "doctor");
    assert!(
        found.contains("the kernel's WireGuard is used, on UDP port 51821"),
        "{found}"
    );
    // And whether it can have that port.
    assert!(found.contains("udp: port 51821 is free"), "{found}");
    let node1 = site.lab.namespace("node1").unwrap();
    let taken = node1.run(|| std::net::UdpSocket::bind("0.0.0.0:51821"));
    let doctor = site.arpanet2("node1", "doctor");
    assert!(
        doctor.out.contains("udp: port 51821 is held by"),
        "{}",
        doctor.out
    );
    assert!(doctor.out.contains("tunnel_port"), "{}", doctor.out);
    drop(taken);
    site.ok("node1", "boot 0.1 Apples");
    assert!(
        site.ok("node1", "doctor")
            .contains("udp: port 51821 is held by")
    );
    // Both kinds make one cluster.
    site.ok(
        "node2",
        "server 0.2 Apples 0.1 192.168.8.120 --tunnel kernel",
    );
    site.ok("node3", "server 0.3 Apples 0.1 192.168.8.120 --tunnel user");
    for (host, tunnel) in [("node1", "kernel"), ("node2", "kernel"), ("node3", "user")] {
        assert_eq!(site.status(host)["stack"]["tunnel"], tunnel);
    }
    let web = format!(
        "run --net 10.1.0.0/16 --service web --port 80 --name w1 -- {BINARY} hello --port 80"
    );
    site.ok("node3", &web);
    let resolved = || site.arpanet2("node1", "resolve web").out;
    until("the name is there", SOON, resolved, |ip| {
        ip.starts_with("10.1.")
    });

    let [one, two] = ["node1", "node2"].map(|host| site.lab.namespace(host).unwrap());
    let beats = Beats::begin(&one, &two, "10.255.0.2".parse().unwrap());
    for host in ["node1", "node2"] {
        kill_agent(&site, host);
        site.ok(host, "start");
    }
    let (sent, came) = beats.end();
    assert!(sent > 20, "{sent}");
    assert_eq!(came, sent, "some of {sent} datagrams were lost");
    site.ok("node1", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let fetch = format!("exec c1 -- {BINARY} fetch http://web.service.consul/");
    until(
        "the page",
        SOON,
        || site.arpanet2("node1", &fetch).out,
        |page| page == "hello from w1",
    );
}
