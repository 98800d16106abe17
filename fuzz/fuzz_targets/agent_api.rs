//! Whatever is asked of the agent's API.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_cli::fuzzing::requests(bytes));
