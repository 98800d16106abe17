//! What all benchmarks of answers a second ask, of whom, and for how long.

use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use crate::house::{self, House, question};
use crate::load::Load;

/// Of each service: so many addresses an answer.
pub(crate) const INSTANCES: usize = 5;
/// How many ask at once. A question that is lost was lost by a full buffer: nothing here takes as long.
pub(crate) const LOAD: Load = Load {
    clients: 2,
    out: 64,
    patience: Duration::from_millis(20),
};
/// Each thing is measured this often, in turn, so that what else the machine does meets all alike.
pub(crate) const ROUNDS: u32 = 5;
/// Of each thing, unless a number is given.
const SECONDS: u32 = 10;

/// How long a round is.
pub(crate) fn round() -> Duration {
    let seconds = std::env::args().find_map(|word| word.parse().ok());
    Duration::from_secs(seconds.unwrap_or(SECONDS).into()) / ROUNDS
}

/// A server that knows so many services.
pub(crate) async fn house(services: usize) -> House {
    let house = House::new().await;
    for number in 0..services * INSTANCES {
        let service = format!("s{}", number / INSTANCES);
        let number = u32::try_from(number).unwrap();
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + number);
        house.catalogue.instance(&service, &ip.to_string(), 80);
    }
    let last = name(services - 1);
    house
        .until(&last, RecordType::A, |answer| {
            answer.answers.len() == INSTANCES
        })
        .await;
    house
}

fn name(service: usize) -> String {
    format!("s{service}.service.consul.")
}

/// Questions for these services.
pub(crate) fn questions(services: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    services
        .map(|service| {
            let question = question(&name(service), RecordType::A);
            question.to_vec().unwrap()
        })
        .collect()
}

pub(crate) fn is_right(answer: &[u8]) -> bool {
    Message::from_vec(answer).is_ok_and(|answer| house::ips(&answer).len() == INSTANCES)
}

pub(crate) fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
