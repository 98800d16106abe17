//! Whatever an applicant that knows the password asks a seed for, and whatever a seed answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arpanet_join::fuzzing::applicants_and_seeds(bytes));
