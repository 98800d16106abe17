//! Whatever a stranger sends to a seed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_join::fuzzing::stranger(bytes));
