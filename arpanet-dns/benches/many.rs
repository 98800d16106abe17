//! Answers a second over UDP on loopback from catalogues of 100, 10,000 and 100,000 instances, five to a service: what an
//! answer costs goes with the answer, not with the catalogue. And what such a catalogue takes of memory: in the index of the
//! server, and once more in the test's own catalogue behind it.
//!
//! `cargo bench -p arpanet-dns --bench many`, with a number: that many seconds of each.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/house/mod.rs"]
mod house;
#[path = "../../arpanet-cli/src/commands/bench/load.rs"]
mod load;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use self::house::{House, question};
use self::load::Load;

const INSTANCES: usize = 5;
const LOAD: Load = Load {
    clients: 2,
    out: 64,
    patience: Duration::from_millis(20),
};
/// Each is measured this often, in turn.
const ROUNDS: u32 = 5;
const SECONDS: u32 = 10;
/// Names that are asked for.
const ASKED: usize = 200;

fn main() {
    let seconds = std::env::args().find_map(|word| word.parse().ok());
    let round = Duration::from_secs(seconds.unwrap_or(SECONDS).into()) / ROUNDS;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut houses = Vec::new();
    for services in [20, 2_000, 20_000] {
        let (before, begun) = (resident(), Instant::now());
        let house = runtime.block_on(catalogue(services));
        let took = (begun.elapsed(), resident() - before);
        let step = services.div_ceil(ASKED);
        let questions: Vec<Vec<u8>> = (0..services)
            .step_by(step)
            .map(|service| {
                question(&format!("s{service}.service.consul."), RecordType::A)
                    .to_vec()
                    .unwrap()
            })
            .collect();
        LOAD.rate(house.at, &questions, round / 4, is_right)
            .unwrap();
        houses.push((services, house, questions, took, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, house, questions, _, rates) in &mut houses {
            rates.push(LOAD.rate(house.at, questions, round, is_right).unwrap());
        }
    }
    for (services, _, _, (time, bytes), rates) in &mut houses {
        rates.sort_by(f64::total_cmp);
        println!(
            "{:>7} instances: {:8.0} answers/s, made in {:6.0?}, {:4} MB",
            *services * INSTANCES,
            rates[rates.len() / 2],
            time,
            *bytes / 1_000_000
        );
    }
}

async fn catalogue(services: usize) -> House {
    let house = House::new().await;
    for service in 0..services {
        for instance in 0..INSTANCES {
            let number = u32::try_from(service * INSTANCES + instance).unwrap();
            let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + number);
            house
                .catalogue
                .instance(&format!("s{service}"), &ip.to_string(), 80);
        }
    }
    let last = format!("s{}.service.consul.", services - 1);
    house
        .until(&last, RecordType::A, |answer| {
            answer.answers.len() == INSTANCES
        })
        .await;
    house
}

fn is_right(answer: &[u8]) -> bool {
    Message::from_vec(answer).is_ok_and(|answer| house::ips(&answer).len() == INSTANCES)
}

/// What of this process is in memory, in bytes.
fn resident() -> u64 {
    let told = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
