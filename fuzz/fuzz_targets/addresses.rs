//! Addresses, networks, names and probes from text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_core::fuzzing::addresses(bytes));
