//! What a container of any docker client wants.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_core::fuzzing::labels(bytes));
