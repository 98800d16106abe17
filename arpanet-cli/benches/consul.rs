//! A cluster with consul beside consul alone, on the same hosts of a lab, in one run: from nothing to a leader, a server and a
//! client more, and how many names a second are answered by `--dns watch` and by consul's own DNS.
//!
//! `cargo bench -p arpanet-cli --bench consul [ROUNDS]`, as root, with `consul` on the path or in `ARPANET_CONSUL`. Times of the
//! cluster are those of the commands: the password, the overlay, DNS and the agent's start are in them. Consul alone has
//! `raft_multiplier` 1, as it has in the cluster, and is told whom to join at its start. What it adds to consul's own times of
//! a registration and of a change is in `cargo bench -p arpanet-consul --bench beside`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../src/commands/bench/load.rs"]
mod load;
#[path = "../tests/lab/site.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod site;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use load::Load;
use site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(60);
const SERVICES: usize = 20;
/// Each of the two is asked for so long, in turn.
const ASKING: Duration = Duration::from_secs(2);
const LOAD: Load = Load {
    clients: 2,
    out: 32,
    patience: Duration::from_millis(500),
};

type Figures = Vec<(&'static str, f64)>;

fn main() {
    let rounds: usize = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let Some(figures) = runtime.block_on(round()) else {
            return;
        };
        for (what, figure) in figures {
            all.entry(what).or_default().push(figure);
        }
    }
    let title = format!("of {rounds} rounds");
    println!("{title:<50} {:>9} {:>9} {:>9}", "least", "median", "most");
    for (what, mut figures) in all {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        let median = figures[figures.len() / 2];
        println!("{what:<50} {least:>9.1} {median:>9.1} {most:>9.1}");
    }
}

async fn round() -> Option<Figures> {
    let site = Site::up_with_consul(3).await?;
    let mut figures = alone(&site);
    let mut timed = |what, host: &str, line: &str| {
        let began = Instant::now();
        site.ok(host, line);
        figures.push((what, began.elapsed().as_secs_f64() * 1e3));
    };
    timed("1 boot to a leader, ms", "node1", "boot 0.1 Apples");
    let server = format!("server 0.2 Apples 0.1 {SEED}");
    timed("2 server joins, ms", "node2", &server);
    let client = format!("client 0.14 Apples 0.1 {SEED}");
    timed("3 client joins, ms", "node3", &client);
    figures.extend(answers(&site));
    Some(figures)
}

/// Consul without anything else, on the underlay of the same hosts.
fn alone(site: &Site) -> Figures {
    let consul = site::consul().unwrap();
    let mut figures = Vec::new();
    let mut pids = Vec::new();
    for (what, host, ip, options) in [
        (
            "1 boot to a leader, consul alone, ms",
            "node1",
            SEED,
            "-server -bootstrap-expect=1",
        ),
        (
            "2 server joins, consul alone, ms",
            "node2",
            "192.168.8.121",
            "-server -join 192.168.8.120",
        ),
        (
            "3 client joins, consul alone, ms",
            "node3",
            "192.168.8.122",
            "-join 192.168.8.120",
        ),
    ] {
        let settings = r#"{"performance": {"raft_multiplier": 1}, "disable_update_check": true}"#;
        let begin = format!(
            "mkdir /run/alone; echo '{settings}' > /run/alone/settings.json; {} agent -node {host} -bind {ip} -data-dir /run/alone/data -config-file /run/alone/settings.json {options} >/run/alone/log 2>&1 & echo $!",
            consul.display()
        );
        let fetch = format!("{BINARY} fetch http://127.0.0.1:8500/v1/health/node/{host}");
        let began = Instant::now();
        pids.push((host, site.command(host, &["sh", "-c", &begin]).out));
        // A leader that has this node in its catalogue, as seen from the node.
        let there = || site.run(host, &fetch).out;
        until(what, LIMIT, there, |checks| checks.contains("serfHealth"));
        figures.push((what, began.elapsed().as_secs_f64() * 1e3));
    }
    for (host, pid) in pids {
        let end = format!("kill -9 {pid}; while test -e /proc/{pid}; do :; done; rm -r /run/alone");
        let ended = site.command(host, &["sh", "-c", &end]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    figures
}

/// Names a second of both, asked on node1 for what node2 has.
fn answers(site: &Site) -> Figures {
    let names: Vec<String> = (0..SERVICES).map(|number| format!("s{number}")).collect();
    for name in &names {
        site.ok("node2", &format!("register {name} --port 80"));
    }
    let resolved = || {
        site.arpanet2("node1", &format!("resolve {}", names[SERVICES - 1]))
            .out
    };
    until("the names are there", LIMIT, resolved, |ip| !ip.is_empty());
    let question = |name: &String| {
        let mut message = Message::query();
        let name = Name::from_ascii(format!("{name}.service.consul.")).unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    };
    let questions: Vec<Vec<u8>> = names.iter().map(question).collect();
    let is_right = |answer: &[u8]| Message::from_vec(answer).is_ok_and(|it| it.answers.len() == 1);
    let host = site.lab.namespace("node1").unwrap();
    let rate = |port: u16| {
        let at = SocketAddr::from(([10, 253, 0, 1], port));
        host.run(|| LOAD.rate(at, &questions, ASKING, is_right))
            .unwrap()
            .unwrap()
    };
    let (own, consul) = (rate(53), rate(8600));
    vec![
        ("4 names answered a second, --dns watch", own),
        ("4 names answered a second, consul's own DNS", consul),
        ("4 names answered, the one to the other", own / consul),
    ]
}
