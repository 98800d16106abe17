//! The body of a request that creates a container.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::ContainerDns;

/// The labels by which a container asks for an address of the overlay.
const LABELS: &[&str] = &["arpanet.net", "arpanet.ip", "arpanet.plugin"];

/// The same, as weave's users have it in the environment.
const WEAVE: &str = "WEAVE_CIDR=";

/// What a creation says.
pub(super) type Creation = Map<String, Value>;

pub(super) fn read(body: &[u8]) -> Option<Creation> {
    serde_json::from_slice(body).ok()
}

/// The network that it asks for, where that is one that somebody has made.
pub(super) fn network(body: &Creation) -> Option<&str> {
    let host = get(body, "HostConfig").and_then(Value::as_object)?;
    let name = get(host, "NetworkMode").and_then(Value::as_str)?;
    let is_own = matches!(name, "" | "default" | "bridge" | "host" | "none");
    (!is_own && !name.starts_with("container:")).then_some(name)
}

/// The body with the cluster's DNS; `None` where it stays as it is. `on_overlay` is for one whose network is the overlay's.
pub(super) fn with_dns(
    mut body: Creation,
    on_overlay: bool,
    dns: &ContainerDns,
) -> Option<Vec<u8>> {
    let mut host = match get(&body, "HostConfig") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(host)) => host.clone(),
        Some(_) => return None,
    };
    let attached = on_overlay || wants_address(&body);
    let servers = servers(&body, &host, attached, dns);
    if servers.is_empty() || !is_empty(get(&host, "Dns")) {
        return None;
    }
    put(&mut host, "Dns", json!(servers));
    if is_empty(get(&host, "DnsSearch")) && !dns.search.is_empty() {
        put(&mut host, "DnsSearch", json!(dns.search));
    }
    put(&mut body, "HostConfig", Value::Object(host));
    serde_json::to_vec(&body).ok()
}

/// Whether the body of a command's start says that the connection stays as it is.
pub(super) fn is_detached(body: &[u8]) -> bool {
    let body: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| get(&body, "Detach").and_then(Value::as_bool) == Some(true))
}

/// The servers that this container can reach.
fn servers<'a>(
    body: &Map<String, Value>,
    host: &Map<String, Value>,
    attached: bool,
    dns: &'a ContainerDns,
) -> &'a [Ipv4Addr] {
    let network = get(host, "NetworkMode")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let shares = network == "host" || network.starts_with("container:");
    let disabled = get(body, "NetworkDisabled").and_then(Value::as_bool) == Some(true);
    if shares || disabled {
        return &[];
    }
    match (attached, network) {
        (true, _) => &dns.attached,
        (false, "none") => &[],
        (false, _) => &dns.others,
    }
}

fn wants_address(body: &Map<String, Value>) -> bool {
    let labels = get(body, "Labels").and_then(Value::as_object);
    let by_label =
        labels.is_some_and(|labels| LABELS.iter().any(|name| labels.contains_key(*name)));
    let environment = get(body, "Env").and_then(Value::as_array);
    let mut variables = environment.into_iter().flatten().filter_map(Value::as_str);
    by_label
        || variables.any(|variable| variable.starts_with(WEAVE) && variable != "WEAVE_CIDR=none")
}

fn is_empty(list: Option<&Value>) -> bool {
    match list {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// A field as the engine finds it, which does not mind capitals.
fn get<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(&key(object, name))
}

fn put(object: &mut Map<String, Value>, name: &str, value: Value) {
    object.insert(key(object, name), value);
}

fn key(object: &Map<String, Value>, name: &str) -> String {
    let found = object.keys().find(|key| key.eq_ignore_ascii_case(name));
    found.map_or(name, String::as_str).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
    const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

    fn dns_of(body: &Value) -> Option<Value> {
        let dns = ContainerDns::default()
            .attached([ROUTER])
            .others([BRIDGE])
            .search(["service.consul".to_owned()]);
        let changed = with_dns(read(&serde_json::to_vec(body).unwrap())?, false, &dns)?;
        let mut changed: Value = serde_json::from_slice(&changed).unwrap();
        let host = changed["HostConfig"].as_object_mut().unwrap();
        let dns = host.remove("Dns").unwrap();
        let search = host.remove("DnsSearch").unwrap();
        assert_eq!(search, json!(["service.consul"]));
        Some(dns)
    }

    #[test]
    fn those_on_the_overlay_ask_the_router_and_others_the_bridge() {
        let plain = [
            json!({"Image": "a"}),
            json!({"HostConfig": null, "Env": ["WEAVE_CIDR=none"]}),
            json!({"HostConfig": {"Dns": [], "NetworkMode": "default"}, "Labels": {"arpanet": "x"}}),
            json!({"HostConfig": {"Dns": null, "NetworkMode": "mine"}}),
        ];
        for body in plain {
            assert_eq!(dns_of(&body), Some(json!([BRIDGE])), "{body}");
        }
        let attached = [
            json!({"Labels": {"arpanet.net": "10.1.0.0/16"}}),
            json!({"Labels": {"arpanet.ip": "10.1.0.5/16"}, "HostConfig": {"NetworkMode": "none"}}),
            json!({"Env": ["WEAVE_CIDR=10.1.0.5/16"]}),
        ];
        for body in attached {
            assert_eq!(dns_of(&body), Some(json!([ROUTER])), "{body}");
        }
    }

    #[test]
    fn leaves_alone_what_has_its_own_or_none() {
        for body in [
            json!({"HostConfig": {"Dns": ["8.8.8.8"]}}),
            json!({"hostconfig": {"dns": ["8.8.8.8"]}}),
            json!({"HostConfig": {"NetworkMode": "host"}}),
            json!({"HostConfig": {"NetworkMode": "none"}}),
            json!({"HostConfig": {"NetworkMode": "container:abc"}, "Labels": {"arpanet.net": "shop"}}),
            json!({"NetworkDisabled": true}),
            json!({"HostConfig": "x"}),
            json!([1, 2]),
        ] {
            assert_eq!(dns_of(&body), None, "{body}");
        }
        assert_eq!(read(b"{\"Image\": "), None);
        assert_eq!(
            with_dns(Creation::new(), true, &ContainerDns::default()),
            None
        );
    }

    #[test]
    fn keeps_everything_else() {
        let body = json!({
            "Image": "a", "Memory": 9_007_199_254_740_993_i64, "Unknown": {"deep": [1.5, "\u{1F600}"]},
            "hostConfig": {"Binds": ["/a:/b"], "dnssearch": ["own.example"]},
        });
        let dns = ContainerDns::default()
            .others([BRIDGE])
            .search(["service.consul".to_owned()]);
        let changed = with_dns(
            read(&serde_json::to_vec(&body).unwrap()).unwrap(),
            false,
            &dns,
        )
        .unwrap();
        let mut expected = body;
        expected["hostConfig"]["Dns"] = json!(["172.17.0.1"]);
        assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap(), expected);
    }
}
