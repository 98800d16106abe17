//! Any bytes as a question to the DNS server.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Nobody, containers of two networks, a host.
const SOURCES: [Option<u32>; 4] = [None, Some(0x0a01_0009), Some(0x0a02_0009), Some(0x0aff_0001)];

fuzz_target!(|asked: &[u8]| {
    let Some((how, message)) = asked.split_first() else {
        return;
    };
    let source = SOURCES[usize::from(how >> 1) % SOURCES.len()];
    arpanet_dns::fuzzing::question(message, source, how % 2 == 0);
});
