//! What `why` works out, beside what becomes of a packet: for every pair that there is, the model and the kernel agree.

use std::time::Duration;

use serde_json::Value;

use crate::site::{Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Containers of two networks on two hosts each, and two that are confined to none: host, name, what they ask for.
const CONTAINERS: [(&str, &str, &str); 6] = [
    ("node1", "red1", "10.1.0.11/16"),
    ("node2", "red2", "10.1.0.12/16"),
    ("node1", "blue1", "10.2.0.11/16"),
    ("node2", "blue2", "10.2.0.12/16"),
    ("node1", "wide1", "10.3.0.11/8"),
    ("node2", "wide2", "10.3.0.12/8"),
];

const HOSTS: [(&str, &str); 3] = [
    ("node1", "10.255.0.1"),
    ("node2", "10.255.0.2"),
    ("node3", "10.255.0.14"),
];

fn why(site: &Site, host: &str, from: &str, to: &str) -> Value {
    let told = site.arpanet2(host, &format!("--json why {from} {to}"));
    serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{from} to {to}: {told:?}"))
}

fn outcome(way: &Value, is_probe: bool) -> Vec<&str> {
    let steps = way["steps"].as_array().unwrap().iter();
    steps
        .filter(|step| (step["stage"] == "probe") == is_probe)
        .filter_map(|step| step["outcome"].as_str())
        .collect()
}

/// All pairs, asked where the sender is. Those that arrive.
fn all_pairs(site: &Site) -> usize {
    let at = |addr: &'static str| addr.split('/').next().unwrap();
    let containers = CONTAINERS.map(|(host, _, addr)| (host, at(addr)));
    let ends: Vec<(&str, &str)> = containers.into_iter().chain(HOSTS).collect();
    let asked: Vec<(&str, &str, &str)> = ends
        .iter()
        .flat_map(|(host, from)| ends.iter().map(|(_, to)| (*host, *from, *to)))
        .filter(|(host, from, to)| from != to && *host != "node3")
        .collect();
    let mut arrived = 0;
    for some in asked.chunks(12) {
        let ways: Vec<Value> = std::thread::scope(|scope| {
            let asking: Vec<_> = some
                .iter()
                .map(|(host, from, to)| scope.spawn(|| why(site, host, from, to)))
                .collect();
            asking
                .into_iter()
                .map(|asking| asking.join().unwrap())
                .collect()
        });
        for ((_, from, to), way) in some.iter().zip(ways) {
            let stops = outcome(&way, false).contains(&"stops");
            let expected = if stops { "stops" } else { "passes" };
            assert_eq!(outcome(&way, true), [expected], "{from} to {to}: {way:#}");
            assert_eq!(way["arrives"], !stops, "{from} to {to}: {way:#}");
            arrived += usize::from(!stops);
        }
    }
    arrived
}

#[tokio::test]
async fn what_is_worked_out_is_what_becomes_of_a_packet() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.cluster();
    for (host, name, addr) in CONTAINERS {
        site.ok(
            host,
            &format!("run --name {name} --net {addr} --service {name} -- sleep 3600"),
        );
    }
    for (_, name, _) in CONTAINERS {
        for host in ["node1", "node2"] {
            let resolve = || site.arpanet2(host, &format!("resolve {name}")).code;
            until(name, LIMIT, resolve, |code| *code == Some(0));
        }
    }
    // Each network's two reach each other; those that are confined to none, and the hosts, all of them. Six of those five are
    // asked where they are: two of each network, and four of five that reach four others each.
    assert_eq!(all_pairs(&site), 4 + 4 * 4);

    // A name, in its own network and in another one.
    let way = site.arpanet2("node1", "why red1 red2");
    assert_eq!(way.code, Some(0), "{way:?}");
    assert!(
        way.out.contains("red2 is registered at 10.1.0.12"),
        "{way:?}"
    );
    let way = site.arpanet2("node1", "why red1 blue2");
    assert_eq!(way.code, Some(1), "{way:?}");
    assert!(
        way.err
            .contains("10.1.0.0/16 and 10.2.0.0/16 are kept apart"),
        "{way:?}"
    );
    let way = site.arpanet2("node1", "why red1 nothing");
    assert_eq!(way.code, Some(1), "{way:?}");
    assert!(
        way.err.contains("nothing is registered as nothing"),
        "{way:?}"
    );
    let way = site.arpanet2("node1", "why nobody red1");
    assert_eq!(way.code, Some(1), "{way:?}");
    assert!(
        way.err.contains("nobody is no address, node, service"),
        "{way:?}"
    );

    // A host without power: what stops is that it is out of reach.
    site.lab.kill("node2").await.unwrap();
    let down = || site.arpanet2("node1", "why red1 10.1.0.12");
    let told = until(
        "node2 is out of reach",
        LIMIT,
        || down().err,
        |told| told.contains("node 0.2 is out of reach"),
    );
    eprintln!("known after {told:?}");
    assert_eq!(down().code, Some(1));
}
