//! Addresses, networks, names and probes from text: what is read is written as it can be read again.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    again::<arpanet_core::NodeAddr>(text);
    again::<arpanet_core::AppNet>(text);
    again::<arpanet_core::AppAddr>(text);
    again::<arpanet_core::NodeName>(text);
    again::<arpanet_core::ServiceName>(text);
    again::<arpanet_core::Tag>(text);
    again::<arpanet_core::ContainerName>(text);
    again::<arpanet_core::InstanceId>(text);
    again::<arpanet_core::EndpointId>(text);
    again::<arpanet_core::runtime::NetRequest>(text);
    again::<arpanet_core::runtime::Probe>(text);
});

fn again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let Ok(read) = written.parse::<T>() else {
            panic!("{text:?} is written as {written:?}, which can't be read");
        };
        assert_eq!(read, value, "{text:?} is written as {written:?}");
    }
}
