//! The letters in which the cluster's key travels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_gossip::engine::fuzzing::letters(bytes));
