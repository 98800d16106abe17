//! Datagrams at the tunnel's port, of who knows its key and of who does not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    arpanet_wireguard::tunnel::fuzzing::datagrams(input);
});
