//! Packets that a member has sent through the tunnel, on their way to the device.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    arpanet_wireguard::tunnel::fuzzing::packets(input);
});
