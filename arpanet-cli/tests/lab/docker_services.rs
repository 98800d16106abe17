//! Containers that any docker client starts: their labels say what they want of the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::site::{Outcome, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// A client of docker's starts an instance of `web`.
fn start_web(site: &Site, host: &str, name: &str) {
    let labels =
        "--label arpanet.net=10.1.0.0/16 --label arpanet.service=web --label arpanet.port=80";
    site.docker(
        host,
        &format!("run -d --name {name} {labels} arpanet2-lab httpd -f -p 80 -h /bin"),
    );
}

/// A client of docker's starts a container that only waits, with these options.
fn start_idle(site: &Site, host: &str, name: &str, options: &str) {
    site.docker(
        host,
        &format!("run -d --name {name} {options} arpanet2-lab sleep 3600"),
    );
}

fn web(site: &Site, host: &str) -> Vec<String> {
    let resolved = site.arpanet2(host, "resolve web");
    resolved.out.lines().map(str::to_owned).collect()
}

/// Runs a command line in a container.
fn inside(site: &Site, host: &str, name: &str, line: &str) -> Outcome {
    site.run(host, &format!("/usr/bin/docker exec {name} {line}"))
}

/// Waits until a container has an address in this network, as `10.1.`.
fn attached(site: &Site, host: &str, name: &str, prefix: &str) {
    let addresses = || inside(site, host, name, "ip -4 -o addr").out;
    until(name, LIMIT, addresses, |shown| {
        shown.contains(&format!("inet {prefix}"))
    });
}

by_each_discovery!(
    labels_of_any_client_make_services_that_come_and_go_with_their_containers,
    up_with_docker,
    up_with_docker_and_consul,
    3,
    up_classic
);

async fn labels_of_any_client_make_services_that_come_and_go_with_their_containers(site: Site) {
    site.cluster();
    let count = |host: &'static str, wanted: usize| {
        until(
            &format!("{wanted} instances on {host}"),
            LIMIT,
            || web(&site, host),
            move |web| web.len() == wanted,
        )
    };
    start_web(&site, "node3", "w1");
    count("node2", 1);

    start_idle(&site, "node2", "c1", "--label arpanet.net=10.1.0.0/16");
    attached(&site, "node2", "c1", "10.1.");
    let at = web(&site, "node2").remove(0);
    let asked = inside(
        &site,
        "node2",
        "c1",
        "nslookup web.service.consul 169.254.1.1",
    );
    assert!(asked.out.contains(&at), "{asked:?}");
    let fetched = inside(
        &site,
        "node2",
        "c1",
        &format!("wget -qO /tmp/b http://{at}/busybox"),
    );
    assert_eq!(fetched.code, Some(0), "{fetched:?}");

    // Ten over three hosts: all in every answer, each first in its turn.
    for number in 2..=10 {
        let host = ["node1", "node2", "node3"][number % 3];
        start_web(&site, host, &format!("w{number}"));
    }
    for host in ["node1", "node2", "node3"] {
        count(host, 10);
    }
    let first: BTreeSet<String> = (0..20).map(|_| web(&site, "node2").remove(0)).collect();
    assert!(first.len() > 1, "always {first:?}");

    site.docker("node1", "kill w3");
    let gone = count("node2", 9);
    eprintln!("killed, and out of DNS after {gone:?}");
    site.docker("node1", "start w3");
    count("node2", 10);

    // Pulling the plug takes those of that host, and no others.
    site.lab.cut("node3", None).await.unwrap();
    count("node2", 6);
    site.lab.heal(None).await.unwrap();
    count("node2", 10);

    // A drained node's containers go on, and get no traffic, also after its agent was killed.
    site.ok("node3", "register api --port 8080");
    let api = || site.arpanet2("node2", "resolve api").out;
    until("an instance by hand", LIMIT, api, |found| !found.is_empty());
    site.ok("node1", "drain 0.14");
    count("node2", 6);
    until("none of it when drained", LIMIT, api, String::is_empty);
    let pid = site.run("node3", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node3", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node3", "start");
    assert_eq!(web(&site, "node2").len(), 6);
    assert_eq!(api(), "");
    // Nor does one come in that is registered while it is drained.
    site.ok("node3", "register late --port 8081");
    assert_eq!(site.arpanet2("node2", "resolve late").out, "");
    assert_eq!(site.status("node1")["nodes"][2]["drained"], true);
    site.ok("node2", "undrain 0.14");
    count("node1", 10);
    for name in ["api", "late"] {
        let found = || site.arpanet2("node2", &format!("resolve {name}")).out;
        until(name, LIMIT, found, |found| found == "10.255.0.14");
    }

    // What was made by others is theirs: detached, and left as it is.
    for host in ["node1", "node2", "node3"] {
        site.ok(host, "reset");
    }
    assert_eq!(site.docker("node3", "ps -q").lines().count(), 4);
    let links = inside(&site, "node3", "w1", "ip -o link").out;
    assert_eq!(links.lines().count(), 2, "{links}");
}

#[tokio::test]
async fn a_container_reaches_its_own_network_and_nothing_else_of_the_cluster() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    site.cluster();
    start_web(&site, "node1", "w1");
    start_idle(
        &site,
        "node2",
        "evil",
        "--cap-add NET_ADMIN --label arpanet.net=10.2.0.0/16",
    );
    attached(&site, "node2", "evil", "10.2.");
    until("web", LIMIT, || web(&site, "node2"), |web| web.len() == 1);
    let served = web(&site, "node2").remove(0);

    // They are there, for those who may.
    for node in ["10.254.0.1", "10.254.0.2"] {
        site.docker("node2", &format!("-H tcp://{node}:2375 version"));
    }
    start_idle(&site, "node2", "c1", "--label arpanet.net=10.1.0.0/16");
    attached(&site, "node2", "c1", "10.1.");
    let fetch = format!("timeout 3 wget -qO /dev/null http://{served}/busybox");
    let fetched = inside(&site, "node2", "c1", &fetch);
    assert_eq!(fetched.code, Some(0), "{fetched:?}");

    // As it is; with ways of its own through docker's bridge; and through the router.
    let bridge = "ip route replace 10.0.0.0/8 via 172.17.0.1";
    let router = "ip route replace 10.0.0.0/8 via 169.254.1.1";
    for way in ["true", bridge, router] {
        let made = inside(&site, "node2", "evil", way);
        assert!(made.code == Some(0) || way == router, "{way}: {made:?}");
        for at in [
            "10.254.0.1:2375/version",
            "10.254.0.2:2375/version",
            "10.255.0.1:2375/version",
            "10.255.0.2:2375/version",
            "192.168.8.120:2375/version",
            "192.168.8.121:2375/version",
            "172.17.0.1:2375/version",
            &format!("{served}/busybox"),
        ] {
            let tried = inside(
                &site,
                "node2",
                "evil",
                &format!("timeout 3 wget -qO /dev/null http://{at}"),
            );
            assert_ne!(tried.code, Some(0), "{way}: {at}: {tried:?}");
        }
        for ip in ["10.255.0.1", "10.253.0.1", "10.253.0.2", "10.254.0.2"] {
            let tried = inside(&site, "node2", "evil", &format!("ping -c1 -W2 {ip}"));
            assert_ne!(tried.code, Some(0), "{way}: {ip}: {tried:?}");
        }
    }
}
