//! What clients of the docker API send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_docker::fuzzing::docker_requests(bytes));
