//! What proving the password costs with the default parameters: founding is one Argon2id hash, a join on loopback one and
//! the conversation.
//!
//! `cargo bench -p arpanet-join --bench kdf`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/house/mod.rs"]
mod house;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arpanet_core::admission::{Admission, Seed};
use arpanet_core::roster::Role;
use arpanet_join::{JoinAdmission, JoinConfig, KdfParams, NodeIdentity};
use house::{Book, PASSWORD, info, password};

const ROUNDS: u8 = 20;

fn main() {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(measure());
}

async fn measure() {
    let word = password(PASSWORD);
    let boot = info("0.1", "one", Role::Boot);
    let mut founding = Vec::new();
    let mut joining = Vec::new();
    for round in 0..ROUNDS {
        let seed = admission();
        let started = Instant::now();
        let membership = seed.found(&word, &boot).await.unwrap();
        founding.push(started.elapsed());
        let book = Arc::new(Book(Mutex::new(membership.roster.clone())));
        seed.serve(&membership, book).await.unwrap();
        let at = Seed::new(boot.node, seed.local_addr().unwrap());
        let me = info(&format!("0.{}", round + 2), "two", Role::Server);
        let joiner = admission();
        let started = Instant::now();
        joiner.join(&word, &me, at, false).await.unwrap();
        joining.push(started.elapsed());
    }
    println!("{:?}, median (worst) of {ROUNDS}", KdfParams::default());
    println!("  found  {}", shown(founding));
    println!("  join   {}", shown(joining));
}

fn admission() -> JoinAdmission {
    let config = JoinConfig::default().listen("127.0.0.1:0".parse().unwrap());
    JoinAdmission::new(config.udp_port(40000), NodeIdentity::generate().unwrap())
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let [median, worst] = [times[times.len() / 2], times[times.len() - 1]];
    format!("{} ms ({} ms)", median.as_millis(), worst.as_millis())
}
