//! Consul's gossip follows the cluster's key, wherever that turns.

use std::time::Duration;

use crate::consul::consul_of;
use crate::site::{Site, until};

/// Until a dead node is dead for consul too, a key has stood for its time, and those before it are dropped.
const LIMIT: Duration = Duration::from_secs(90);

/// The keys of consul's gossip, each with who has it, as consul writes that: `[2/3]`.
fn keys(site: &Site) -> Vec<(String, String)> {
    let listed = site.arpanet2("node1", "consul -- keyring -list").out;
    let words = listed.lines().filter_map(|line| {
        let (key, had) = line.trim().split_once(' ')?;
        had.starts_with('[')
            .then(|| (key.to_owned(), had.to_owned()))
    });
    words.collect()
}

/// Waits until there is one key, which is another, and these have it; which that is.
fn turned(site: &Site, before: &str, had: &str) -> String {
    let took = until(
        "one key, and another",
        LIMIT,
        || keys(site),
        |keys| matches!(&keys[..], [(key, by)] if key != before && by == had),
    );
    eprintln!("the former key was gone after {took:.1?}");
    keys(site).remove(0).0
}

/// Waits until a host's consul has `alive` nodes of the cluster in reach, itself too.
fn meets(site: &Site, host: &str, alive: usize) {
    let members = || site.arpanet2(host, "consul -- members").out;
    until("all are met", LIMIT, members, |members| {
        members.matches("alive").count() == alive
    });
}

#[tokio::test]
async fn consuls_gossip_follows_the_clusters_key() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    site.cluster();
    let founded = keys(&site);
    assert!(
        matches!(&founded[..], [(_, had)] if had == "[3/3]"),
        "{founded:?}"
    );
    let processes = ["node1", "node2", "node3"].map(|host| consul_of(&site, host));
    site.ok("node1", "rekey");
    site.ok("node2", "passwd Pears");
    let second = turned(&site, &founded[0].0, "[3/3]");
    site.ok("node3", "kv put paas/web one");
    let now = ["node1", "node2", "node3"].map(|host| consul_of(&site, host));
    assert_eq!(now, processes, "no consul was started again");

    // A server that was down finds the former key nowhere.
    site.lab.kill("node2").await.unwrap();
    meets(&site, "node1", 2);
    site.ok("node1", "rekey");
    let third = turned(&site, &second, "[2/2]");
    site.lab.start("node2").await.unwrap();
    site.ok("node2", "start");
    meets(&site, "node2", 3);
    let value = |host: &str| site.arpanet2(host, "kv get paas/web").out;
    until("it is a server", LIMIT, || value("node2"), |it| it == "one");

    // Both sides of a cut turn theirs over, and the client is with neither.
    for host in ["node2", "node3"] {
        site.lab.cut(host, None).await.unwrap();
    }
    for host in ["node1", "node2", "node3"] {
        meets(&site, host, 1);
    }
    for host in ["node1", "node2"] {
        site.ok(host, "rekey");
    }
    turned(&site, &third, "[1/1]");
    site.lab.heal(None).await.unwrap();
    for host in ["node1", "node2", "node3"] {
        meets(&site, host, 3);
    }
    for host in ["node2", "node3"] {
        let it = || value(host);
        until("it is back", LIMIT, it, |it| it == "one");
    }
    let fourth = turned(&site, &third, "[3/3]");

    // Who was forgotten has a key that nobody has.
    site.lab.kill("node3").await.unwrap();
    meets(&site, "node1", 2);
    let forget = || site.arpanet2("node1", "forget 0.14");
    until("it is down", LIMIT, forget, |it| it.code == Some(0));
    turned(&site, &fourth, "[2/2]");
    let members = site.ok("node1", "consul -- members");
    assert!(!members.contains("node3"), "{members}");
    assert_eq!(value("node2"), "one");
}
