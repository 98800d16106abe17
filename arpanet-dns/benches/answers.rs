//! Answers a second over UDP on loopback from a catalogue of 1,000 instances, beside threads that only send back what
//! they get, each datagram by itself. Clients, server and echo share the machine.
//!
//! `cargo bench -p arpanet-dns --bench answers`, with a number: that many seconds of each.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/house/mod.rs"]
mod house;
#[path = "../../arpanet-cli/src/commands/bench/load.rs"]
mod load;

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use self::house::{House, question};
use self::load::Load;

const SERVICES: u8 = 200;
const INSTANCES: u8 = 5;
/// How many ask at once. A question that is lost was lost by a full buffer: nothing here takes as long.
const LOAD: Load = Load {
    clients: 2,
    out: 64,
    patience: Duration::from_millis(20),
};
/// Each thing is measured this often, in turn, so that what else the machine does meets both alike.
const ROUNDS: u32 = 5;
const SECONDS: u32 = 10;

fn main() {
    let seconds = std::env::args().find_map(|word| word.parse().ok());
    let round = Duration::from_secs(seconds.unwrap_or(SECONDS).into()) / ROUNDS;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let house = runtime.block_on(catalogue());
    let questions: Vec<Vec<u8>> = (0..SERVICES)
        .map(|service| {
            question(&format!("s{service}.service.consul."), RecordType::A)
                .to_vec()
                .unwrap()
        })
        .collect();

    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let echo_at = echo.local_addr().unwrap();
    for _ in 0..2 {
        let echo = echo.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(&buffer[..length], from).unwrap();
            }
        });
    }

    // Both once for nothing: threads start, and the processor finds its clock.
    LOAD.rate(echo_at, &questions, round / 4, |_| true).unwrap();
    LOAD.rate(house.at, &questions, round / 4, is_right)
        .unwrap();
    let mut echoed = Vec::new();
    let mut answered = Vec::new();
    for _ in 0..ROUNDS {
        echoed.push(LOAD.rate(echo_at, &questions, round, |_| true).unwrap());
        answered.push(LOAD.rate(house.at, &questions, round, is_right).unwrap());
    }
    let (echoed, answered) = (median(echoed), median(answered));
    println!(
        "{} instances of {SERVICES} services, {INSTANCES} addresses an answer, {} clients with {} questions out",
        usize::from(SERVICES) * usize::from(INSTANCES),
        LOAD.clients,
        LOAD.out,
    );
    println!("  echo    {echoed:8.0} datagrams/s");
    println!(
        "  DNS     {answered:8.0} answers/s, {:.2} of the echo",
        answered / echoed
    );
}

async fn catalogue() -> House {
    let house = House::new().await;
    for service in 0..SERVICES {
        for instance in 0..INSTANCES {
            let ip = format!("10.1.{service}.{}", instance + 1);
            house.catalogue.instance(&format!("s{service}"), &ip, 80);
        }
    }
    let last = format!("s{}.service.consul.", SERVICES - 1);
    house
        .until(&last, RecordType::A, |answer| {
            answer.answers.len() == usize::from(INSTANCES)
        })
        .await;
    house
}

fn is_right(answer: &[u8]) -> bool {
    Message::from_vec(answer)
        .is_ok_and(|answer| house::ips(&answer).len() == usize::from(INSTANCES))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
