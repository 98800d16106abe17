//! Real docker engines, beside Docker Swarm on the same engines in the same run: how soon a container is found by name on
//! another host, by labels and by the network driver, counted from each of its moments, and how fast containers are attached.
//! `arpanet2 bench` has what goes through between them, and the rest.
//!
//! `cargo bench -p arpanet-cli --bench docker [ROUNDS]`, as root, on a machine that does nothing else: the load is printed. It
//! makes a lab of three hosts.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/site.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod site;
#[path = "../tests/lab/stream.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod stream;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use arpanet_netlink::Namespace;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use site::{BINARY, SEED, Site, until};
use stream::namespace_of;

const LIMIT: Duration = Duration::from_secs(30);
/// Between two questions for a name.
const PACE: Duration = Duration::from_micros(500);
const MESH: &str = "network create -d overlay --attachable mesh";
const SHOP: &str = "network create -d arpanet --ipam-driver arpanet --subnet 10.1.0.0/16 shop";

/// A way for a container to be found by name.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Options of `docker run`, but for the name.
    place: &'static str,
    resolver: &'static str,
    domain: &'static str,
    /// Who asks on the other host.
    probe: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        name: "by labels",
        place: "--label arpanet.net=10.1.0.0/16 --label arpanet.port=80 --label arpanet.service=",
        resolver: "169.254.1.1:53",
        domain: "service.consul.",
        probe: "shop2",
    },
    Way {
        name: "by the network driver",
        place: "--network shop --network-alias ",
        resolver: "169.254.1.1:53",
        domain: "service.consul.",
        probe: "shop2",
    },
    Way {
        name: "by Swarm's overlay",
        place: "--network mesh --network-alias ",
        resolver: "127.0.0.11:53",
        domain: "",
        probe: "mesh2",
    },
];

type Figures = BTreeMap<String, Vec<f64>>;

fn main() {
    let rounds: usize = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(10);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(site) = runtime.block_on(Site::up_with_docker(3)) else {
        return;
    };
    println!("load before: {}", load());
    prepare(&site);
    let mut figures = Figures::new();
    for round in 0..rounds {
        for way in WAYS {
            find(&site, way, round, &mut figures);
        }
    }
    attach(&site, &mut figures);
    println!("load after: {}", load());
    println!(
        "{:<60} {:>9} {:>9} {:>9}",
        format!("of {rounds} rounds"),
        "best",
        "median",
        "worst"
    );
    for (what, figures) in &mut figures {
        figures.sort_by(f64::total_cmp);
        let (best, worst) = (figures[0], figures[figures.len() - 1]);
        let median = figures[figures.len() / 2];
        println!("{what:<60} {best:>9.2} {median:>9.2} {worst:>9.2}");
    }
    ratios(&figures);
}

fn load() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap();
    all.split(' ').next().unwrap_or_default().to_owned()
}

/// The cluster, the swarm, a network of each, and a container of each on two hosts.
fn prepare(site: &Site) {
    site.cluster();
    site.docker(
        "node1",
        &format!("swarm init --advertise-addr {SEED} --default-addr-pool 172.30.0.0/16"),
    );
    let token = site.docker("node1", "swarm join-token -q worker");
    for host in ["node2", "node3"] {
        site.docker(host, &format!("swarm join --token {token} {SEED}:2377"));
    }
    site.docker("node1", MESH);
    site.docker("node1", SHOP);
    let shop = || site.docker("node2", "network ls -q --filter name=shop");
    until("the network", LIMIT, shop, |id| !id.is_empty());
    for (host, number) in [("node1", 1), ("node2", 2)] {
        for network in ["shop", "mesh"] {
            let line = format!(
                "run -d --name {network}{number} --network {network} arpanet2-lab sleep 36000"
            );
            site.docker(host, &line);
        }
    }
}

/// Starts a container on one host, and asks on another for its name until it is known.
fn find(site: &Site, way: Way, round: usize, figures: &mut Figures) {
    let name = format!("web{round}");
    let there = namespace_of(site, "node2", way.probe);
    let (began, returned, found, at) = std::thread::scope(|threads| {
        let asking = threads.spawn(|| ask(&there, way, &name));
        let began = Instant::now();
        let line = format!(
            "run -d --name {name} {}{name} arpanet2-lab sleep 3600",
            way.place
        );
        site.docker("node1", &line);
        let returned = Instant::now();
        let (found, at) = asking.join().unwrap();
        (began, returned, found, at)
    });
    let started = site.docker(
        "node1",
        &format!("inspect -f {{{{.State.StartedAt}}}} {name}"),
    );
    let stamp = site
        .command("node1", &["date", "-d", &started, "+%s.%N"])
        .out;
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let mut note = |what: &str, figure: f64| {
        let what = format!("{what}, {}, ms", way.name);
        figures.entry(what).or_default().push(figure * 1000.0);
    };
    note("1 docker run takes", (returned - began).as_secs_f64());
    note(
        "2 found after docker run began",
        (found - began).as_secs_f64(),
    );
    let late = match found > returned {
        true => (found - returned).as_secs_f64(),
        false => -(returned - found).as_secs_f64(),
    };
    note("3 found after docker run returned", late);
    note(
        "4 found after the container ran",
        at - stamp.parse::<f64>().unwrap(),
    );
    site.docker("node1", &format!("rm -f {name}"));
}

/// When a name is first answered in this namespace.
fn ask(there: &Namespace, way: Way, name: &str) -> (Instant, SystemTime) {
    let socket = there.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let at: SocketAddr = way.resolver.parse().unwrap();
    socket.connect(at).unwrap();
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let full = Name::from_ascii(format!("{name}.{}", way.domain)).unwrap();
    question.add_query(Query::query(full, RecordType::A));
    let question = question.to_vec().unwrap();
    let began = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        assert!(began.elapsed() < LIMIT, "{name} is not found {}", way.name);
        socket.send(&question).unwrap();
        if let Ok(length) = socket.recv(&mut buffer)
            && let Ok(answer) = Message::from_vec(&buffer[..length])
            && answer
                .answers
                .iter()
                .any(|record| matches!(record.data, RData::A(_)))
        {
            return (Instant::now(), SystemTime::now());
        }
        std::thread::park_timeout(PACE);
    }
}

/// A hundred addresses for twenty containers, one command after the other.
fn attach(site: &Site, figures: &mut Figures) {
    for number in 0..20 {
        site.docker(
            "node3",
            &format!("run -d --name a{number} arpanet2-lab sleep 3600"),
        );
    }
    let script = format!(
        "for c in $(seq 0 19); do for n in 1 2 3 4 5; do {BINARY} attach a$c 10.10$n.0.0/16 || exit 1; done; done"
    );
    let began = Instant::now();
    let done = site.command("node3", &["sh", "-c", &script]);
    assert_eq!(done.code, Some(0), "{done:?}");
    figures
        .entry("5 a hundred attaches by commands, ms".to_owned())
        .or_default()
        .push(began.elapsed().as_secs_f64() * 1000.0);
}

fn ratios(figures: &Figures) {
    let median = |part: &str| {
        let (_, all) = figures
            .iter()
            .find(|(what, _)| what.contains(part))
            .unwrap();
        all[all.len() / 2]
    };
    for way in ["by labels", "by the network driver"] {
        let [ours, swarm] = [
            format!("2 found after docker run began, {way}"),
            "2 found after docker run began, by Swarm".to_owned(),
        ]
        .map(|what| median(&what));
        println!(
            "found {way} after docker run began: {:.2} of Swarm's time",
            ours / swarm
        );
    }
}
