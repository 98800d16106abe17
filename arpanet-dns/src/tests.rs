//! What the server says to bytes, without sockets: whoever asks, from wherever, whatever it sends.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use crate::DnsConfig;
use crate::answering::Answered;
use crate::fixture::{say, shared};
use crate::quick::Scratch;
use crate::upstream::By;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn told(answer: &Message) -> BTreeSet<String> {
    let ip = |data: &RData| match data {
        RData::A(ip) => Some(ip.0.to_string()),
        _ => None,
    };
    let answers = answer.answers.iter().chain(&answer.additionals);
    answers.filter_map(|record| ip(&record.data)).collect()
}

fn set<const N: usize>(ips: [&str; N]) -> BTreeSet<String> {
    ips.map(str::to_owned).into()
}

#[test]
fn whoever_asks_from_a_network_hears_of_what_it_can_reach() {
    let shared = shared(DnsConfig::default());
    let ask = |name: &str, kind, from: &str| {
        let bytes = question(name, kind).to_vec().unwrap();
        let from = Some(from.parse().unwrap());
        let bytes = say(&shared, &bytes, from, By::Datagram).unwrap();
        told(&Message::from_vec(&bytes).unwrap())
    };
    let all = set(["10.1.0.1", "10.1.0.2", "10.2.0.1", "10.2.0.2", "10.255.0.1"]);
    // By the quick way and by the long one.
    for kind in [RecordType::A, RecordType::SRV] {
        let web = |from| ask("web.service.consul.", kind, from);
        assert_eq!(web("10.1.0.99"), set(["10.1.0.1", "10.1.0.2"]));
        assert_eq!(web("10.1.255.255"), set(["10.1.0.1", "10.1.0.2"]));
        assert_eq!(web("10.2.0.0"), set(["10.2.0.1", "10.2.0.2"]));
        // A host, a container in a network of which nothing is known, somebody outside.
        for from in ["10.255.0.2", "10.3.0.1", "10.0.0.9", "192.168.8.1"] {
            assert_eq!(web(from), all, "{from}");
        }
        // It may be in the other network too, by another address.
        let blue = ask("blue.service.consul.", kind, "10.1.0.99");
        assert_eq!(blue, set(["10.2.0.9"]));
        let tagged = |from| ask("v3.web.service.consul.", kind, from);
        assert_eq!(tagged("10.1.0.99"), set(["10.2.0.2"]));
        assert_eq!(tagged("10.2.0.99"), set(["10.2.0.2"]));
        assert_eq!(ask("web.", kind, "10.2.0.99"), web("10.2.0.99"));
    }
}

#[test]
fn a_libc_that_asks_for_both_kinds_of_address_meets_every_instance() {
    let shared = shared(DnsConfig::default());
    let from = Some("10.1.0.99".parse().unwrap());
    let mut first = BTreeSet::new();
    for _ in 0..2 {
        for kind in [RecordType::A, RecordType::AAAA] {
            let bytes = question("web.service.consul.", kind).to_vec().unwrap();
            let bytes = say(&shared, &bytes, from, By::Datagram).unwrap();
            let answer = Message::from_vec(&bytes).unwrap();
            first.extend(answer.answers.first().map(|record| record.data.to_string()));
        }
    }
    assert_eq!(first, set(["10.1.0.1", "10.1.0.2"]));
}

#[test]
fn the_letters_of_a_question_come_back_as_they_were() {
    let shared = shared(DnsConfig::default());
    for name in [
        "wEb.SeRvIcE.cOnSuL.",
        "V2.wEb.SERVICE.consul.",
        "_wEb._tCp.service.consul.",
        "NODE1.node.consul.",
        "nOTHING.service.consul.",
        "wEB.",
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
            let asked = question(name, kind).to_vec().unwrap();
            let said = say(&shared, &asked, None, By::Datagram).unwrap();
            assert_eq!(said[12..asked.len()], asked[12..], "{name} {kind}");
            let answer = Message::from_vec(&said).unwrap();
            for record in &answer.answers {
                assert_eq!(record.name.to_ascii(), name);
                assert_eq!(record.ttl, 0);
            }
        }
    }
}

#[test]
fn a_name_that_can_t_be_is_told_so() {
    let shared = shared(DnsConfig::default());
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let wire = |labels: &[&[u8]]| {
        let mut message = head.to_vec();
        for label in labels {
            message.push(label.len().try_into().unwrap());
            message.extend_from_slice(label);
        }
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        message
    };
    let code = |message: &[u8]| {
        let said = say(&shared, message, None, By::Datagram).unwrap();
        assert_eq!(said[..2], [0, 7]);
        ResponseCode::from(0, said[3] & 0x0f)
    };
    fn with<'a>(labels: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let consul: [&[u8]; 2] = [b"service", b"consul"];
        [labels, &consul].concat()
    }
    assert_eq!(code(&wire(&with(&[b"web"]))), ResponseCode::NoError);
    assert_eq!(code(&wire(&with(&[&[b'a'; 63]]))), ResponseCode::NXDomain);
    // A label of 64 octets is no label, and a name of 256 no name.
    assert_eq!(code(&wire(&with(&[&[b'a'; 64]]))), ResponseCode::FormErr);
    let long: [&[u8]; 5] = [&[b'a'; 63]; 5];
    assert_eq!(code(&wire(&with(&long))), ResponseCode::FormErr);
    for label in [b"w\xffb".as_slice(), b"w.b", b"\0", b"we b"] {
        assert_eq!(code(&wire(&with(&[label]))), ResponseCode::NXDomain);
    }
    // A pointer to itself, and one that leads nowhere.
    for pointer in [12, 200] {
        let mut looped = head.to_vec();
        looped.extend_from_slice(&[0xc0, pointer, 0, 1, 0, 1]);
        assert_eq!(code(&looped), ResponseCode::FormErr);
    }
    // Cut short, at every byte: never an answer to what was not asked.
    let whole = wire(&with(&[b"web"]));
    for end in 0..whole.len() {
        let said = say(&shared, &whole[..end], None, By::Datagram);
        let code = said.map(|said| said[3] & 0x0f);
        assert_eq!(code, (end >= 12).then_some(1), "{end}");
    }
    // An answer is no question, and is never answered.
    let mut response = whole;
    response[2] |= 0x80;
    assert_eq!(say(&shared, &response, None, By::Datagram), None);
    assert_eq!(say(&shared, &response[..14], None, By::Datagram), None);
}

fn names() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        Just("web"),
        Just("WEB"),
        Just("many"),
        Just("twice"),
        Just("blue"),
        Just("node1"),
        Just("node"),
        Just("service"),
        Just("Consul"),
        Just("v2"),
        Just("_web"),
        Just("_tcp"),
        Just("_v2"),
        Just("x"),
    ];
    let service = proptest::collection::vec(label.clone(), 1..4)
        .prop_map(|labels| format!("{}.service.consul.", labels.join(".")));
    let any =
        proptest::collection::vec(label, 0..6).prop_map(|labels| format!("{}.", labels.join(".")));
    prop_oneof![2 => service, 1 => any]
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let kinds = proptest::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::PTR,
        RecordType::ANY,
    ]);
    let edns = proptest::option::of(any::<u16>());
    (names(), kinds, edns, any::<[bool; 3]>()).prop_map(|(name, kind, edns, flags)| {
        let mut message = question(&name, kind);
        let [desired, checking_disabled, authentic] = flags;
        message.metadata.recursion_desired = desired;
        message.metadata.checking_disabled = checking_disabled;
        message.metadata.authentic_data = authentic;
        message.edns = edns.map(|most| {
            let mut edns = Edns::new();
            edns.set_max_payload(most);
            edns
        });
        message.to_vec().unwrap()
    })
}

fn sources() -> impl Strategy<Value = Option<Ipv4Addr>> {
    let known = proptest::sample::select(vec![[10, 1, 0, 9], [10, 2, 0, 9], [10, 255, 0, 1]]);
    proptest::option::of(known.prop_map(Ipv4Addr::from))
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        let shared = shared(DnsConfig::default());
        say(&shared, &message, None, By::Datagram);
        say(&shared, &message, None, By::Stream);
    }

    #[test]
    fn a_question_with_some_bytes_changed_is_answered_within_its_limit(
        message in messages(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let shared = shared(DnsConfig::default());
        let mut message = message;
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message.extend(tail);
        if let Some(said) = say(&shared, &message, None, By::Datagram) {
            prop_assert!(said.len() <= 1232);
            prop_assert_eq!(&said[..2], &message[..2]);
            prop_assert!(Message::from_vec(&said).is_ok() || said.len() == 12);
        }
    }

    /// The quick way is only a way.
    #[test]
    fn the_quick_way_says_what_the_long_one_says(
        message in messages(),
        source in sources(),
        forwards in any::<bool>(),
        stream in any::<bool>(),
    ) {
        let upstreams = forwards.then(|| ([192, 0, 2, 1], 53).into());
        let config = DnsConfig::default().upstreams(upstreams);
        // Two, so that it is the same instance's turn in both.
        let [one, two] = [config.clone(), config].map(shared);
        let by = if stream { By::Stream } else { By::Datagram };
        let [mut quick, mut slow] = [Scratch::default(), Scratch::default()];
        if one.quickly(&message, source, by, &mut quick) {
            let answered = two.slowly(&message, source, by, &mut slow);
            prop_assert!(matches!(answered, Answered::Now));
            let [quick, slow] =
                [quick, slow].map(|scratch| Message::from_vec(&scratch.answer).unwrap());
            prop_assert_eq!(quick, slow);
        }
    }
}
