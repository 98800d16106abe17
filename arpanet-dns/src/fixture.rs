//! A cluster's names, and what is said to bytes of a question: for tests and fuzz targets.
#![allow(clippy::unwrap_used, reason = "for tests and fuzz targets only")]

use std::net::Ipv4Addr;

use arpanet_core::discovery::{Instance, Member};
use arpanet_core::roster::Role;
use arpanet_core::watch::Change;

use crate::DnsConfig;
use crate::answering::{Answered, Shared};
use crate::quick::Scratch;
use crate::upstream::By;

/// `web` in two networks and in none, `blue` in the one only, `many` with a hundred; node1.
pub(crate) fn shared(config: DnsConfig) -> Shared {
    let shared = Shared::new(config).unwrap();
    let mut index = shared.index().write().unwrap();
    let node = "0.1".parse().unwrap();
    let member = Member::new(node, "node1".parse().unwrap(), Role::Boot);
    index.apply_members(Change::Upsert(node, member));
    let mut add = |service: &str, ip: &str, net: Option<&str>, tag: Option<&str>| {
        let id = format!("{service}:{ip}:{tag:?}").replace(['(', ')', '"'], "-");
        let mut instance = Instance::new(
            id.parse().unwrap(),
            service.parse().unwrap(),
            ip.parse().unwrap(),
            80,
            node,
        );
        instance.net = net.map(|net| net.parse().unwrap());
        instance = instance.tagged(tag.map(|tag| tag.parse().unwrap()));
        index.apply_instances(Change::Upsert(instance.id.clone(), instance));
    };
    const RED: Option<&str> = Some("10.1.0.0/16");
    const BLUE: Option<&str> = Some("10.2.0.0/16");
    add("web", "10.1.0.1", RED, None);
    add("web", "10.1.0.2", RED, Some("v2"));
    add("web", "10.2.0.1", BLUE, None);
    add("web", "10.2.0.2", BLUE, Some("v3"));
    add("web", "10.255.0.1", None, None);
    add("blue", "10.2.0.9", BLUE, None);
    // One address under two ids.
    add("twice", "10.1.0.7", RED, None);
    add("twice", "10.1.0.7", RED, Some("v2"));
    for number in 0..100 {
        add("many", &format!("10.1.1.{number}"), RED, None);
    }
    drop(index);
    shared
}

pub(crate) fn say(
    shared: &Shared,
    message: &[u8],
    source: Option<Ipv4Addr>,
    by: By,
) -> Option<Vec<u8>> {
    let mut scratch = Scratch::default();
    match shared.answer(message, source, by, &mut scratch) {
        Answered::Now => Some(scratch.answer),
        Answered::Later { .. } | Answered::Never => None,
    }
}
