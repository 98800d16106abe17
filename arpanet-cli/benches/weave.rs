//! How long a host takes to join over weave, beside the routers alone, on the same hosts of a lab, in one run.
//!
//! `cargo bench -p arpanet-cli --bench weave [ROUNDS]`, as root, with the program of a weave router in `ARPANET_WEAVER`. Ours is
//! the time of the command: the password, the router's start, discovery, DNS and the agent's start are in it, and it returns
//! once the first host answers a ping. The routers' is from the start of the second one until it has a route to the first.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/site.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod site;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use site::{SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(60);
const NAMES: [&str; 2] = ["0a:00:00:00:00:01", "0a:00:00:00:00:02"];

fn main() {
    let rounds: usize = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(5);
    if site::weaver().is_none() {
        println!("weave: skipped, ARPANET_WEAVER names no program of a router");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let Some(site) = runtime.block_on(Site::up_over_weave(2)) else {
            return;
        };
        alone.push(routers(&site));
        site.ok("node1", "boot 0.1 Apples");
        let began = Instant::now();
        site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let reached = site.run("node2", "ping -c1 -W1 10.255.0.1");
        assert_eq!(reached.code, Some(0), "{reached:?}");
    }
    let title = format!("join, ms, of {rounds} rounds");
    println!("{title:<30} {:>9} {:>9} {:>9}", "least", "median", "most");
    let mut medians = Vec::new();
    for (who, mut times) in [("the routers alone", alone), ("arpanet2 over weave", ours)] {
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[rounds - 1]);
        medians.push(times[rounds / 2]);
        println!(
            "{who:<30} {least:>9.0} {:>9.0} {most:>9.0}",
            times[rounds / 2]
        );
    }
    println!(
        "{:<30} {:>19.2}",
        "the one to the other",
        medians[1] / medians[0]
    );
}

/// Two routers on the hosts' underlay, and nothing left of them.
fn routers(site: &Site) -> f64 {
    let program = site::weaver().unwrap();
    let start = |host: &str, name: &str, ip: &str, peer: &str| {
        let line = format!(
            "mkdir /run/alone && cd /run/alone && WEAVE_PASSWORD=Pears CHECKPOINT_DISABLE=1 {} --host {ip} --port 6783 --name {name} --nickname {host} --weave-bridge weave --datapath datapath --no-fastdp --docker-api= --db-prefix /run/alone/weave --ipalloc-range= --no-dns --http-addr 127.0.0.1:6784 --status-addr 127.0.0.1:6782 {peer} >log 2>&1 & echo $!",
            program.display()
        );
        site.command(host, &["sh", "-c", &line]).out
    };
    let mut ids = vec![("node1", start("node1", NAMES[0], SEED, ""))];
    let ready = || report(site, "node1");
    until("the first router", LIMIT, ready, |report| {
        report.contains(NAMES[0])
    });
    let began = Instant::now();
    ids.push(("node2", start("node2", NAMES[1], "192.168.8.121", SEED)));
    let routes = || -> serde_json::Value {
        serde_json::from_str(&report(site, "node2")).unwrap_or_default()
    };
    until("a route to the first", LIMIT, routes, |report| {
        let routes = report["Router"]["UnicastRoutes"].as_array();
        routes.is_some_and(|routes| routes.iter().any(|route| route["Dest"] == NAMES[0]))
    });
    let took = began.elapsed().as_secs_f64() * 1e3;
    for (host, id) in ids {
        let end = format!(
            "kill -9 {id}; while test -e /proc/{id}; do :; done; rm -r /run/alone; ip link del weave; ip link del vethwe-bridge; iptables -F; iptables -t nat -F; iptables -X; iptables -t nat -X; true"
        );
        let ended = site.command(host, &["sh", "-c", &end]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    took
}

/// What the router of a host says of itself; nothing while it does not.
fn report(site: &Site, host: &str) -> String {
    let host = site.lab.namespace(host).unwrap();
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 6784))?;
        stream.write_all(
            b"GET /report HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        Ok(body.unwrap_or_default())
    };
    host.run(ask).unwrap().unwrap_or_default()
}
