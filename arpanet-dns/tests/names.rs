//! Which names are answered with what.
#![allow(clippy::unwrap_used)]

mod house;

use arpanet_core::discovery::{Health, MemberState};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use house::{House, instance, ips, member};

fn is_denied(answer: &hickory_proto::op::Message, code: ResponseCode) -> bool {
    answer.metadata.response_code == code
        && answer.metadata.authoritative
        && answer.answers.is_empty()
        && matches!(answer.authorities.as_slice(), [soa] if soa.record_type() == RecordType::SOA)
}

#[tokio::test]
async fn a_service_is_told_in_any_case_with_no_time_to_live() {
    let house = House::new().await;
    house.catalogue.instance("web", "10.1.0.5", 80);
    house.until_ips("web.service.consul.", &["10.1.0.5"]).await;
    let answer = house.ask("WeB.SERVICE.Consul.", RecordType::A).await;
    assert_eq!(
        ips(&answer),
        ["10.1.0.5".parse::<std::net::Ipv4Addr>().unwrap()]
    );
    assert_eq!(answer.answers[0].ttl, 0);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    for name in ["web.", "_web._tcp.service.consul.", "0a010005.addr.consul."] {
        assert_eq!(
            ips(&house.ask(name, RecordType::A).await),
            ips(&answer),
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_underscore_is_a_hyphen_as_engines_name_containers() {
    let house = House::new().await;
    house.catalogue.instance("shop-web-1", "10.1.0.5", 80);
    for name in ["shop_web_1.", "Shop_Web_1.service.consul."] {
        house.until_ips(name, &["10.1.0.5"]).await;
        // Both ways to an answer say the same.
        let srv = house.ask(name, RecordType::SRV).await;
        assert_eq!(srv.answers.len(), 1, "{name}: {srv}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_has_no_such_type_are_told_apart() {
    let house = House::new().await;
    house.catalogue.instance("web", "10.1.0.5", 0);
    house.until_ips("web.service.consul.", &["10.1.0.5"]).await;
    for name in [
        "nothing.service.consul.",
        "v2.web.service.consul.",
        "node9.node.consul.",
        "web.consul.",
        "a.b.c.consul.",
        "nothing.",
        "9.9.255.10.in-addr.arpa.",
    ] {
        let answer = house.ask(name, RecordType::A).await;
        assert!(
            is_denied(&answer, ResponseCode::NXDomain),
            "{name}: {answer}"
        );
    }
    for (name, kind) in [
        ("web.service.consul.", RecordType::AAAA),
        ("web.service.consul.", RecordType::MX),
        ("web.service.consul.", RecordType::SRV),
        ("node1.node.consul.", RecordType::AAAA),
        ("web.", RecordType::AAAA),
        ("service.consul.", RecordType::A),
        ("consul.", RecordType::A),
        ("5.0.1.10.in-addr.arpa.", RecordType::A),
    ] {
        let answer = house.ask(name, kind).await;
        assert!(
            is_denied(&answer, ResponseCode::NoError),
            "{name} {kind}: {answer}"
        );
    }
    let soa = house.ask("consul.", RecordType::SOA).await;
    assert_eq!(soa.answers.len(), 1);
}

#[tokio::test]
async fn instances_take_turns() {
    let house = House::new().await;
    let all = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];
    for ip in all {
        house.catalogue.instance("web", ip, 80);
    }
    house.until_ips("web.service.consul.", &all).await;
    let mut first = std::collections::BTreeMap::new();
    for _ in 0..30 {
        let told = house.ips("web.service.consul.").await;
        assert_eq!(told.len(), 3);
        *first.entry(told[0]).or_insert(0) += 1;
    }
    assert_eq!(first.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn tags_narrow_a_service() {
    let house = House::new().await;
    house.catalogue.instance("web", "10.1.0.1", 80);
    let tagged = instance("web", "10.1.0.2", 80, "0.1").tagged(["v2".parse().unwrap()]);
    house.catalogue.put(tagged);
    house
        .until_ips("web.service.consul.", &["10.1.0.1", "10.1.0.2"])
        .await;
    house
        .until_ips("V2.web.service.consul.", &["10.1.0.2"])
        .await;
    house
        .until_ips("_web._v2.service.consul.", &["10.1.0.2"])
        .await;
}

#[tokio::test]
async fn srv_tells_ports_and_addresses_beside() {
    let house = House::new().await;
    house.catalogue.instance("web", "10.1.0.5", 80);
    house.catalogue.instance("web", "10.1.0.5", 81);
    house.catalogue.instance("web", "10.1.0.6", 0);
    let answer = house
        .until("web.service.consul.", RecordType::SRV, |answer| {
            answer.answers.len() == 2
        })
        .await;
    let mut ports = Vec::new();
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else {
            panic!("{record}");
        };
        ports.push(srv.port);
        assert_eq!(srv.target.to_ascii(), "0a010005.addr.consul.");
    }
    ports.sort_unstable();
    assert_eq!(ports, [80, 81]);
    let [beside] = answer.additionals.as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(beside.name.to_ascii(), "0a010005.addr.consul.");
    assert!(matches!(&beside.data, RData::A(ip) if ip.0.octets() == [10, 1, 0, 5]));
    // One address is told once, however many ports it has.
    house
        .until_ips("web.service.consul.", &["10.1.0.5", "10.1.0.6"])
        .await;
}

#[tokio::test]
async fn nodes_have_names_in_both_directions() {
    let house = House::new().await;
    house.catalogue.instance("web", "10.1.0.5", 80);
    house.catalogue.instance("shop", "10.1.0.5", 81);
    house.until_ips("shop.service.consul.", &["10.1.0.5"]).await;
    house.until_ips("node1.node.consul.", &["10.255.0.1"]).await;
    house.until_ips("Node1.", &["10.255.0.1"]).await;
    let reverse = async |name: &str| -> Vec<String> {
        let answer = house.ask(name, RecordType::PTR).await;
        answer
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::PTR(name) => name.0.to_ascii(),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(
        reverse("1.0.255.10.in-addr.arpa.").await,
        ["node1.node.consul."]
    );
    assert_eq!(
        reverse("1.0.253.10.in-addr.arpa.").await,
        ["node1.node.consul."]
    );
    assert_eq!(
        reverse("5.0.1.10.in-addr.arpa.").await,
        ["shop.service.consul.", "web.service.consul."]
    );
}

#[tokio::test]
async fn only_passing_instances_on_nodes_in_reach_are_told() {
    let house = House::new().await;
    let catalogue = &house.catalogue;
    catalogue.node(2);
    catalogue.put(instance("web", "10.1.0.1", 80, "0.1"));
    catalogue.put(instance("web", "10.1.0.2", 80, "0.2"));
    let both = ["10.1.0.1", "10.1.0.2"];
    house.until_ips("web.service.consul.", &both).await;
    for away in [
        member(2).state(MemberState::Down),
        member(2).reachable(false),
    ] {
        catalogue.members.upsert(away.node, away.clone());
        house.until_ips("web.service.consul.", &["10.1.0.1"]).await;
        house.until_ips("node2.node.consul.", &[]).await;
        let suspect = member(2).state(MemberState::Suspect);
        catalogue.members.upsert(suspect.node, suspect);
        house.until_ips("web.service.consul.", &both).await;
    }
    for health in [Health::Critical, Health::Suspended] {
        catalogue.put(instance("web", "10.1.0.1", 80, "0.1").health(health));
        house.until_ips("web.service.consul.", &["10.1.0.2"]).await;
        catalogue.put(instance("web", "10.1.0.1", 80, "0.1"));
        house.until_ips("web.service.consul.", &both).await;
    }
    catalogue
        .instances
        .remove(&instance("web", "10.1.0.1", 80, "0.1").id);
    catalogue.members.remove(&"0.2".parse().unwrap());
    let answer = house
        .until("web.service.consul.", RecordType::A, |answer| {
            answer.answers.is_empty()
        })
        .await;
    assert!(is_denied(&answer, ResponseCode::NXDomain), "{answer}");
}

#[tokio::test]
async fn a_whole_new_snapshot_replaces_what_was_known() {
    let house = House::new().await;
    let old = house.catalogue.instance("web", "10.1.0.1", 80);
    house.until_ips("web.service.consul.", &["10.1.0.1"]).await;
    let new = instance("shop", "10.1.0.2", 80, "0.1");
    house
        .catalogue
        .instances
        .replace([(new.id.clone(), new)].into());
    house.until_ips("shop.service.consul.", &["10.1.0.2"]).await;
    house.until_ips("web.service.consul.", &[]).await;
    // An instance that moves to another service under its id leaves the old one.
    let mut moved = old;
    moved.service = "api".parse().unwrap();
    house.catalogue.put(moved.clone());
    house.until_ips("api.service.consul.", &["10.1.0.1"]).await;
    moved.service = "web".parse().unwrap();
    house.catalogue.put(moved);
    house.until_ips("web.service.consul.", &["10.1.0.1"]).await;
    house.until_ips("api.service.consul.", &[]).await;
}

#[tokio::test]
async fn resolve_answers_the_command_line() {
    let house = House::new().await;
    let tagged = instance("web", "10.1.0.2", 80, "0.1").tagged(["v2".parse().unwrap()]);
    house.catalogue.put(tagged);
    house.until_ips("web.service.consul.", &["10.1.0.2"]).await;
    for name in [
        "web",
        "WEB",
        "web.service.consul",
        "web.service.consul.",
        "v2.web",
    ] {
        assert_eq!(house.dns.resolve(name).await.len(), 1, "{name}");
    }
    assert_eq!(
        house.dns.resolve("node1").await[0].octets(),
        [10, 255, 0, 1]
    );
    for name in ["nothing", "example.com", "", "..", "v3.web"] {
        assert!(house.dns.resolve(name).await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn another_domain_can_be_served() {
    let house = House::with(arpanet_dns::DnsConfig::default().domain("cluster.local")).await;
    house.catalogue.instance("web", "10.1.0.2", 80);
    house
        .until_ips("web.service.cluster.local.", &["10.1.0.2"])
        .await;
    assert_eq!(house.dns.resolve("web").await.len(), 1);
}

#[tokio::test]
async fn a_change_is_told_within_milliseconds_of_being_known() {
    let house = House::new().await;
    let one = instance("web", "10.1.0.1", 80, "0.1");
    let mut lags = Vec::new();
    for _ in 0..25 {
        let started = std::time::Instant::now();
        house.catalogue.put(one.clone());
        house.until_ips("web.service.consul.", &["10.1.0.1"]).await;
        lags.push(started.elapsed());
        let started = std::time::Instant::now();
        house.catalogue.instances.remove(&one.id);
        house.until_ips("web.service.consul.", &[]).await;
        lags.push(started.elapsed());
    }
    lags.sort();
    let median = lags[lags.len() / 2];
    assert!(median < std::time::Duration::from_millis(20), "{lags:?}");
}
