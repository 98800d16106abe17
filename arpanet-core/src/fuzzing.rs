//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets and tests only"
)]

use std::fmt::{Debug, Display};
use std::str::FromStr;

pub use crate::cluster::fuzzing::records;
use crate::conformance::bytes::Draw;
use crate::{Claim, label};

const LABELS: [&str; 12] = [
    label::NET,
    label::IP,
    label::SERVICE,
    label::PORT,
    label::TAGS,
    label::CHECK,
    label::CHECK_INTERVAL,
    label::CHECK_TIMEOUT,
    label::CHECK_RISE,
    label::CHECK_FALL,
    label::CHECK_START,
    label::PLUGIN,
];

/// Addresses, networks, names and probes from text: what is read is written as it can be read again.
pub fn addresses(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    again::<crate::NodeAddr>(text);
    again::<crate::AppNet>(text);
    again::<crate::AppAddr>(text);
    again::<crate::NodeName>(text);
    again::<crate::ServiceName>(text);
    again::<crate::Tag>(text);
    again::<crate::ContainerName>(text);
    again::<crate::InstanceId>(text);
    again::<crate::EndpointId>(text);
    again::<crate::kv::Key>(text);
    again::<crate::runtime::NetRequest>(text);
    again::<crate::runtime::Probe>(text);
}

fn again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let Ok(read) = written.parse::<T>() else {
            panic!("{text:?} is written as {written:?}, which can't be read");
        };
        assert_eq!(read, value, "{text:?} is written as {written:?}");
    }
}

/// What a container of any docker client wants, from its labels and its environment: nothing is asked every zero seconds.
pub fn labels(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let weave = draw.coin().then(|| draw.text());
    let mut labels = std::collections::BTreeMap::new();
    while !draw.is_done() {
        labels.insert(draw.one_of(&LABELS).to_owned(), draw.text().to_owned());
    }
    let wants = label::read(&labels, weave);
    for check in &wants.checks {
        let times = [check.interval, check.timeout];
        assert!(times.iter().flatten().all(|time| !time.is_zero()));
    }
}

/// Any bytes as a claim: what is read is written as it was.
pub fn claim(bytes: &[u8]) {
    if let Ok(claim) = serde_json::from_slice::<Claim>(bytes) {
        let text = serde_json::to_vec(&claim).unwrap();
        assert_eq!(serde_json::from_slice::<Claim>(&text).unwrap(), claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::bytes::{hold, seeds};

    #[test]
    fn any_text_is_an_address_or_none() {
        hold(seeds("addresses"), 20_000, addresses);
    }

    #[test]
    fn any_labels_are_wishes_or_problems() {
        hold(seeds("labels"), 10_000, labels);
    }

    #[test]
    fn any_bytes_are_a_claim_or_none() {
        hold(seeds("state_files"), 20_000, claim);
    }

    #[test]
    fn any_records_of_others_leave_nothing() {
        hold(seeds("catalogue_records"), 2_000, records);
    }
}
