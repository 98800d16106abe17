//! What only a cluster with consul has.

use std::time::Duration;

use crate::site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(30);

/// The process id of a host's consul.
pub(crate) fn consul_of(site: &Site, host: &str) -> i64 {
    let file = "/var/lib/arpanet2/consul/process.json";
    let text = site.run(host, &format!("cat {file}")).out;
    let process: serde_json::Value = serde_json::from_str(&text).unwrap();
    process["pid"].as_i64().unwrap()
}

#[tokio::test]
async fn the_hosts_share_a_key_value_store_and_its_locks() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    site.cluster();
    site.ok("node1", "kv put paas/web one");
    assert_eq!(site.ok("node3", "kv get paas/web"), "one");
    assert_eq!(site.ok("node2", "kv ls paas/"), "paas/web");
    let entry: serde_json::Value =
        serde_json::from_str(&site.ok("node2", "kv get --json paas/web")).unwrap();
    let revision = entry["revision"].as_u64().unwrap();
    site.ok("node3", &format!("kv put --expect {revision} paas/web two"));
    let late = site.arpanet2(
        "node2",
        &format!("kv put --expect {revision} paas/web three"),
    );
    assert_eq!(late.code, Some(1), "{late:?}");
    assert_eq!(site.ok("node1", "kv get paas/web"), "two");
    site.ok("node1", "kv del paas/web");
    let gone = site.arpanet2("node2", "kv get paas/web");
    assert_eq!(gone.code, Some(1), "{gone:?}");
    let fencing = |host: &str| -> u64 {
        let told = site.ok(host, "kv lock paas/leader -- printenv ARPANET2_FENCING");
        told.parse().unwrap()
    };
    let first = fencing("node3");
    assert!(fencing("node2") > first);

    // The program itself, at this node's own agent, and its port on the loopback.
    let members = site.ok("node3", "consul -- members");
    let alive = members.lines().filter(|line| line.contains("alive"));
    assert_eq!(alive.count(), 3, "{members}");
    let raft = site.ok("node1", "consul -- operator raft list-peers");
    assert_eq!(raft.matches(":8300").count(), 2, "{raft}");
    let leader = format!("{BINARY} fetch http://127.0.0.1:8500/v1/status/leader");
    let leader = site.run("node3", &leader);
    assert!(leader.out.contains(":8300"), "{leader:?}");
    let advice = site.ok("node1", "status");
    assert!(advice.contains("three or five are recommended"), "{advice}");
}

/// What becomes of a connection of a host to one of its own ports: `refused`, `open` for a second, or `closed` by the other side.
fn connection(site: &Site, host: &str, port: u16) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port} || exit; read -t 1 -u 3; (($? > 128)) && echo open || echo closed"
    );
    let outcome = site.command(host, &["bash", "-c", &script]);
    match outcome.err.contains("refused") {
        true => "refused".to_owned(),
        false => outcome.out,
    }
}

#[tokio::test]
async fn consuls_ports_are_at_the_loopback_but_for_dns() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    // Somebody else has one of them, for a while, but for datagrams.
    let other = format!("{BINARY} hello --port 8301 >/dev/null 2>&1 & echo $!");
    let pid = site.command("node1", &["sh", "-c", &other]).out;
    let taken = || connection(&site, "node1", 8301);
    until("the other serves", LIMIT, taken, |it| it == "open");
    site.cluster();
    let log = site.log("node1");
    let told = format!("tcp 127.0.0.1:8301 is in use by arpanet2 (process {pid})");
    assert!(log.contains(&told), "{log}");
    for host in ["node1", "node2", "node3"] {
        let leader = format!("{BINARY} fetch http://127.0.0.1:8500/v1/status/leader");
        let leader = site.run(host, &leader);
        assert!(leader.out.contains(":8300"), "{host}: {leader:?}");
    }
    // A server's agent waits for the first byte of a request, and a client has no such port.
    for (host, port, wanted) in [
        ("node2", 8300, "open"),
        ("node2", 8301, "open"),
        ("node2", 8600, "refused"),
        ("node3", 8300, "refused"),
        ("node3", 8301, "open"),
    ] {
        assert_eq!(connection(&site, host, port), wanted, "{host}: {port}");
    }
    // What is sent to it by UDP is read by consul, who does not believe it.
    for host in ["node1", "node3"] {
        let said = "echo nothing that is sealed >/dev/udp/127.0.0.1/8301; cat /var/lib/arpanet2/consul/log/*";
        let heard = || site.command(host, &["bash", "-c", said]).out;
        until("consul heard it", LIMIT, heard, |log| {
            log.contains("Decrypt packet failed")
        });
    }
    site.run("node1", &format!("kill {pid}"));
    let refused = || connection(&site, "node1", 8301);
    until("the port is free", LIMIT, refused, |it| it != "closed");
    until("it is taken", LIMIT, refused, |it| it == "open");
    site.ok("node3", "stop");
    assert_eq!(connection(&site, "node3", 8301), "refused");
}

#[tokio::test]
async fn no_container_reaches_consul() {
    let Some(site) = Site::up_with_consul(2).await else {
        return;
    };
    site.cluster();
    site.ok("node1", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let ports = [8300, 8301, 8500, 8600];
    let tries = |addresses: &[&str]| {
        let mut tries = String::new();
        for at in addresses {
            for port in ports {
                tries += &format!("(busybox nc -w 3 {at} {port} -e true && echo {at}:{port}) & ");
            }
        }
        format!("{tries} wait")
    };
    let script = tries(&[
        "10.253.0.1",
        "10.253.0.2",
        "10.255.0.1",
        "10.254.0.1",
        "169.254.1.1",
        "127.0.0.1",
    ]);
    let exec = [BINARY, "exec", "c1", "--", "sh", "-c", &script];
    let reached = site.command("node1", &exec);
    assert_eq!(reached.code, Some(0), "{reached:?}");
    assert_eq!(reached.out, "", "{reached:?}");
    // The host does, by the same tries.
    let script = tries(&["10.253.0.1", "10.253.0.2"]);
    let reached = site.command("node1", &["sh", "-c", &script]);
    assert_eq!(reached.out.lines().count(), 2 * ports.len(), "{reached:?}");
}

#[tokio::test]
async fn consul_is_started_again_and_outlives_the_agent() {
    let Some(site) = Site::up_with_consul(2).await else {
        return;
    };
    site.cluster();
    site.ok("node2", "register web --port 80");
    let resolved = || site.arpanet2("node1", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| {
        ip == "10.255.0.2"
    });
    let before = consul_of(&site, "node2");
    site.run("node2", &format!("kill -9 {before}"));
    until(
        "another consul",
        LIMIT,
        || consul_of(&site, "node2"),
        |now| *now != before,
    );
    until("the name is there", LIMIT, resolved, |ip| {
        ip == "10.255.0.2"
    });
    let put = || site.arpanet2("node2", "kv put k v").code;
    until("it takes values again", LIMIT, put, |code| *code == Some(0));

    let kept = consul_of(&site, "node2");
    let agent = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    site.run("node2", &format!("kill -9 {agent}"));
    site.ok("node2", "start");
    assert_eq!(consul_of(&site, "node2"), kept);
    until("the name is there", LIMIT, resolved, |ip| {
        ip == "10.255.0.2"
    });
}

#[tokio::test]
async fn what_keeps_a_node_from_having_consul_is_said() {
    let Some(site) = Site::up_with_consul(2).await else {
        return;
    };
    // A consul of the host's own, which is left as it is.
    let program = crate::site::consul().unwrap();
    let begin = format!(
        "{} agent -dev -bind 192.168.8.120 >/dev/null 2>&1 & echo $!",
        program.display()
    );
    let pid = site.command("node1", &["sh", "-c", &begin]).out;
    let leads = format!("{BINARY} fetch http://127.0.0.1:8500/v1/status/leader");
    let leader = || site.run("node1", &leads).out;
    until("it leads itself", LIMIT, leader, |leader| {
        leader.contains(":8300")
    });
    let told = format!("TCP port 8500 is in use by consul (process {pid})");
    let refused = site.arpanet2("node1", "boot 0.1 Apples");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains(&told), "{refused:?}");
    assert!(refused.err.contains("--discovery gossip"), "{refused:?}");
    assert!(leader().contains(":8300"));
    site.run("node1", &format!("kill {pid}"));
    let gone = || site.run("node1", &format!("test -e /proc/{pid}")).code;
    until("it is gone", LIMIT, gone, |code| *code == Some(1));
    // Nor is anybody else's port taken.
    let other = format!("{BINARY} hello --port 8500 >/dev/null 2>&1 & echo $!");
    let pid = site.command("node1", &["sh", "-c", &other]).out;
    let taken = || connection(&site, "node1", 8500);
    until("the other serves", LIMIT, taken, |it| it == "open");
    let refused = site.arpanet2("node1", "boot 0.1 Apples");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let told = format!("TCP port 8500 is in use by arpanet2 (process {pid})");
    assert!(refused.err.contains(&told), "{refused:?}");
    site.run("node1", &format!("kill {pid}"));

    let settings = "discovery = \"consul\"\nconsul = \"/nowhere/consul\"\n";
    let script = format!("printf '%s' '{settings}' > /etc/arpanet2/other.toml");
    site.command("node1", &["sh", "-c", &script]);
    let missing = site.arpanet2("node1", "boot --config /etc/arpanet2/other.toml 0.1 Apples");
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.err.contains("/nowhere/consul"), "{missing:?}");
    assert!(missing.err.contains("hint: install consul"), "{missing:?}");
    let left = site.run("node1", "ls /var/lib/arpanet2 /run/arpanet2");
    assert_eq!(left.out, "", "{left:?}");

    // A cluster and a node that don't agree.
    until(
        "boots",
        LIMIT,
        || site.arpanet2("node1", "boot 0.1 Apples"),
        |it| it.code == Some(0),
    );
    let gossip = site.run(
        "node2",
        &format!("{BINARY} server --discovery gossip 0.2 Apples 0.1 {SEED}"),
    );
    assert_eq!(gossip.code, Some(1), "{gossip:?}");
    assert!(gossip.err.contains("the cluster's is consul"), "{gossip:?}");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
}

/// Three servers, with an entry and a service.
pub(crate) async fn three_servers() -> Option<Site> {
    let site = Site::up_with_consul(3).await?;
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    site.ok("node3", &format!("server 0.3 Apples 0.1 {SEED}"));
    site.ok("node2", "kv put paas/web one");
    site.ok("node1", "register web --port 80");
    Some(site)
}

/// Which host's consul leads, and how many are in raft, as a host's own consul knows it.
pub(crate) fn raft(site: &Site, host: &str) -> (Option<String>, usize) {
    let peers = site
        .arpanet2(host, "consul -- operator raft list-peers")
        .out;
    let peers: Vec<&str> = peers
        .lines()
        .filter(|line| line.contains(":8300"))
        .collect();
    let leads = |line: &&&str| line.contains(" leader ");
    let name = peers
        .iter()
        .find(leads)
        .and_then(|line| line.split(' ').next());
    (name.map(str::to_owned), peers.len())
}

/// Consul gives a server its vote once it has been well for ten seconds.
pub(crate) fn three_votes(site: &Site) {
    let voters = || {
        let peers = site.arpanet2("node1", "consul -- operator raft list-peers");
        peers.out.matches(" true ").count()
    };
    until("three votes", LIMIT, voters, |votes| *votes == 3);
}

#[tokio::test]
async fn three_servers_without_power_come_back_as_one_in_every_order() {
    let Some(site) = three_servers().await else {
        return;
    };
    let hosts = ["node1", "node2", "node3"];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        for host in hosts {
            site.lab.kill(host).await.unwrap();
        }
        for host in order.map(|at| hosts[at]) {
            site.lab.start(host).await.unwrap();
            site.ok(host, "start");
        }
        for host in hosts {
            let value = || site.arpanet2(host, "kv get paas/web").out;
            until("the entry is there", LIMIT, value, |value| value == "one");
            let name = || site.arpanet2(host, "resolve web").out;
            until("the name is there", LIMIT, name, |ip| ip == "10.255.0.1");
        }
        let seen = || hosts.map(|host| raft(&site, host));
        until("one leader of three", LIMIT, seen, |seen| {
            let [(first, _), ..] = seen;
            first.is_some()
                && seen
                    .iter()
                    .all(|(leader, peers)| leader == first && *peers == 3)
        });
    }
}

#[tokio::test]
async fn names_are_answered_while_consul_has_no_leader() {
    let Some(site) = three_servers().await else {
        return;
    };
    let frozen = ["node1", "node2"].map(|host| (host, consul_of(&site, host)));
    let signal = |signal: &str| {
        for (host, consul) in frozen {
            site.run(host, &format!("kill -{signal} {consul}"));
        }
    };
    signal("STOP");
    let stale = || site.status("node3")["stale"].as_bool();
    until("it is told", LIMIT, stale, |stale| *stale == Some(true));
    let asked = site.arpanet2("node3", "resolve web");
    assert_eq!(asked.out, "10.255.0.1", "{asked:?}");
    let refused = site.arpanet2("node3", "kv put paas/web two");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("leader"), "{refused:?}");
    assert!(refused.err.contains("hint: "), "{refused:?}");
    signal("CONT");
    let put = || site.arpanet2("node3", "kv put paas/web two").code;
    until("it takes values", LIMIT, put, |code| *code == Some(0));
    until("it is back", LIMIT, stale, |stale| *stale == Some(false));
    assert_eq!(site.ok("node1", "kv get paas/web"), "two");
}

#[tokio::test]
async fn another_server_leads_when_the_leader_dies() {
    let Some(site) = three_servers().await else {
        return;
    };
    three_votes(&site);
    let leader = raft(&site, "node1").0.unwrap();
    let others = ["node1", "node2", "node3"];
    let witness = *others.iter().find(|host| **host != leader).unwrap();
    site.lab.kill(&leader).await.unwrap();
    let put = || site.arpanet2(witness, "kv put paas/web two").code;
    until("it takes values", LIMIT, put, |code| *code == Some(0));
    site.lab.start(&leader).await.unwrap();
    site.ok(&leader, "start");
    let value = || site.arpanet2(&leader, "kv get paas/web").out;
    until("the entry is there", LIMIT, value, |value| value == "two");
    let name = || site.arpanet2(witness, "resolve web").out;
    until("the name is there", LIMIT, name, |ip| ip == "10.255.0.1");
}
