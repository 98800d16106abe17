//! Whatever an applicant that knows the password asks a seed for, and whatever a seed answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &[u8]| {
    arpanet_join::fuzzing::applicant(said, false);
    arpanet_join::fuzzing::applicant(said, true);
    arpanet_join::fuzzing::answers(said);
});
