//! What a container of any docker client wants, from its labels and its environment.
#![no_main]

use arpanet_core::label;
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|input: (Vec<(u8, String)>, Option<String>)| {
    let (labels, weave) = input;
    let labels = labels
        .into_iter()
        .map(|(name, value)| (LABELS[usize::from(name) % LABELS.len()].to_owned(), value));
    let wants = label::read(&labels.collect(), weave.as_deref());
    for check in &wants.checks {
        assert!([check.interval, check.timeout].iter().flatten().all(|time| !time.is_zero()));
    }
});
