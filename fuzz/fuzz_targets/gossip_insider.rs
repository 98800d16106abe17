//! Packets of a member that has the cluster's key and says what it likes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_gossip::engine::fuzzing::insider(bytes));
