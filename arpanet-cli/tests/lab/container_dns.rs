//! Whom containers ask for names, whichever client starts them, in a lab whose engines have no `--dns` of their own.

use std::time::Duration;

use crate::site::{Outcome, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

const WEB: &str = "run -d --name w1 --label arpanet.net=10.1.0.0/16 --label arpanet.service=web --label arpanet.port=80 arpanet2-lab httpd -f -p 80 -h /bin";

/// A client of docker's starts a container that only waits, with these options.
fn start(site: &Site, host: &str, name: &str, options: &str) {
    let line = format!("run -d --name {name} {options} arpanet2-lab sleep 3600");
    site.docker(host, &line.replace("  ", " "));
}

/// Runs a command line in a container.
fn inside(site: &Site, host: &str, name: &str, line: &str) -> Outcome {
    site.run(host, &format!("/usr/bin/docker exec {name} {line}"))
}

/// What counts of a container's resolv.conf.
fn resolver(site: &Site, host: &str, name: &str) -> Vec<String> {
    let text = inside(site, host, name, "cat /etc/resolv.conf").out;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Waits until a container asks this server, and no other.
fn asks(site: &Site, host: &str, name: &str, server: &str) {
    let wanted = [format!("nameserver {server}")];
    let servers = || -> Vec<String> {
        let lines = resolver(site, host, name).into_iter();
        lines
            .filter(|line| line.starts_with("nameserver"))
            .collect()
    };
    until(name, LIMIT, servers, |servers| *servers == wanted);
}

/// Waits until a name is answered with this in a container that asks whom it is told to.
fn resolves(site: &Site, host: &str, name: &str, asked: &str, wanted: &str) {
    let line = format!("nslookup {asked}");
    let ask = || inside(site, host, name, &line);
    until(&line, LIMIT, ask, |answer| answer.out.contains(wanted));
}

/// How long after its start a container's resolv.conf was rewritten, by the engine's clock and the file's.
fn delay(site: &Site, host: &str, name: &str) -> Duration {
    let line = format!("inspect -f {{{{.State.StartedAt}}}},{{{{.ResolvConfPath}}}} {name}");
    let shown = site.docker(host, &line);
    let (started, file) = shown.split_once(',').unwrap();
    let seconds = |words: &[&str]| -> f64 { site.command(host, words).out.parse().unwrap() };
    let started = seconds(&["date", "-d", started, "+%s.%N"]);
    let written = seconds(&["stat", "-c", "%.9Y", file]);
    Duration::from_secs_f64((written - started).max(0.0))
}

#[tokio::test]
async fn containers_of_local_clients_ask_the_cluster_from_every_start_on() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    site.cluster();
    site.docker("node3", WEB);
    start(&site, "node2", "plain", "");
    let before = resolver(&site, "node2", "plain");
    start(&site, "node2", "c1", "--label arpanet.net=10.1.0.0/16");
    asks(&site, "node2", "c1", "169.254.1.1");
    let fetch = "wget -qO /tmp/b http://web/busybox";
    let fetched = || inside(&site, "node2", "c1", fetch);
    until("web", LIMIT, fetched, |fetched| fetched.code == Some(0));
    let full = inside(&site, "node2", "c1", "ping -c1 web.service.consul");
    assert_eq!(full.code, Some(0), "{full:?}");

    // Docker writes the file anew at each start.
    let mut delays = Vec::new();
    for _ in 0..20 {
        site.docker("node2", "restart -t 0 c1");
        asks(&site, "node2", "c1", "169.254.1.1");
        delays.push(delay(&site, "node2", "c1"));
    }
    delays.sort();
    eprintln!(
        "resolv.conf is rewritten {:?} after the start, at most {:?}, of {} starts",
        delays[delays.len() / 2],
        delays[delays.len() - 1],
        delays.len()
    );
    assert!(delays[0] > Duration::ZERO && delays[10] < Duration::from_secs(1));
    resolves(&site, "node2", "c1", "web", "10.1.");

    // What its user said stays.
    let label = "--label arpanet.net=10.1.0.0/16";
    start(&site, "node2", "off", &format!("--network none {label}"));
    asks(&site, "node2", "off", "169.254.1.1");
    start(
        &site,
        "node2",
        "searching",
        &format!("--dns-search example.com {label}"),
    );
    asks(&site, "node2", "searching", "169.254.1.1");
    let lines = resolver(&site, "node2", "searching");
    let search = "search example.com service.consul".to_owned();
    assert!(lines.contains(&search), "{lines:?}");
    start(
        &site,
        "node2",
        "own",
        &format!("--dns 192.168.8.121 {label}"),
    );
    site.docker("node2", "network create mine");
    start(&site, "node2", "mine", &format!("--network mine {label}"));
    for (name, server) in [("own", "192.168.8.121"), ("mine", "127.0.0.11")] {
        let addresses = || inside(&site, "node2", name, "ip -4 -o addr").out;
        until(name, LIMIT, addresses, |shown| shown.contains("inet 10.1."));
        asks(&site, "node2", name, server);
    }

    // One that any client made is attached by hand, and detached.
    let at = site.ok("node2", "attach plain 10.1.0.0/16");
    asks(&site, "node2", "plain", "169.254.1.1");
    let ip = at.split('/').next().unwrap();
    site.ok("node2", &format!("detach plain {ip}"));
    let lines = || resolver(&site, "node2", "plain");
    until("what it had", LIMIT, lines, |lines| *lines == before);

    // While no agent is there; and when it is gone for good.
    let pid = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node2", &format!("kill -9 {pid}")).code, Some(0));
    site.docker("node2", "restart -t 0 c1");
    assert_eq!(resolver(&site, "node2", "c1"), before);
    site.ok("node2", "start");
    asks(&site, "node2", "c1", "169.254.1.1");
    site.ok("node2", "reset");
    for name in ["c1", "off"] {
        assert_eq!(resolver(&site, "node2", name), before, "{name}");
    }
    start(&site, "node3", "c3", label);
    asks(&site, "node3", "c3", "169.254.1.1");
    let pid = site.run("node3", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node3", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node3", "reset");
    assert_eq!(resolver(&site, "node3", "c3"), before);
}

#[tokio::test]
async fn containers_that_are_not_attached_ask_at_dockers_bridge() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    // node3's bridge has another server.
    let server = "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('172.17.0.1',53))\ntime.sleep(3600)";
    let python = site.lab.command("node3", 0, &["python3", "-c", server]);
    let mut other = python.unwrap().spawn().unwrap();
    site.cluster();
    site.docker("node3", WEB);

    // Over the docker API of the node: named at the creation.
    let api = |node: &str, line: &str| {
        site.docker("node1", &format!("-H tcp://10.254.{node}:2375 {line}"))
    };
    let run = "run -d --name plain arpanet2-lab sleep 3600";
    let served = || site.arpanet2("node2", "doctor").out;
    until("the bridge of node2", LIMIT, served, |out| {
        out.contains("DNS is served at docker's bridge 172.17.0.1")
    });
    api("0.2", run);
    assert_eq!(
        resolver(&site, "node2", "plain"),
        ["search service.consul", "nameserver 172.17.0.1"]
    );
    resolves(&site, "node2", "plain", "web", "10.1.");
    resolves(
        &site,
        "node2",
        "plain",
        "web.service.consul 172.17.0.1",
        "10.1.",
    );
    // Names are told; the way is another matter.
    let fetch = "timeout 3 wget -qO /dev/null http://web/busybox";
    let fetched = inside(&site, "node2", "plain", fetch);
    assert_ne!(fetched.code, Some(0), "{fetched:?}");

    // Where somebody has the port: told by name, and nothing fails for it.
    let log = || site.run("node3", "cat /var/lib/arpanet2/agent.log").out;
    until("a word of it", LIMIT, log, |log| {
        log.contains("DNS can't serve docker's bridge: python3 (process ")
    });
    let told = site.arpanet2("node3", "doctor").out;
    assert!(
        told.contains("note dns: port 53 at docker's bridge 172.17.0.1 is held by python3"),
        "{told}"
    );
    api("0.14", run);
    let lines = resolver(&site, "node3", "plain");
    assert!(
        !lines.contains(&"nameserver 172.17.0.1".to_owned()),
        "{lines:?}"
    );
    let pid = told.split("python3 (process ").nth(1).unwrap();
    let pid = pid.split(')').next().unwrap();
    assert_eq!(site.run("node3", &format!("kill -9 {pid}")).code, Some(0));
    other.wait().unwrap();
    api("0.14", "rm -f plain");
    let served = || site.arpanet2("node3", "doctor").out;
    until("the bridge of node3", LIMIT, served, |out| {
        out.contains("DNS is served at docker's bridge")
    });
    api("0.14", run);
    resolves(&site, "node3", "plain", "web", "10.1.");
}

#[tokio::test]
async fn names_on_a_network_of_the_driver_are_known_on_every_host() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    site.cluster();
    site.docker(
        "node1",
        "network create -d arpanet --ipam-driver arpanet --subnet 10.1.0.0/16 shop",
    );
    let hosts = ["node1", "node2", "node3"];
    for host in hosts {
        let listed = || site.docker(host, "network ls --filter driver=arpanet -q");
        until("the network", LIMIT, listed, |ids| !ids.is_empty());
    }
    let service = |name: &str| {
        format!("  {name}:\n    image: arpanet2-lab\n    command: httpd -f -p 80 -h /bin\n")
    };
    let services: String = ["front", "back", "store"].map(service).concat();
    let text = format!(
        "version: '2.4'\nservices:\n{services}networks:\n  default:\n    external: true\n    name: shop\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("docker-compose.yml");
    std::fs::write(&file, text).unwrap();
    // One service of the file on each host.
    let placed = [("node1", "front"), ("node2", "back"), ("node3", "store")];
    for (host, service) in placed {
        let up = format!(
            "env DOCKER_HOST=unix:///var/run/docker.sock /usr/bin/docker-compose -p proj -f {} up -d --no-deps {service}",
            file.display()
        );
        let outcome = site.run(host, &up);
        assert_eq!(outcome.code, Some(0), "{host}: {outcome:?}");
    }
    let at = |host: &str, container: &str| {
        let format = "{{.NetworkSettings.Networks.shop.IPAddress}}";
        site.docker(host, &format!("inspect -f {format} {container}"))
    };
    let addresses = placed.map(|(host, service)| at(host, &format!("proj_{service}_1")));
    for (host, service) in placed {
        let container = format!("proj_{service}_1");
        asks(&site, host, &container, "169.254.1.1");
        for ((_, other), ip) in placed.iter().zip(&addresses) {
            resolves(&site, host, &container, other, ip);
            resolves(&site, host, &container, &format!("proj_{other}_1"), ip);
            let fetch = format!("wget -qO /dev/null http://{other}/busybox");
            let fetched = inside(&site, host, &container, &fetch);
            assert_eq!(fetched.code, Some(0), "{host}: {other}: {fetched:?}");
        }
    }

    // A plain container by its name, as by its alias; and its names go with it.
    start(
        &site,
        "node2",
        "Cache",
        "--network shop --network-alias memory",
    );
    let cache = at("node2", "Cache");
    for name in ["cache", "memory", "memory.service.consul"] {
        resolves(&site, "node1", "proj_front_1", name, &cache);
    }
    site.docker("node2", "rm -f Cache");
    let ask = || inside(&site, "node1", "proj_front_1", "nslookup memory");
    until("no memory", LIMIT, ask, |answer| {
        !answer.out.contains(&cache)
    });

    // Names of another network are another's.
    site.docker(
        "node3",
        "network create -d arpanet --ipam-driver arpanet --subnet 10.2.0.0/16 other",
    );
    start(
        &site,
        "node3",
        "both",
        "--network other --network-alias front",
    );
    site.docker("node3", "network connect --alias front2 shop both");
    let (in_shop, in_other) = (at("node3", "both"), {
        let format = "{{.NetworkSettings.Networks.other.IPAddress}}";
        site.docker("node3", &format!("inspect -f {format} both"))
    });
    resolves(&site, "node1", "proj_front_1", "front2", &in_shop);
    let front = inside(&site, "node1", "proj_front_1", "nslookup front").out;
    assert!(
        front.contains(&addresses[0]) && !front.contains(&in_shop) && !front.contains(&in_other),
        "{front}"
    );
    asks(&site, "node3", "both", "169.254.1.1");

    let shown = site.ok("node2", "networks");
    for words in [
        ["shop", "10.1.0.0/16", "docker"],
        ["other", "10.2.0.0/16", "docker"],
    ] {
        let line = shown.lines().find(|line| line.starts_with(words[0]));
        let line = line.unwrap_or_else(|| panic!("{shown}"));
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}
