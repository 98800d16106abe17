//! What this crate adds to plain consul's own times: three servers in network namespaces, one run, each round once plain and
//! once through the crate. A ratio of 1 is consul's own time.
//!
//! `cargo bench -p arpanet-consul --bench beside`, as root, with `consul` on the path or in `ARPANET_CONSUL`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

#[path = "../tests/consuls/mod.rs"]
mod consuls;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arpanet_consul::{ConsulDiscovery, ConsulKeyValue};
use arpanet_core::Discovery;
use arpanet_core::discovery::{Instance, Selector};
use arpanet_core::kv::KeyValue;
use arpanet_core::watch::Change;
use consuls::{Consul, Site};
use serde_json::json;

const ROUNDS: usize = 40;

fn main() {
    assert!(
        nix::unistd::geteuid().is_root() && consuls::binary().is_some(),
        "it needs root, and consul on the path or in ARPANET_CONSUL"
    );
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}

async fn run() {
    let begun = Instant::now();
    let ports = json!({"dns": 8600, "serf_wan": -1, "grpc": -1});
    let dns = json!({"allow_stale": true, "max_stale": "87600h"});
    let config = json!({"ports": ports, "client_addr": "0.0.0.0", "dns_config": dns});
    let site = Site::with(3, 0, config).await;
    println!(
        "three servers from nothing to a leader that all know: {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    let leader = site.leader().await;
    // Neither of the two is the leader: that is how it is for most nodes.
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let [here, there] = others[..] else {
        unreachable!()
    };
    let mut backends = Vec::new();
    for (node, membership) in consuls::memberships(3).iter().enumerate() {
        let backend = ConsulDiscovery::new(site.agents[node].client()).unwrap();
        backend.start(membership).await.unwrap();
        backends.push(Arc::new(backend));
    }
    println!(
        "\nmedian of {ROUNDS} rounds, ms{:>29} {:>9} {:>7}",
        "plain", "crate", "ratio"
    );
    to_dns(
        &site.agents[here],
        &site.agents[there],
        &backends[here],
        here,
    )
    .await;
    to_watch(
        &site.agents[here],
        &site.agents[there],
        &backends[here],
        &backends[there],
        here,
    )
    .await;
    key_value(&site.agents[here]).await;
}

fn show(what: &str, plain: &mut [Duration], own: &mut [Duration]) {
    let median = |times: &mut [Duration]| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let (plain, own) = (median(plain), median(own));
    println!("{what:<45} {plain:>9.2} {own:>9.2} {:>7.2}", own / plain);
}

fn instance(node: usize, name: &str) -> Instance {
    let node: arpanet_core::NodeAddr = format!("0.{}", node + 1).parse().unwrap();
    Instance::new(
        name.parse().unwrap(),
        name.parse().unwrap(),
        [10, 1, 0, 5].into(),
        80,
        node,
    )
}

/// Plain consul's registration, by one request, with a TTL check as ours has.
fn plainly(agent: &Consul, name: &str) {
    let body = json!({
        "ID": name, "Name": name, "Address": "10.1.0.5", "Port": 80,
        "Checks": [{"CheckID": format!("service:{name}"), "Name": "c", "TTL": "1h", "Status": "passing"}],
    });
    let (status, body) = agent
        .ask("PUT", "/v1/agent/service/register", &body.to_string())
        .unwrap();
    assert_eq!(status, 200, "{body}");
}

/// Whether a server has an A record of `NAME.service.consul` (RFC 1035, 4.1).
fn resolves(socket: &UdpSocket, name: &str) -> bool {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "service", "consul"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut answer = [0; 512];
    socket.send(&query).is_ok()
        && socket
            .recv(&mut answer)
            .is_ok_and(|length| length > 8 && answer[7] > 0)
}

/// From the call on one node until DNS on another has it.
async fn to_dns(from: &Consul, to: &Consul, backend: &Arc<ConsulDiscovery>, node: usize) {
    let server = SocketAddr::from((to.ip, 8600));
    let (mut plain, mut own) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for is_own in [false, true] {
            let name = format!("d{round}{}", if is_own { "o" } else { "p" });
            let asking = AtomicBool::new(false);
            let elapsed = std::thread::scope(|scope| {
                let found = scope.spawn(|| {
                    to.inside(async || {
                        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                        socket.connect(server).unwrap();
                        let patience = Duration::from_secs(5);
                        socket.set_read_timeout(Some(patience)).unwrap();
                        assert!(!resolves(&socket, &name));
                        asking.store(true, Ordering::Release);
                        while !resolves(&socket, &name) {}
                        Instant::now()
                    })
                });
                while !asking.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                let begun = Instant::now();
                if is_own {
                    let runtime = tokio::runtime::Handle::current();
                    let registered = instance(node, &name);
                    tokio::task::block_in_place(|| {
                        runtime.block_on(backend.register(registered)).unwrap()
                    });
                } else {
                    plainly(from, &name);
                }
                found.join().unwrap().duration_since(begun)
            });
            if is_own { &mut own } else { &mut plain }.push(elapsed);
        }
    }
    show(
        "register, until another node's DNS has it",
        &mut plain,
        &mut own,
    );
}

/// From plain consul's registration on one node until another node is told: by a blocking query of its own, and by a watch.
async fn to_watch(
    from: &Consul,
    to: &Consul,
    registering: &ConsulDiscovery,
    watching: &ConsulDiscovery,
    node: usize,
) {
    let (mut plain, mut own) = (Vec::new(), Vec::new());
    let service = "watched";
    registering.register(instance(node, service)).await.unwrap();
    for round in 0..ROUNDS {
        let port = |is_own: bool| 1_000 + u16::try_from(round * 2).unwrap() + u16::from(is_own);
        let change = |is_own: bool| {
            let body = json!({
                "ID": "w", "Name": service, "Address": "10.1.0.5", "Port": port(is_own),
            });
            from.ask("PUT", "/v1/agent/service/register", &body.to_string())
                .unwrap();
        };
        let path = format!("/v1/health/service/{service}");
        let (_, head) = to.head(&path).unwrap();
        let index = head
            .lines()
            .find_map(|line| line.strip_prefix("X-Consul-Index: "))
            .unwrap()
            .trim();
        let path = format!("{path}?index={index}&wait=10s");
        let elapsed = std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                to.ask("GET", &path, "").unwrap();
                Instant::now()
            });
            // The query has to be there before the change is.
            std::thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            change(false);
            told.join().unwrap().duration_since(begun)
        });
        plain.push(elapsed);

        let selector = Selector::Service(service.parse().unwrap());
        let mut watch = watching.watch(selector).await.unwrap();
        watch.next().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        tokio::task::block_in_place(|| change(true));
        loop {
            if let Some(Change::Upsert(_, told)) = watch.next().await
                && told.port == port(true)
            {
                break;
            }
        }
        own.push(begun.elapsed());
    }
    show(
        "change, until another node's watch tells it",
        &mut plain,
        &mut own,
    );
}

/// A write and a consistent read.
async fn key_value(agent: &Consul) {
    let kv = ConsulKeyValue::new(agent.client()).unwrap();
    let key = "bench".parse().unwrap();
    let (mut plain, mut own) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let value = round.to_string();
        let begun = Instant::now();
        tokio::task::block_in_place(|| {
            agent.ask("PUT", "/v1/kv/bench", &value).unwrap();
            agent.ask("GET", "/v1/kv/bench?consistent", "").unwrap();
        });
        plain.push(begun.elapsed());
        let begun = Instant::now();
        kv.put(&key, value.into()).await.unwrap();
        kv.get(&key).await.unwrap();
        own.push(begun.elapsed());
    }
    show("put and get of the key-value store", &mut plain, &mut own);
}
