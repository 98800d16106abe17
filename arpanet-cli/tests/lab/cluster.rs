//! Three hosts become one cluster, as an operator does it by hand.

use std::time::Duration;

use crate::site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Addresses, names, roles and states of all nodes, as a host sees them.
fn nodes(site: &Site, host: &str) -> Vec<String> {
    let status = site.status(host);
    let nodes = status["nodes"].as_array().unwrap();
    let text = |node: &serde_json::Value, key: &str| node[key].as_str().unwrap_or("?").to_owned();
    nodes
        .iter()
        .map(|node| {
            ["address", "name", "role", "state", "endpoint"]
                .map(|key| text(node, key))
                .join(" ")
        })
        .collect()
}

by_each_discovery!(
    three_hosts_list_each_other_and_find_services_by_name,
    up,
    up_with_consul,
    3,
    up_over_weave
);

async fn three_hosts_list_each_other_and_find_services_by_name(site: Site) {
    site.cluster();
    let all = [
        "0.1 node1 boot alive 192.168.8.120:51820",
        "0.2 node2 server alive 192.168.8.121:51820",
        "0.14 node3 client alive 192.168.8.122:51820",
    ];
    for host in ["node1", "node2", "node3"] {
        until(
            "all three are alive",
            LIMIT,
            || nodes(&site, host),
            |nodes| *nodes == all,
        );
    }
    until(
        "round trips are measured",
        LIMIT,
        || site.status("node1"),
        |status| {
            let nodes = status["nodes"].as_array().unwrap();
            nodes[1..].iter().all(|node| node["rtt_ms"].is_f64())
        },
    );
    let web = format!(
        "run --net 10.1.0.0/16 --service web --port 80 --name w1 -- {BINARY} hello --port 80"
    );
    site.ok("node3", &web);
    let resolved = || site.arpanet2("node2", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| {
        ip.starts_with("10.1.")
    });
    let ip = resolved();
    site.ok("node2", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    site.ok("node2", "run --net 10.2.0.0/16 --name c2 -- sleep 600");
    let fetch = format!("exec c1 -- {BINARY} fetch http://web.service.consul/");
    assert_eq!(site.ok("node2", &fetch), "hello from w1");
    for to in [
        ip.as_str(),
        "10.255.0.1",
        "10.254.0.1",
        "10.253.0.1",
        "10.255.0.2",
        "10.254.0.14",
    ] {
        let outcome = site.arpanet2("node2", &format!("exec c2 -- ping -c2 -W2 {to}"));
        assert_eq!(outcome.code, Some(1), "{to}: {outcome:?}");
        assert!(outcome.out.contains("Packet filtered"), "{to}: {outcome:?}");
    }
    let nobody = site.run(
        "node1",
        "setpriv --reuid 65534 --clear-groups ping -c1 -W1 10.254.0.2",
    );
    assert_ne!(nobody.code, Some(0), "{nobody:?}");
    site.ok("node3", "rm w1");
    until("its name is gone", LIMIT, resolved, String::is_empty);
}

by_each_discovery!(
    a_cut_host_is_out_of_dns_and_back_when_it_heals,
    up,
    up_with_consul,
    3,
    up_over_weave
);

async fn a_cut_host_is_out_of_dns_and_back_when_it_heals(site: Site) {
    site.cluster();
    site.ok("node3", "register web --port 80");
    let resolved = || site.arpanet2("node2", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| {
        ip == "10.255.0.14"
    });
    site.lab.cut("node3", None).await.unwrap();
    until(
        "the name is gone",
        Duration::from_secs(5),
        resolved,
        String::is_empty,
    );
    site.lab.heal(Some("node3")).await.unwrap();
    until("the name is back", Duration::from_secs(5), resolved, |ip| {
        ip == "10.255.0.14"
    });
}

by_each_discovery!(
    a_host_without_power_comes_back_by_itself_and_with_another_address,
    up,
    up_with_consul,
    3,
    up_over_weave
);

async fn a_host_without_power_comes_back_by_itself_and_with_another_address(site: Site) {
    site.cluster();
    for host in ["node1", "node2", "node3"] {
        site.lab.kill(host).await.unwrap();
    }
    site.lab
        .readdress("node2", "192.168.8.200".parse().unwrap())
        .await
        .unwrap();
    for host in ["node3", "node1", "node2"] {
        site.lab.start(host).await.unwrap();
        site.ok(host, "start");
    }
    for host in ["node1", "node2", "node3"] {
        until(
            "all three are alive, one elsewhere",
            LIMIT,
            || nodes(&site, host),
            |nodes| {
                nodes.iter().all(|node| node.contains(" alive "))
                    && nodes[1] == "0.2 node2 server alive 192.168.8.200:51820"
            },
        );
    }
    let pings = |from, to: &str| site.run(from, &format!("ping -c1 -W1 {to}")).code;
    for (from, to) in [
        ("node1", "10.255.0.2"),
        ("node2", "10.255.0.14"),
        ("node3", "10.255.0.1"),
    ] {
        until(
            "hosts reach each other",
            LIMIT,
            || pings(from, to),
            |code| *code == Some(0),
        );
    }
}

by_each_discovery!(
    reset_gives_every_host_back_as_it_was,
    up,
    up_with_consul,
    2,
    up_over_weave
);

async fn reset_gives_every_host_back_as_it_was(site: Site) {
    let facts = [
        "ip -d link",
        "ip addr",
        "ip route show table all",
        "ip rule",
        "cat /proc/self/mountinfo",
        "find /etc /var/lib /run -xdev -mindepth 1 -newer /proc/1",
        "ps -e -o comm=",
    ];
    let snapshot = |host: &str| facts.map(|fact| site.run(host, fact).out);
    let before = ["node1", "node2"].map(snapshot);
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    site.ok("node2", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let listed = site.run("node2", &format!("pgrep -af {BINARY}"));
    assert!(!listed.out.contains("Apples"), "{listed:?}");
    for host in ["node2", "node1"] {
        site.ok(host, "reset");
    }
    for (host, before) in ["node1", "node2"].iter().zip(&before) {
        for (fact, before) in facts.iter().zip(before) {
            let lines = |text: &str| -> Vec<String> {
                // Mounts that other tests had on this machine when the lab was made, and that go with them.
                let of_others = |line: &&str| {
                    let at = line.split(' ').nth(4);
                    at.is_some_and(|at| at.starts_with("/tmp/"))
                };
                let lines = text.lines().filter(|line| !of_others(line));
                let mut lines: Vec<String> = lines.map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let before = lines(before);
            // The agent is a process for a moment longer than it holds anything.
            let now = || lines(&site.run(host, fact).out);
            until(
                &format!("{host}: {fact} is as before, {before:?}"),
                LIMIT,
                now,
                |now| *now == before,
            );
        }
    }
}
