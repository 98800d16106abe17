//! What a router makes on its host before it does anything else, as net/bridge.go and net/expose.go do.

use std::process::Command;

use arpanet_netlink::{MacAddr, Namespace};

use super::fatal;
use super::options::Options;

fn iptables(words: &[&str]) -> bool {
    let output = Command::new("iptables")
        .args(["-w", "5"])
        .args(words)
        .output();
    output.is_ok_and(|output| output.status.success())
}

fn append_unique(table: &str, chain: &str, rule: &[&str]) {
    let with = |verb| [&["-t", table, verb, chain], rule].concat();
    if !iptables(&with("-C")) {
        iptables(&with("-A"));
    }
}

pub(super) fn lay(options: &Options) {
    let bridge = options.bridge.as_str();
    // Flushed at each launch.
    for (table, chain) in [("filter", "WEAVE-EXPOSE"), ("nat", "WEAVE")] {
        if !iptables(&["-t", table, "-N", chain]) {
            iptables(&["-t", table, "-F", chain]);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| fatal(&error.to_string()));
    let made = runtime.block_on(async {
        let host = Namespace::current()?.handle()?;
        host.add_bridge(bridge).await?;
        host.set_mac(bridge, mac(&options.name)).await?;
        host.set_up(bridge, true).await?;
        let addresses = host.addresses().await?;
        Ok::<_, arpanet_core::Error>(addresses)
    });
    let addresses = made.unwrap_or_else(|error| fatal(&error.to_string()));
    if let Some((_, port)) = options.http.rsplit_once(':') {
        let comment = "Block non-local access to Weave Net control port";
        let to = ["-p", "tcp", "--dst", "127.0.0.1", "--dport", port];
        let from = ["-m", "addrtype", "!", "--src-type", "LOCAL"];
        let what = ["-m", "comment", "--comment", comment, "-j", "DROP"];
        append_unique("filter", "INPUT", &[&to[..], &from, &what].concat());
    }
    append_unique(
        "filter",
        "FORWARD",
        &["-i", bridge, "-o", bridge, "-j", "ACCEPT"],
    );
    append_unique("filter", "FORWARD", &["-o", bridge, "-j", "WEAVE-EXPOSE"]);
    append_unique(
        "filter",
        "FORWARD",
        &["-i", bridge, "!", "-o", bridge, "-j", "ACCEPT"],
    );
    append_unique("nat", "POSTROUTING", &["-j", "WEAVE"]);
    // What the bridge has from before is exposed again, and masqueraded.
    for address in addresses.iter().filter(|address| address.link == bridge) {
        let net = address.address.to_string();
        if address.address.addr().is_ipv4() {
            append_unique(
                "nat",
                "WEAVE",
                &["-d", &net, "!", "-s", &net, "-j", "MASQUERADE"],
            );
            append_unique(
                "nat",
                "WEAVE",
                &["-s", &net, "!", "-d", &net, "-j", "MASQUERADE"],
            );
            append_unique("filter", "WEAVE-EXPOSE", &["-d", &net, "-j", "ACCEPT"]);
        }
    }
}

fn mac(name: &str) -> MacAddr {
    let bytes: Vec<u8> = name
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    match bytes.try_into() {
        Ok(bytes) => MacAddr::new(bytes),
        Err(_) => fatal(&format!("{name:?} is no name")),
    }
}
