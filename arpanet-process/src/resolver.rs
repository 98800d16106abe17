//! The files that a container finds in /etc. Pure.

use std::fmt::Write;

use arpanet_core::runtime::{ContainerSpec, NetRequest};

/// /etc/resolv.conf (resolv.conf(5)); `None` leaves the host's in place.
pub(crate) fn resolv_conf(spec: &ContainerSpec) -> Option<String> {
    if spec.dns.is_empty() && spec.dns_search.is_empty() {
        return None;
    }
    let mut text = String::new();
    for server in &spec.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !spec.dns_search.is_empty() {
        let _ = writeln!(text, "search {}", spec.dns_search.join(" "));
    }
    Some(text)
}

/// /etc/hosts (hosts(5)): itself, by its own addresses where it has some.
pub(crate) fn hosts(spec: &ContainerSpec) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n");
    let Some(name) = &spec.name else {
        return text;
    };
    let mut named = false;
    for request in &spec.nets {
        if let NetRequest::Addr(addr) = request {
            let _ = writeln!(text, "{}\t{name}", addr.ip());
            named = true;
        }
    }
    if !named {
        let _ = writeln!(text, "127.0.1.1\t{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_listed_in_order() {
        let mut spec = ContainerSpec::command(["true"]);
        assert_eq!(resolv_conf(&spec), None);
        spec.dns = vec!["169.254.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        spec.dns_search = vec!["service.consul".to_owned(), "a.b".to_owned()];
        assert_eq!(
            resolv_conf(&spec).unwrap(),
            "nameserver 169.254.1.1\nnameserver 10.0.0.1\nsearch service.consul a.b\n"
        );
    }

    #[test]
    fn a_container_finds_itself_by_name() {
        let spec = ContainerSpec::command(["true"]).named("w1".parse().unwrap());
        assert!(hosts(&spec).contains("127.0.1.1\tw1\n"));
        let spec = spec.addr("10.1.0.5/16".parse().unwrap());
        assert!(hosts(&spec).contains("10.1.0.5\tw1\n"));
        assert!(!hosts(&spec).contains("127.0.1.1"));
    }
}
