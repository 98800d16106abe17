//! Docker's network driver over hosts: one network on every engine, and containers of plain docker clients in it.

use std::time::{Duration, Instant};

use crate::site::{BINARY, Site, until};

/// How long anything may take here: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

const CREATE: &str =
    "network create -d arpanet --ipam-driver arpanet --subnet 10.1.0.0/16 --label a=b shop";

fn networks(site: &Site, host: &str) -> String {
    let listed = "network ls --filter driver=arpanet --format {{.Name}}";
    site.docker(host, listed)
}

fn pings(site: &Site, host: &str, container: &str, to: &str) -> bool {
    let line = format!("/usr/bin/docker exec {container} ping -c1 -W1 {to}");
    site.run(host, &line).code == Some(0)
}

by_each_discovery!(
    a_network_is_on_every_engine_and_its_containers_on_the_overlay,
    up_with_docker,
    up_with_docker_and_consul,
    3,
    up_classic
);

async fn a_network_is_on_every_engine_and_its_containers_on_the_overlay(site: Site) {
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", "server 0.2 Apples 0.1 192.168.8.120");
    site.docker("node1", CREATE);
    let took = until(
        "a network",
        LIMIT,
        || networks(&site, "node2"),
        |names| names == "shop",
    );
    eprintln!("on the other engine after {took:?}");
    // Who joins later has it too.
    site.ok("node3", "client 0.14 Apples 0.1 192.168.8.120");
    until(
        "a network",
        LIMIT,
        || networks(&site, "node3"),
        |names| names == "shop",
    );
    let crossing = "network create -d arpanet --ipam-driver arpanet --subnet 10.1.7.0/24 bad";
    let refused = site.run("node3", &format!("/usr/bin/docker {crossing}"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("overlaps 10.1.0.0/16"), "{refused:?}");

    let first =
        "run -d --name c1 --network shop --network-alias db --ip 10.1.0.5 arpanet2-lab sleep 600";
    site.docker("node1", first);
    let second = "run -d --name c2 --network shop --restart always arpanet2-lab sleep 600";
    site.docker("node3", second);
    let address = "inspect -f {{.NetworkSettings.Networks.shop.IPAddress}} c2";
    let at = site.docker("node3", address);
    let took = until(
        "a ping",
        LIMIT,
        || pings(&site, "node1", "c1", &at),
        |up| *up,
    );
    eprintln!("reached from the other host after {took:?}");
    let back = || pings(&site, "node3", "c2", "10.1.0.5");
    until("a ping the other way", LIMIT, back, |up| *up);
    let resolve = || site.arpanet2("node2", "resolve db").out;
    until("an alias", LIMIT, resolve, |out| out == "10.1.0.5");
    for plane in ["10.255.0.1", "10.254.0.1", "10.255.0.14", "10.253.0.14"] {
        assert!(!pings(&site, "node1", "c1", plane), "{plane}");
    }
    let refused = site.run("node1", "/usr/bin/docker network rm shop");
    assert_eq!(refused.code, Some(1), "{refused:?}");

    // An agent that is killed, and one that is not there: containers go on, and can be removed.
    let pid = site.run("node1", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node1", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node1", "start");
    until(
        "a ping",
        LIMIT,
        || pings(&site, "node1", "c1", &at),
        |up| *up,
    );
    assert!(site.ok("node1", "ps").contains("10.1.0.5"));
    let pid = site.run("node1", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node1", &format!("kill -9 {pid}")).code, Some(0));
    site.docker("node1", "rm -f c1");
    site.ok("node1", "start");
    until(
        "a ping",
        LIMIT,
        || pings(&site, "node3", "c2", "10.1.0.5"),
        |up| !up,
    );

    // A host that was without power has its containers back, whichever of engine and agent is there first.
    site.lab.kill("node3").await.unwrap();
    let began = Instant::now();
    std::thread::scope(|threads| {
        let power = threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                site.lab.start("node3").await.unwrap();
                site.lab.start_docker("node3").await.unwrap();
            });
        });
        // Its engine starts with it, and answers nobody until its containers are back.
        let start = || site.lab.output("node3", &[BINARY, "start"]);
        let started = |output: &Result<std::process::Output, _>| {
            output.as_ref().is_ok_and(|output| output.status.success())
        };
        until("the agent", LIMIT, start, started);
        power.join().unwrap();
    });
    eprintln!("engine and agent are back after {:?}", began.elapsed());
    let at = site.docker("node3", address);
    site.docker("node1", first);
    until(
        "a ping",
        LIMIT,
        || pings(&site, "node1", "c1", &at),
        |up| *up,
    );

    site.docker("node3", "rm -f c2");
    site.docker("node1", "rm -f c1");
    site.docker("node2", "network rm shop");
    for host in ["node1", "node3"] {
        until(
            "no network",
            LIMIT,
            || networks(&site, host),
            String::is_empty,
        );
    }
    site.docker("node2", CREATE);
    for host in ["node1", "node2", "node3"] {
        site.ok(host, "reset");
        assert_eq!(networks(&site, host), "", "{host}");
        let files = site.run(
            host,
            "ls /var/lib/arpanet2 /run/arpanet2 /run/docker/plugins",
        );
        assert_eq!(files.out, "", "{host}");
    }
}
