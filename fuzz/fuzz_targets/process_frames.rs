//! Any bytes as frames of a shim's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_process::fuzzing::frames(bytes));
