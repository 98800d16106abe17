//! `--dns consul`: names of services are answered by consul itself, wherever they are asked for.

use std::time::Duration;

use crate::site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(30);

/// Two nodes that have consul answer, and a third that answers itself.
fn cluster(site: &Site) {
    site.ok("node1", "boot --dns consul 0.1 Apples");
    site.ok(
        "node2",
        &format!("server --dns consul 0.2 Apples 0.1 {SEED}"),
    );
    site.ok("node3", &format!("client 0.14 Apples 0.1 {SEED}"));
}

#[tokio::test]
async fn consul_answers_for_the_cluster_and_its_own_names() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    cluster(&site);
    let kinds = ["node1", "node2", "node3"].map(|host| site.status(host)["stack"]["dns"].clone());
    assert_eq!(kinds, ["consul", "consul", "watch"]);
    let told = site.ok("node1", "status");
    assert!(told.contains("DNS by consul"), "{told}");

    let web = format!(
        "run --net 10.1.0.0/16 --service web --port 80 --name w1 -- {BINARY} hello --port 80"
    );
    site.ok("node3", &web);
    let resolve = |host: &str, name: &str| site.arpanet2(host, &format!("resolve {name}")).out;
    let hosts = ["node1", "node2", "node3"];
    for host in hosts {
        let asked = || resolve(host, "web");
        until("the name is there", LIMIT, asked, |ip| {
            ip.starts_with("10.1.")
        });
    }
    let ip = resolve("node3", "web");
    for host in &hosts[..2] {
        for name in ["web", "web.service.consul", "web.service.dc1.consul"] {
            assert_eq!(resolve(host, name), ip, "{host}: {name}");
        }
        // A service of consul's own, which the cluster's catalogue leaves out.
        let servers = resolve(host, "consul.service.consul");
        let mut servers: Vec<&str> = servers.lines().collect();
        servers.sort_unstable();
        assert_eq!(servers, ["10.253.0.1", "10.253.0.2"], "{host}");
        // Nodes are what they are without it.
        for name in ["node3", "node3.node.consul"] {
            assert_eq!(resolve(host, name), "10.255.0.14", "{host}: {name}");
        }
    }
    assert_eq!(resolve("node3", "consul.service.consul"), "");

    site.ok("node2", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    for name in ["web", "web.service.consul"] {
        let fetch = format!("exec c1 -- {BINARY} fetch http://{name}/");
        assert_eq!(site.ok("node2", &fetch), "hello from w1", "{name}");
    }
    site.ok("node3", "rm w1");
    for host in hosts {
        let asked = || resolve(host, "web");
        until("its name is gone", LIMIT, asked, String::is_empty);
    }
    // It is the node's until it leaves.
    let agent = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    site.run("node2", &format!("kill -9 {agent}"));
    site.ok("node2", "start");
    assert_eq!(site.status("node2")["stack"]["dns"], "consul");
}

#[tokio::test]
async fn every_container_asks_consul_by_way_of_its_node_and_reaches_nothing_else_of_it() {
    let Some(site) = Site::up_with_docker_and_consul(2).await else {
        return;
    };
    site.ok("node1", "boot --dns consul 0.1 Apples");
    site.ok(
        "node2",
        &format!("client --dns consul 0.2 Apples 0.1 {SEED}"),
    );
    let container = |host: &str, name: &str, options: &str| {
        let line = format!("run -d --name {name} {options} arpanet2-lab sleep 3600");
        site.docker(host, &line);
    };
    let labels = "--label arpanet.net=10.1.0.0/16";
    container(
        "node1",
        "w1",
        &format!("{labels} --label arpanet.service=web"),
    );
    container("node2", "attached", labels);
    let bridge = site.run("node2", "ip -4 -o addr show docker0").out;
    let bridge = bridge.split_whitespace().nth(3).unwrap();
    let (bridge, _) = bridge.split_once('/').unwrap();
    container("node2", "plain", &format!("--dns {bridge}"));
    let inside =
        |name: &str, line: &str| site.run("node2", &format!("/usr/bin/docker exec {name} {line}"));
    let resolved = || site.arpanet2("node2", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| {
        ip.starts_with("10.1.")
    });
    let ip = resolved();
    for name in ["attached", "plain"] {
        for (asked, wanted) in [
            ("web", ip.as_str()),
            ("web.service.consul", &ip),
            ("consul.service.consul", "10.253.0.1"),
        ] {
            let ask = || inside(name, &format!("nslookup {asked}"));
            until(asked, LIMIT, ask, |answer| answer.out.contains(wanted));
        }
        let mut tries = String::new();
        for at in [
            "10.253.0.2",
            "10.253.0.1",
            "10.255.0.2",
            "169.254.1.1",
            bridge,
            "127.0.0.1",
        ] {
            for port in [8300, 8301, 8500, 8600] {
                tries += &format!("(nc -w 3 {at} {port} -e true && echo {at}:{port}) & ");
            }
        }
        let script = format!("{tries} wait");
        let tried = site.command(
            "node2",
            &["/usr/bin/docker", "exec", name, "sh", "-c", &script],
        );
        assert_eq!(tried.code, Some(0), "{name}: {tried:?}");
        assert_eq!(tried.out, "", "{name}: {tried:?}");
    }
    // The same tries succeed where they may.
    let host = site.run("node2", "busybox nc -w 2 10.253.0.2 8500 -e true");
    assert_eq!(host.code, Some(0), "{host:?}");
}
