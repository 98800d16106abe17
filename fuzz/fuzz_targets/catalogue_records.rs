//! Records of other nodes: claims, ranges, networks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_core::fuzzing::records(bytes));
