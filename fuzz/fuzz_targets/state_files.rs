//! Any bytes as what a node keeps between starts.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    arpanet_join::fuzzing::state(bytes);
    arpanet_gossip::engine::fuzzing::state(bytes);
    arpanet_core::fuzzing::claim(bytes);
});
