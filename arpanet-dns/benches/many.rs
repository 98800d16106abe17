//! Answers a second over UDP on loopback from catalogues of 100, 10,000 and 100,000 instances, five to a service: what an
//! answer costs goes with the answer, not with the catalogue. And what such a catalogue takes of memory: in the index of the
//! server, and once more in the test's own catalogue behind it.
//!
//! `cargo bench -p arpanet-dns --bench many`, with a number: that many seconds of each.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod asking;
#[path = "../tests/house/mod.rs"]
mod house;
#[path = "../../arpanet-cli/src/commands/bench/load.rs"]
mod load;

use std::time::Instant;

use self::asking::{INSTANCES, LOAD, ROUNDS, is_right, median};

/// Names that are asked for.
const ASKED: usize = 200;

fn main() {
    let round = asking::round();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut houses = Vec::new();
    for services in [20, 2_000, 20_000] {
        let (before, begun) = (resident(), Instant::now());
        let house = runtime.block_on(asking::house(services));
        let took = (begun.elapsed(), resident() - before);
        let questions = asking::questions((0..services).step_by(services.div_ceil(ASKED)));
        LOAD.rate(house.at, &questions, round / 4, is_right)
            .unwrap();
        houses.push((services, house, questions, took, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, house, questions, _, rates) in &mut houses {
            rates.push(LOAD.rate(house.at, questions, round, is_right).unwrap());
        }
    }
    for (services, _, _, (time, bytes), rates) in houses {
        println!(
            "{:>7} instances: {:8.0} answers/s, made in {:6.0?}, {:4} MB",
            services * INSTANCES,
            median(rates),
            time,
            bytes / 1_000_000
        );
    }
}

/// What of this process is in memory, in bytes.
fn resident() -> u64 {
    let told = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
