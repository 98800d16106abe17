//! Containers of plain docker clients on three hosts: found by name, in both directions, and gone with their host.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::site::{Site, until};

const LIMIT: Duration = Duration::from_secs(20);

fn start(site: &Site, host: &str, name: &str, service: &str) {
    let labels = format!(
        "--label arpanet.net=10.1.0.0/16 --label arpanet.service={service} --label arpanet.port=80"
    );
    site.docker(
        host,
        &format!("run -d --name {name} {labels} arpanet2-lab httpd -f -p 80 -h /bin"),
    );
}

fn resolve(site: &Site, service: &str) -> Vec<String> {
    let out = site.arpanet2("node2", &format!("resolve {service}")).out;
    out.lines().map(str::to_owned).collect()
}

by_each_discovery!(
    a_megabyte_goes_both_ways_by_name_and_a_host_s_instances_go_with_it,
    up_with_docker,
    up_with_docker_and_consul,
    3,
    up_classic
);

async fn a_megabyte_goes_both_ways_by_name_and_a_host_s_instances_go_with_it(site: Site) {
    site.cluster();
    start(&site, "node2", "one", "one");
    start(&site, "node3", "two", "two");
    let sum = |host: &str, name: &str, file: &str| {
        let line = format!("/usr/bin/docker exec {name} sha256sum {file}");
        let told = site.run(host, &line).out;
        told.split(' ').next().unwrap_or_default().to_owned()
    };
    for (host, from, to) in [("node2", "one", "two"), ("node3", "two", "one")] {
        let fetch = format!(
            "/usr/bin/docker exec {from} timeout 5 wget -qO /tmp/b http://{to}.service.consul/busybox"
        );
        until(
            to,
            LIMIT,
            || site.run(host, &fetch).code,
            |code| *code == Some(0),
        );
        let size = format!("/usr/bin/docker exec {from} stat -c %s /tmp/b");
        assert!(site.run(host, &size).out.parse::<u64>().unwrap() > 1_000_000);
        assert_eq!(sum(host, from, "/tmp/b"), sum(host, from, "/bin/busybox"));
    }

    // Ten over three hosts, each first in its turn.
    for number in 0..10 {
        let host = ["node1", "node2", "node3"][number % 3];
        start(&site, host, &format!("w{number}"), "web");
    }
    until(
        "ten",
        LIMIT,
        || resolve(&site, "web"),
        |web| web.len() == 10,
    );
    let first: BTreeSet<String> = (0..40).map(|_| resolve(&site, "web").remove(0)).collect();
    assert_eq!(first.len(), 10, "first were only {first:?}");

    site.lab.kill("node3").await.unwrap();
    let took = until(
        "those of a host without power",
        LIMIT,
        || resolve(&site, "web"),
        |web| web.len() == 7,
    );
    eprintln!("gone {took:?} after their host lost power");
    // Three seconds are promised on a machine that does nothing else, which a test's is not.
    assert!(took < Duration::from_secs(8), "{took:?}");
}
