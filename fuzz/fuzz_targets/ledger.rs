//! Any bytes as a ledger.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_netlink::fuzzing::ledger(bytes));
