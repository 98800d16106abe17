//! Thirty hosts with an agent each: how long they take to boot and join, whether all are found by all, and what an agent
//! has in memory. `just lab-30`.

use std::time::{Duration, Instant};

use crate::churn::look::ask;
use crate::site::{BINARY, SEED, Site, until};

const HOSTS: u8 = 30;
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "it takes a minute of the whole machine: just lab-30"]
async fn thirty_hosts_find_each_other() {
    let Some(site) = Site::up(HOSTS).await else {
        return;
    };
    let begun = Instant::now();
    let mut joins = Vec::new();
    for host in 1..=HOSTS {
        let one = Instant::now();
        let line = match host {
            1 => "boot 0.1 Apples".to_owned(),
            _ => format!("server 0.{host} Apples 0.1 {SEED}"),
        };
        site.ok(&format!("node{host}"), &line);
        joins.push(one.elapsed());
    }
    eprintln!(
        "boot and {} joins, one after the other: {:.1?}; the first {:.2?}, the last {:.2?}",
        HOSTS - 1,
        begun.elapsed(),
        joins[1],
        joins[joins.len() - 1]
    );
    for host in 1..=HOSTS {
        let line = format!(
            "run --net 10.1.0.0/16 --service s{host} --port 80 --name w{host} -- {BINARY} hello --port 80"
        );
        site.ok(&format!("node{host}"), &line);
    }
    let names: Vec<String> = (1..=HOSTS).map(|host| format!("s{host}")).collect();
    let asked = Instant::now();
    for host in 1..=HOSTS {
        let (at, node) = (format!("node{host}"), format!("0.{host}"));
        until(
            &at,
            LIMIT,
            || ask(&site, &at, &node, names.clone()),
            |answers| {
                let found = |ips: &std::collections::BTreeSet<_>| ips.len() == 1;
                answers.as_ref().is_ok_and(|answers| {
                    answers.len() == names.len() && answers.values().all(found)
                })
            },
        );
        let nodes = site.status(&at)["nodes"].as_array().unwrap().clone();
        assert_eq!(nodes.len(), usize::from(HOSTS), "{at}");
        assert!(nodes.iter().all(|node| node["state"] == "alive"), "{at}");
    }
    eprintln!("all resolve all, asked in turn: {:.1?}", asked.elapsed());
    // Over the overlay, from the last to the first and back.
    for (from, to) in [(1, HOSTS), (HOSTS, 1)] {
        let line = format!("exec w{from} -- {BINARY} fetch http://s{to}.service.consul/");
        let page = site.ok(&format!("node{from}"), &line);
        assert_eq!(page, format!("hello from w{to}"));
    }
    let mut memory: Vec<u64> = (1..=HOSTS)
        .map(|host| {
            let script = "grep VmRSS: /proc/$(cat /run/arpanet2/agent.lock)/status";
            let line = site
                .command(&format!("node{host}"), &["sh", "-c", script])
                .out;
            let words: Vec<&str> = line.split_whitespace().collect();
            words[1].parse().unwrap()
        })
        .collect();
    memory.sort_unstable();
    eprintln!(
        "an agent's memory: median {} KiB, most {} KiB",
        memory[memory.len() / 2],
        memory[memory.len() - 1]
    );
}
