//! What becomes of names and of packets.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn node(text: &str) -> NodeAddr {
    text.parse().unwrap()
}

/// Two networks and a /8 address on nodes 0.1 and 0.2, asked on 0.1.
fn known() -> Situation {
    let mut known = Situation::new(node("0.1"));
    known.members.insert(node("0.2"), MemberState::Alive);
    let mut peer = PeerStatus::new(node("0.2"), PeerState::Up);
    peer.endpoint = Some(([192, 168, 8, 121], 51820).into());
    known.peers.insert(node("0.2"), peer);
    for (addr, at) in [
        ("10.1.0.1/16", "0.1"),
        ("10.1.0.2/16", "0.2"),
        ("10.2.0.1/16", "0.1"),
        ("10.2.0.2/16", "0.2"),
        ("10.3.0.1/8", "0.1"),
        ("10.3.0.2/8", "0.2"),
    ] {
        known.hold(addr.parse().unwrap(), node(at), "c".parse().unwrap());
    }
    known
}

const ENDS: [&str; 10] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.2.0.1",
    "10.2.0.2",
    "10.3.0.1",
    "10.3.0.2",
    "10.255.0.1",
    "10.255.0.2",
    "10.254.0.2",
    "10.253.0.1",
];

fn stop(known: &Situation, from: &str, to: &str) -> Option<Stage> {
    let steps = packet(known, ip(from), ip(to));
    let last = steps.last().unwrap();
    (last.outcome == Outcome::Stops).then_some(last.stage)
}

#[test]
fn networks_are_kept_apart_from_everybody() {
    let known = known();
    let group = |end: &str| {
        end.split('.')
            .nth(1)
            .filter(|net| ["1", "2"].contains(net))
            .map(str::to_owned)
    };
    for from in ENDS {
        for to in ENDS {
            let expected = (group(from) != group(to)).then_some(Stage::Rule);
            assert_eq!(stop(&known, from, to), expected, "{from} to {to}");
        }
    }
}

#[test]
fn each_thing_that_is_missing_is_named() {
    let (from, to) = ("10.1.0.1", "10.1.0.2");
    let mut one = known();
    one.claims.remove(&ip(to));
    assert_eq!(stop(&one, from, to), Some(Stage::Claim));
    assert_eq!(stop(&one, from, "8.8.8.8"), Some(Stage::Claim));
    let mut one = known();
    one.attached.remove(&ip(from));
    assert_eq!(stop(&one, from, to), Some(Stage::Attachment));
    assert_eq!(stop(&one, to, from), Some(Stage::Attachment));
    let mut one = known();
    one.members.insert(node("0.2"), MemberState::Down);
    assert_eq!(stop(&one, from, to), Some(Stage::Member));
    one.members.remove(&node("0.2"));
    assert_eq!(stop(&one, from, to), Some(Stage::Member));
    for state in [PeerState::Connecting, PeerState::Down] {
        let mut one = known();
        one.peers
            .insert(node("0.2"), PeerStatus::new(node("0.2"), state));
        assert_eq!(stop(&one, from, to), Some(Stage::Connection));
        assert_eq!(stop(&one, from, "10.1.0.1"), None);
    }
    let mut one = known();
    one.peers.clear();
    assert_eq!(stop(&one, from, to), Some(Stage::Connection));
}

#[test]
fn between_two_others_the_connection_is_not_known() {
    let mut known = known();
    known.me = node("0.3");
    known.attached.clear();
    let steps = packet(&known, ip("10.1.0.1"), ip("10.1.0.2"));
    let last = steps.last().unwrap();
    assert_eq!(
        (last.stage, last.outcome),
        (Stage::Connection, Outcome::Unknown)
    );
}

fn instance(service: &str, ip: &str, net: Option<&str>, health: Health) -> Instance {
    let id = format!("{service}-{ip}").parse().unwrap();
    let mut instance = Instance::new(
        id,
        service.parse().unwrap(),
        ip.parse().unwrap(),
        80,
        node("0.1"),
    );
    instance.net = net.map(|net| net.parse().unwrap());
    instance.health = health;
    instance
}

#[test]
fn a_name_is_what_is_well_and_near() {
    let (red, blue) = (Some("10.1.0.0/16"), Some("10.2.0.0/16"));
    let all = [
        instance("web", "10.1.0.1", red, Health::Critical),
        instance("web", "10.2.0.1", blue, Health::Passing),
        instance("web", "10.1.0.2", red, Health::Passing),
        instance("ill", "10.1.0.3", red, Health::Suspended),
    ];
    let net = |text: Option<&str>| text.map(|net| net.parse().unwrap());
    let chosen = |asked: &str, from| name(asked, net(from), &all).1;
    assert_eq!(chosen("web", red), Some(ip("10.1.0.2")));
    assert_eq!(chosen("web", blue), Some(ip("10.2.0.1")));
    assert_eq!(chosen("web", Some("10.9.0.0/16")), Some(ip("10.2.0.1")));
    let stage = |asked: &str| name(asked, None, &all).0.last().unwrap().stage;
    assert_eq!((chosen("ill", red), stage("ill")), (None, Stage::Health));
    assert_eq!((chosen("none", red), stage("none")), (None, Stage::Name));
}

proptest! {
    /// Rules say the same of both directions: a question whose answer is lost is no way.
    #[test]
    fn who_reaches_is_reached(from in 0..ENDS.len(), to in 0..ENDS.len(), isolation in any::<bool>()) {
        let mut known = known();
        known.isolation = isolation;
        let (there, back) = (stop(&known, ENDS[from], ENDS[to]), stop(&known, ENDS[to], ENDS[from]));
        prop_assert_eq!(there, back);
    }
}
