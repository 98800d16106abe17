//! What clients of the docker API send: where requests end, and what creates a container.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|sent: &[u8]| {
    let Some((cut, bytes)) = sent.split_first() else {
        return;
    };
    arpanet_docker::fuzzing::requests(bytes, usize::from(*cut));
    arpanet_docker::fuzzing::creation(bytes, cut % 2 == 0);
});
