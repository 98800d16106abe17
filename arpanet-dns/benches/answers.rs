//! Answers a second over UDP on loopback from a catalogue of 1,000 instances, beside threads that only send back what
//! they get, each datagram by itself. Clients, server and echo share the machine.
//!
//! `cargo bench -p arpanet-dns --bench answers`, with a number: that many seconds of each.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod asking;
#[path = "../tests/house/mod.rs"]
mod house;
#[path = "../../arpanet-cli/src/commands/bench/load.rs"]
mod load;

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use self::asking::{INSTANCES, LOAD, ROUNDS, is_right, median};

const SERVICES: usize = 200;

fn main() {
    let round = asking::round();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let house = runtime.block_on(asking::house(SERVICES));
    let questions = asking::questions(0..SERVICES);

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
        SERVICES * INSTANCES,
        LOAD.clients,
        LOAD.out,
    );
    println!("  echo    {echoed:8.0} datagrams/s");
    println!(
        "  DNS     {answered:8.0} answers/s, {:.2} of the echo",
        answered / echoed
    );
}
