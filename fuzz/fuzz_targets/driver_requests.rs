//! What an engine asks the network driver.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_docker::driver::fuzzing::requests(bytes));
