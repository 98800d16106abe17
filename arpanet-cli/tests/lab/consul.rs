//! What only a cluster with consul has.

use std::time::Duration;

use crate::site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(30);

/// The process id of a host's consul.
fn consul_of(site: &Site, host: &str) -> i64 {
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

#[tokio::test]
async fn no_container_reaches_consul() {
    let Some(site) = Site::up_with_consul(2).await else {
        return;
    };
    site.cluster();
    site.ok("node1", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    for at in [
        "10.253.0.1",
        "10.253.0.2",
        "10.255.0.1",
        "10.254.0.1",
        "127.0.0.1",
    ] {
        let fetch = format!("exec c1 -- {BINARY} fetch http://{at}:8500/v1/status/leader");
        let outcome = site.arpanet2("node1", &fetch);
        assert_eq!(outcome.code, Some(1), "{at}: {outcome:?}");
    }
    let from_host = format!("{BINARY} fetch http://10.253.0.2:8500/v1/status/leader");
    let outcome = site.run("node1", &from_host);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
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
    // Another consul, or whatever it is, at its port.
    let other = format!("{BINARY} hello --port 8500 >/dev/null 2>&1 & echo $!");
    let pid = site.command("node1", &["sh", "-c", &other]).out;
    let refused = || site.arpanet2("node1", "boot 0.1 Apples");
    until("the port is told to be in use", LIMIT, refused, |it| {
        it.code == Some(1) && it.err.contains("TCP port 8500 is in use by")
    });
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
