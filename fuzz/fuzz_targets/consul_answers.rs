//! Whatever a consul answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_consul::fuzzing::answers(bytes));
