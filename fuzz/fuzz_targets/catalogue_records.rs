//! Records of other nodes: claims, ranges, networks.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|said: Vec<(u16, Key, String, Option<Value>)>| {
    let said: Vec<_> = said
        .into_iter()
        .map(|(owner, key, rest, value)| (owner % 4, key.before(&rest), value.map(Value::written)))
        .collect();
    arpanet_core::cluster::fuzzing::records(&said);
});

#[derive(Debug, Arbitrary)]
enum Value {
    Claim { host: u8, node: u16, epoch: u64 },
    Deeds(Vec<(u32, u32, u16, u64)>),
    Other(Vec<u8>),
}

impl Value {
    fn written(self) -> Vec<u8> {
        let value = match self {
            Self::Claim { host, node, epoch } => json!({
                "addr": format!("10.1.0.{host}/16"),
                "node": format!("{}.{}", node >> 8 & 3, node & 3),
                "container": "web",
                "epoch": epoch,
            }),
            Self::Deeds(deeds) => deeds
                .into_iter()
                .map(|(first, last, node, version)| {
                    json!({
                        "first": Ipv4Addr::from(0x0a01_0000 | first & 0x1ff),
                        "last": Ipv4Addr::from(0x0a01_0000 | last & 0x1ff),
                        "owner": { "node": format!("0.{}", node & 3), "generation": node >> 15 },
                        "version": version,
                    })
                })
                .collect(),
            Self::Other(bytes) => return bytes,
        };
        value.to_string().into_bytes()
    }
}

#[derive(Debug, Arbitrary)]
enum Key {
    Claim,
    Range,
    Want,
    Network,
    Drain,
    Node,
    Overlay,
    Other,
}

impl Key {
    fn before(self, rest: &str) -> String {
        match self {
            Self::Claim => format!("claim/{rest}"),
            Self::Range => "range/10.1.0.0/24".to_owned(),
            Self::Want => format!("want/{rest}"),
            Self::Network => format!("network/{rest}"),
            Self::Drain => format!("drain/{rest}"),
            Self::Node => "node".to_owned(),
            Self::Overlay => "overlay".to_owned(),
            Self::Other => rest.to_owned(),
        }
    }
}
