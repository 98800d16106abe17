//! What on this host is in the way.

use std::net::{TcpListener, UdpSocket};

use super::{Held, PORT, refused, told};
use crate::site::{BINARY, Outcome, Site};

fn as_user(site: &Site, host: &str, line: &str) -> Outcome {
    let words: Vec<&str> = std::iter::once(BINARY).chain(line.split(' ')).collect();
    let output = site.lab.command(host, 65534, &words).unwrap().output();
    output.unwrap().into()
}

#[tokio::test]
async fn a_host_that_can_t_be_a_node_says_why_and_stays_as_it_was() {
    let Some(site) = Site::up(1).await else {
        return;
    };
    let ip = |line: &str| {
        assert_eq!(
            site.run("node1", &format!("ip {line}")).code,
            Some(0),
            "{line}"
        )
    };
    let refuses = |words: &[&str]| {
        refused(&site, "node1", "boot 0.1 Apples", 1, words);
    };

    ip("addr add 10.254.9.9/24 dev eth0");
    refuses(&["10.254.9.9/24 on eth0", "system plane 10.254.0.0/16"]);
    ip("addr del 10.254.9.9/24 dev eth0");

    ip("route add 10.253.9.0/24 via 192.168.8.1");
    refuses(&[
        "route to 10.253.9.0/24 by eth0",
        "system plane 10.253.0.0/16",
    ]);
    ip("route del 10.253.9.0/24");

    let resolver = "nameserver 10.255.0.53";
    let written = site.lab.output(
        "node1",
        &[
            "sh",
            "-c",
            &format!("cp /etc/resolv.conf /run/kept; echo {resolver} > /etc/resolv.conf"),
        ],
    );
    assert!(written.unwrap().status.success());
    refuses(&[
        "DNS server 10.255.0.53",
        "system plane 10.255.0.0/16",
        "/etc/resolv.conf",
    ]);
    let written = site.lab.output(
        "node1",
        &["sh", "-c", "cat /run/kept > /etc/resolv.conf; rm /run/kept"],
    );
    assert!(written.unwrap().status.success());

    let config =
        "mkdir -p /etc/arpanet2; echo 'networks = [\"10.1.0.0/16\"]' > /etc/arpanet2/config.toml";
    assert!(
        site.lab
            .output("node1", &["sh", "-c", config])
            .unwrap()
            .status
            .success()
    );
    ip("addr add 10.1.9.9/24 dev eth0");
    refuses(&["10.1.9.9/24 on eth0", "application network 10.1.0.0/16"]);
    ip("addr del 10.1.9.9/24 dev eth0");
    site.run("node1", "rm -r /etc/arpanet2");

    let host = site.lab.namespace("node1").unwrap();
    let socket = host.run(|| TcpListener::bind(PORT)).unwrap().unwrap();
    let held = Held::new(&site, "node1", socket.into());
    refuses(&["TCP port 51820 is in use", &held.holder(), "--port"]);
    held.end(&site, "node1");
    let socket = host.run(|| UdpSocket::bind(PORT)).unwrap().unwrap();
    let held = Held::new(&site, "node1", socket.into());
    refuses(&["UDP port 51820 is in use", &held.holder(), "--port"]);
    held.end(&site, "node1");

    for line in ["boot 0.1 Apples", "start", "reset"] {
        told(
            &as_user(&site, "node1", line),
            line,
            1,
            &["only root", "sudo"],
        );
    }
    for line in ["status", "stop", "nodes", "resolve web", "register web"] {
        refused(
            &site,
            "node1",
            line,
            1,
            &["the agent is not running on this host", "arpanet2 boot"],
        );
    }
    refused(
        &site,
        "node1",
        "start",
        1,
        &["no member of a cluster", "arpanet2 boot"],
    );
}

#[tokio::test]
async fn a_host_within_10_8_boots_and_keeps_its_lan() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    for line in [
        "link add lan0 type veth peer name lan1",
        "addr add 10.128.0.7/20 dev lan0",
        "link set lan1 up",
        "link set lan0 up",
    ] {
        assert_eq!(
            site.run("node1", &format!("ip {line}")).code,
            Some(0),
            "{line}"
        );
    }
    site.cluster();
    for (to, link) in [
        ("10.128.0.9", "dev lan0"),
        ("10.255.0.2", "dev arpanet0"),
        ("10.128.16.1", "dev arpanet0"),
    ] {
        let way = site.run("node1", &format!("ip route get {to}"));
        assert!(way.out.contains(link), "{way:?}");
    }
    assert_eq!(site.run("node1", "ping -c1 -W1 10.128.0.7").code, Some(0));
    assert_eq!(site.run("node1", "ping -c1 -W2 10.255.0.2").code, Some(0));

    // An agent that runs, and somebody who is not root.
    let pid = site.run("node1", "cat /run/arpanet2/agent.lock").out;
    for line in [
        "boot 0.1 Apples",
        "boot 0.9 Pears",
        "start",
        "server 0.9 Apples 0.2 192.168.8.121",
    ] {
        refused(
            &site,
            "node1",
            line,
            1,
            &["already running", &format!("process {pid}")],
        );
    }
    told(
        &as_user(&site, "node1", "status"),
        "status",
        1,
        &["only root", "sudo"],
    );
    site.ok("node1", "stop");
    for line in ["boot 0.1 Apples", "server 0.9 Apples 0.2 192.168.8.121"] {
        let words = [
            "this host is already node 0.1 (node1)",
            "arpanet2 start",
            "arpanet2 reset",
        ];
        told(&site.arpanet2("node1", line), line, 1, &words);
    }
    site.ok("node1", "start");
}
