//! Names of the domain that another server answers, as consul's own does.
#![allow(clippy::unwrap_used)]

mod house;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::ErrorKind;
use arpanet_dns::{DnsConfig, DnsServer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use house::resolver::{Resolver, addresses, failure};
use house::{Catalogue, House, ask_stream, ips, question, sockets};

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// An authority that has only these names, and what it was asked.
struct Authority {
    resolver: Resolver,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    async fn having(names: &'static [&'static str]) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let resolver = Resolver::new(move |question| {
            let name = question.queries[0].name().to_string();
            heard.lock().unwrap().push(name.clone());
            let has = names.contains(&name.to_ascii_lowercase().as_str());
            vec![match has {
                true => addresses(question, INSIDE, 1),
                false => failure(question, ResponseCode::NXDomain),
            }]
        })
        .await;
        Self { resolver, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// A server that asks it, and somebody outside about all else.
    async fn house(&self, outside: &Resolver) -> House {
        let config = DnsConfig::default()
            .authority(self.resolver.at)
            .upstreams([outside.at]);
        House::with(config).await
    }
}

#[tokio::test]
async fn services_are_asked_for_by_their_names_there_and_told_under_those_that_were_asked() {
    let authority = Authority::having(&[
        "web.service.consul.",
        "shop-web-1.service.consul.",
        "v2.web.service.consul.",
        "web.service.dc1.consul.",
        "nearest.query.consul.",
        "5.0.1.10.in-addr.arpa.",
    ])
    .await;
    let outside = Resolver::knowing(OUTSIDE).await;
    let house = authority.house(&outside).await;
    for (name, there) in [
        ("web.service.consul.", "web.service.consul."),
        ("WEB.Service.consul.", "WEB.Service.consul."),
        ("web.", "web.service.consul."),
        ("shop_web_1.service.consul.", "shop-web-1.service.consul."),
        ("Shop_Web_1.", "shop-web-1.service.consul."),
        ("v2.web.service.consul.", "v2.web.service.consul."),
        ("_web._tcp.service.consul.", "web.service.consul."),
        ("web.service.dc1.consul.", "web.service.dc1.consul."),
        ("nearest.query.consul.", "nearest.query.consul."),
        ("5.0.1.10.in-addr.arpa.", "5.0.1.10.in-addr.arpa."),
    ] {
        // That the question comes back as it was asked, letter by letter, is checked in there.
        let answer = house.ask(name, RecordType::A).await;
        assert_eq!(ips(&answer), [INSIDE], "{name}");
        let told = &answer.answers[0].name;
        assert_eq!(told.to_string().to_lowercase(), name.to_lowercase());
        assert_eq!(authority.asked(), [there], "{name}");
        let whole = ask_stream(house.at, &question(name, RecordType::A)).await;
        assert_eq!(ips(&whole), [INSIDE], "{name}");
        assert_eq!(authority.asked(), [there], "{name}");
    }
    for name in ["web", "v2.web", "web.service.consul", "shop_web_1"] {
        assert_eq!(house.dns.resolve(name).await, [INSIDE], "{name}");
    }
    // Whatever this server knows of services itself is not told.
    house.catalogue.instance("db", "10.1.0.9", 5432);
    let answer = house.ask("db.service.consul.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(house.dns.resolve("db").await.is_empty());
    assert_eq!(outside.asked(), 0);
}

#[tokio::test]
async fn nodes_are_still_answered_here_and_the_planes_asked_nowhere() {
    let authority = Authority::having(&["legacy.node.consul."]).await;
    let outside = Resolver::knowing(OUTSIDE).await;
    let house = authority.house(&outside).await;
    let node = Ipv4Addr::new(10, 255, 0, 1);
    house.until_ips("node1.node.consul.", &["10.255.0.1"]).await;
    let nowhere = house.ask("9.9.255.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(nowhere.metadata.response_code, ResponseCode::NXDomain);
    let named = house.ask("1.0.253.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(named.answers.len(), 1, "{named:?}");
    // A name that nodes here don't have may be one that consul has from elsewhere.
    let legacy = house.ips("legacy.node.consul.").await;
    assert_eq!(legacy, [INSIDE]);
    assert_eq!(authority.asked().last().unwrap(), "legacy.node.consul.");
    // A bare name is a service's, else a node's, else somebody else's.
    assert_eq!(house.ips("node1.").await, [node]);
    assert_eq!(authority.asked(), ["node1.service.consul."]);
    assert_eq!(outside.asked(), 0);
    assert_eq!(house.ips("printer.").await, [OUTSIDE]);
    assert_eq!(house.ips("example.com.").await, [OUTSIDE]);
    assert_eq!(authority.asked(), ["printer.service.consul."]);
    assert_eq!(house.dns.resolve("node1").await, [node]);
    assert!(house.dns.resolve("printer").await.is_empty());
    assert!(house.dns.resolve("example.com").await.is_empty());
}

#[tokio::test]
async fn an_authority_that_says_nothing_is_a_failure_and_nobody_else_is_asked() {
    let silent = Resolver::silent().await;
    let outside = Resolver::knowing(OUTSIDE).await;
    let config = DnsConfig::default()
        .authority(silent.at)
        .upstreams([outside.at])
        .timeout(Duration::from_millis(50));
    let house = House::with(config).await;
    house.catalogue.instance("web", "10.1.0.9", 80);
    for name in ["web.service.consul.", "web."] {
        let answer = house.ask(name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(silent.asked(), 2);
    assert_eq!(outside.asked(), 0);
    assert!(house.dns.resolve("web").await.is_empty());
}

#[tokio::test]
async fn a_server_that_is_its_own_authority_is_refused() {
    let (udp, tcp) = sockets();
    let at = udp.local_addr().unwrap();
    let config = DnsConfig::default().authority(at);
    let catalogue = Arc::new(Catalogue::default());
    let refused = DnsServer::start(config, catalogue, vec![(udp, tcp)]).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    assert!(error.hint().is_some());
}
