//! Whatever a weave router reports.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_weave::fuzzing::reports(bytes));
