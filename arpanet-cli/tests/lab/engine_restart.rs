//! What containers have of the network while their engine, or the agent, is replaced under them.

use std::net::Ipv4Addr;
use std::time::Duration;

use arpanet_lab::Ending;

use crate::site::{BINARY, Site, until};
use crate::stream::{Stream, namespace_of, stalls};

const LIMIT: Duration = Duration::from_secs(30);
/// Two seconds are promised on a machine that does nothing else, which a test's is not.
const STALL: Duration = Duration::from_secs(6);

const SHOP: &str = "network create -d arpanet --ipam-driver arpanet --subnet 10.2.0.0/16 shop";

/// A container that only waits, by its labels in 10.1.0.0/16 or on the network of the driver, as an instance of a service.
fn start(site: &Site, host: &str, name: &str, place: &str, service: &str) {
    let place = match place {
        "labels" => "--label arpanet.net=10.1.0.0/16",
        _ => "--network shop",
    };
    site.docker(
        host,
        &format!(
            "run -d --name {name} --restart always {place} --label arpanet.service={service} --label arpanet.port=80 arpanet2-lab sleep 3600"
        ),
    );
}

fn resolve(site: &Site, host: &str, service: &str) -> Vec<Ipv4Addr> {
    let out = site.arpanet2(host, &format!("resolve {service}")).out;
    out.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Waits until a service has this many instances there.
fn count(site: &Site, host: &str, service: &str, wanted: usize) -> Vec<Ipv4Addr> {
    let mut last = Vec::new();
    until(
        &format!("{wanted} of {service} on {host}"),
        LIMIT,
        || resolve(site, host, service),
        |ips| ips.len() == wanted,
    );
    last.extend(resolve(site, host, service));
    last
}

fn kill_agent(site: &Site, host: &str) {
    site.command(
        host,
        &["sh", "-c", "kill -9 $(cat /run/arpanet2/agent.lock)"],
    );
}

/// Does something that has to be awaited, from a test that blocks.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

#[test]
fn an_engine_that_restores_live_leaves_its_containers_their_network() {
    let Some(site) = block_on(Site::up_with_docker(2)) else {
        return;
    };
    block_on(site.lab.end_docker("node2", Ending::InOrder)).unwrap();
    let live = "mkdir -p /etc/docker && echo '{\"live-restore\": true}' > /etc/docker/daemon.json";
    site.command("node2", &["sh", "-c", live]);
    block_on(site.lab.start_docker("node2")).unwrap();
    site.cluster();
    site.docker("node1", SHOP);
    until(
        "the network",
        LIMIT,
        || site.docker("node2", "network ls -q --filter name=shop"),
        |id| !id.is_empty(),
    );
    for host in ["node1", "node2"] {
        for place in ["labels", "driver"] {
            start(&site, host, &format!("{place}-{host}"), place, place);
        }
    }
    let mut streams = ["labels", "driver"].map(|place| {
        count(&site, "node1", place, 2);
        let client = namespace_of(&site, "node1", &format!("{place}-node1"));
        let name = format!("{place}-node2");
        let server = namespace_of(&site, "node2", &name);
        let shown = site.docker("node2", &format!("exec {name} ip -o -4 addr"));
        let at = shown.split_whitespace().filter_map(|word| {
            let ip: Ipv4Addr = word.split_once('/')?.0.parse().ok()?;
            (ip.octets()[0] == 10).then_some(ip)
        });
        Stream::open(&client, &server, at.reduce(|_, last| last).unwrap())
    });
    let ids = "ps -q --no-trunc";
    let before = site.docker("node2", ids);
    for ending in [Ending::InOrder, Ending::AtOnce] {
        let [by_labels, by_driver] = &mut streams;
        let stalled = stalls([by_labels, by_driver], || {
            block_on(site.lab.end_docker("node2", ending)).unwrap();
            // Nobody can say meanwhile which containers there are.
            kill_agent(&site, "node2");
            site.ok("node2", "start");
            block_on(site.lab.start_docker("node2")).unwrap();
        });
        eprintln!("{ending:?}: streams stalled {stalled:?}, by labels and by the driver");
        assert!(stalled.iter().all(|stall| *stall < STALL), "{stalled:?}");
        assert_eq!(site.docker("node2", ids), before, "the same ones run");
        for place in ["labels", "driver"] {
            count(&site, "node1", place, 2);
        }
    }

    // The other one's end with their engine, and are back with it.
    block_on(site.lab.end_docker("node1", Ending::InOrder)).unwrap();
    for place in ["labels", "driver"] {
        count(&site, "node2", place, 1);
    }
    block_on(site.lab.start_docker("node1")).unwrap();
    for place in ["labels", "driver"] {
        for ip in count(&site, "node2", place, 2) {
            let ping = format!("/usr/bin/docker exec {place}-node2 ping -c1 -W2 {ip}");
            until(
                "a ping",
                LIMIT,
                || site.run("node2", &ping).code,
                |code| *code == Some(0),
            );
        }
    }
}

/// The processes of a host that run this program, by their first words.
fn running(site: &Site, host: &str, program: &str) -> Vec<String> {
    let all = site.run(host, "ps -e -o args=").out;
    let ours = all.lines().filter(|line| line.starts_with(program));
    ours.map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned())
        .filter(|verb| verb != "holder")
        .collect()
}

#[test]
fn an_agent_gives_way_to_a_newer_program_and_streams_survive() {
    let Some(site) = block_on(Site::up_with_docker(2)) else {
        return;
    };
    site.cluster();
    site.docker("node1", SHOP);
    for (host, name) in [("node1", "c1"), ("node2", "c2")] {
        until(
            "the network",
            LIMIT,
            || site.docker(host, "network ls -q --filter name=shop"),
            |id| !id.is_empty(),
        );
        start(&site, host, name, "driver", "web");
    }
    count(&site, "node1", "web", 2);
    let address = "inspect -f {{.NetworkSettings.Networks.shop.IPAddress}} c2";
    let mut stream = Stream::open(
        &namespace_of(&site, "node1", "c1"),
        &namespace_of(&site, "node2", "c2"),
        site.docker("node2", address).parse().unwrap(),
    );
    // Another program, as far as anybody can tell: it is longer by a byte.
    let newer = "/run/arpanet2-newer";
    let make = format!("cp {BINARY} {newer} && echo >> {newer}");
    assert_eq!(site.command("node2", &["sh", "-c", &make]).code, Some(0));
    let mut kept = running(&site, "node2", BINARY);
    kept.sort();
    assert_eq!(kept, ["agent", "plugin-keeper"]);

    let [stalled] = stalls([&mut stream], || {
        // As a package does it: the old one ends in silence, the new one takes over.
        let end = "kill $(cat /run/arpanet2/agent.lock)";
        site.command("node2", &["sh", "-c", end]);
        until(
            "its end",
            LIMIT,
            || running(&site, "node2", BINARY),
            |left| !left.contains(&"agent".to_owned()),
        );
        let started = site.run("node2", &format!("{newer} start"));
        assert_eq!(started.code, Some(0), "{started:?}");
    });
    eprintln!("the stream stalled {stalled:?}");
    assert!(stalled < STALL, "stalled {stalled:?}");
    let mut newer_ones = running(&site, "node2", newer);
    newer_ones.sort();
    assert_eq!(newer_ones, ["agent", "plugin-keeper"]);
    // Nothing of the old one is left.
    until(
        "the old one's end",
        LIMIT,
        || running(&site, "node2", BINARY),
        Vec::is_empty,
    );
    site.docker("node2", "run --rm --network shop arpanet2-lab true");
    site.ok("node2", "reset");
    until(
        "its end",
        LIMIT,
        || running(&site, "node2", newer),
        Vec::is_empty,
    );
}
