//! Any bytes as a question to the DNS server.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_dns::fuzzing::question(bytes));
