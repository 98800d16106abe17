//! Datagrams of anybody.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_gossip::engine::fuzzing::outsider(bytes));
