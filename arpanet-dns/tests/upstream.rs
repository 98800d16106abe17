//! What is not ours is asked elsewhere: of whom, for how long, and what is believed.
#![allow(clippy::unwrap_used)]

mod house;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use arpanet_core::ErrorKind;
use arpanet_dns::{DnsConfig, DnsServer};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use house::resolver::{Resolver, addresses, failure};
use house::{Catalogue, House, ask, ask_stream, exchange, ips, question, sockets};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NAME: &str = "www.example.com.";
/// Short enough to wait for, long enough for a busy machine to answer in.
const PATIENCE: Duration = Duration::from_millis(500);

async fn house(resolvers: &[&Resolver], timeout: Duration) -> House {
    let upstreams = resolvers.iter().map(|resolver| resolver.at);
    House::with(DnsConfig::default().upstreams(upstreams).timeout(timeout)).await
}

fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}

#[tokio::test]
async fn a_silent_resolver_is_passed_over_and_no_longer_asked_first() {
    let silent = Resolver::silent().await;
    let good = Resolver::knowing(OUTSIDE).await;
    let house = house(&[&silent, &good], PATIENCE).await;
    let started = Instant::now();
    assert_eq!(house.ips(NAME).await, [OUTSIDE]);
    assert!(started.elapsed() >= PATIENCE);
    for _ in 0..5 {
        assert_eq!(house.ips(NAME).await, [OUTSIDE]);
    }
    assert_eq!((silent.asked(), good.asked()), (1, 6));
}

#[tokio::test]
async fn a_dead_port_costs_no_waiting() {
    let (gone, _) = sockets();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let good = Resolver::knowing(OUTSIDE).await;
    let config = DnsConfig::default().upstreams([dead, good.at]);
    let patience = Duration::from_secs(30);
    let house = House::with(config.timeout(patience)).await;
    let started = Instant::now();
    assert_eq!(house.ips(NAME).await, [OUTSIDE]);
    let streamed = ask_stream(house.at, &question(NAME, RecordType::A)).await;
    assert_eq!(ips(&streamed), [OUTSIDE]);
    assert!(started.elapsed() < patience);
}

#[tokio::test]
async fn one_that_fails_or_refuses_is_passed_over_and_one_that_denies_is_believed() {
    for failing in [ResponseCode::ServFail, ResponseCode::Refused] {
        let bad = Resolver::failing(failing).await;
        let good = Resolver::knowing(OUTSIDE).await;
        let house = house(&[&bad, &good], Duration::from_secs(10)).await;
        assert_eq!(house.ips(NAME).await, [OUTSIDE], "{failing}");
        assert_eq!(bad.asked(), 1);
    }
    let denying = Resolver::failing(ResponseCode::NXDomain).await;
    let good = Resolver::knowing(OUTSIDE).await;
    let house = house(&[&denying, &good], Duration::from_secs(10)).await;
    let answer = house.ask(NAME, RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!(good.asked(), 0);
}

#[tokio::test]
async fn when_nobody_knows_that_is_a_failure_in_bounded_time() {
    let one = Resolver::silent().await;
    let two = Resolver::silent().await;
    let silence = house(&[&one, &two], PATIENCE).await;
    let started = Instant::now();
    let answer = silence.ask(NAME, RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(answer.metadata.recursion_available);
    let took = started.elapsed();
    assert!(took >= 2 * PATIENCE && took < 10 * PATIENCE, "{took:?}");
    assert_eq!((one.asked(), two.asked()), (1, 1));

    // What a resolver said is more than that another said nothing.
    let refusing = Resolver::failing(ResponseCode::Refused).await;
    let refused = house(&[&refusing, &one], PATIENCE).await;
    let answer = refused.ask(NAME, RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::Refused);

    let nobody = House::new().await;
    let answer = nobody.ask(NAME, RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(!answer.metadata.recursion_available);
}

#[tokio::test]
async fn a_slow_resolver_holds_up_nobody_else() {
    let silent = Resolver::silent().await;
    let house = house(&[&silent], Duration::from_secs(60)).await;
    house.catalogue.instance("web", "10.1.0.5", 80);
    let stuck = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..100 {
        let bytes = question(NAME, RecordType::A).to_vec().unwrap();
        stuck.send_to(&bytes, house.at).await.unwrap();
    }
    house.until_ips("web.service.consul.", &["10.1.0.5"]).await;
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_believed() {
    let liar = Resolver::new(|question| {
        let mut stranger = question.clone();
        stranger.metadata.id = question.metadata.id.wrapping_add(1);
        let other = house::question("other.example.com.", RecordType::A);
        let mut other_question = question.clone();
        other_question.queries = other.queries;
        let forged = Ipv4Addr::new(203, 0, 113, 9);
        vec![
            addresses(&stranger, forged, 1),
            addresses(&other_question, forged, 1),
            question.to_vec().unwrap(),
            b"?".to_vec(),
            addresses(question, OUTSIDE, 1),
        ]
    })
    .await;
    let house = house(&[&liar], Duration::from_secs(10)).await;
    assert_eq!(house.ips(NAME).await, [OUTSIDE]);
}

#[tokio::test]
async fn a_question_goes_out_under_an_id_of_our_own_and_comes_back_under_the_askers() {
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let telling = Resolver::new(move |question| {
        send.send(question.metadata.id).unwrap();
        vec![addresses(question, OUTSIDE, 1)]
    })
    .await;
    let house = house(&[&telling], Duration::from_secs(10)).await;
    let mut question = question(NAME, RecordType::A);
    question.metadata.id = 7;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..8 {
        // Checks the id.
        ask(house.at, &question).await;
        ids.insert(seen.recv().await.unwrap());
    }
    assert!(ids.len() > 4, "{ids:?}");
}

#[tokio::test]
async fn what_is_too_long_for_the_asker_is_cut_by_datagram_and_whole_by_stream() {
    let wordy = Resolver::new(|question| vec![addresses(question, OUTSIDE, 100)]).await;
    let house = house(&[&wordy], Duration::from_secs(10)).await;
    let question = question(NAME, RecordType::A);
    let bytes = exchange(house.at, &question.to_vec().unwrap()).await;
    assert!(bytes.len() <= 512);
    let cut = Message::from_vec(&bytes).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(cut.queries, question.queries);
    let whole = ask_stream(house.at, &question).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
    // What somebody else says lives for as long as they say.
    assert_eq!(whole.answers[0].ttl, 60);
}

#[tokio::test]
async fn our_own_names_are_never_asked_elsewhere() {
    let good = Resolver::knowing(OUTSIDE).await;
    let house = house(&[&good], Duration::from_secs(10)).await;
    for name in [
        "nothing.service.consul.",
        "node9.node.consul.",
        "a.b.c.consul.",
        "9.9.255.10.in-addr.arpa.",
        "9.9.254.10.in-addr.arpa.",
    ] {
        let answer = house.ask(name, RecordType::A).await;
        assert_eq!(code(&answer), ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(good.asked(), 0);
    // A bare name may be the LAN's, and so may 10.1/16 be.
    for name in ["printer.", "9.9.1.10.in-addr.arpa.", "consul.example."] {
        assert_eq!(house.ips(name).await, [OUTSIDE], "{name}");
    }
    assert_eq!(good.asked(), 3);
    // One that is ours is ours.
    house.catalogue.instance("printer", "10.1.0.5", 80);
    house.until_ips("printer.", &["10.1.0.5"]).await;
    let answer = house.ask("printer.", RecordType::AAAA).await;
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn a_failing_resolver_that_recovers_is_used_again() {
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let first = {
        let down = std::sync::Arc::clone(&down);
        Resolver::new(move |question| {
            if down.load(std::sync::atomic::Ordering::SeqCst) {
                vec![failure(question, ResponseCode::ServFail)]
            } else {
                vec![addresses(question, OUTSIDE, 1)]
            }
        })
        .await
    };
    let house = house(&[&first], Duration::from_secs(10)).await;
    let answer = house.ask(NAME, RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(house.ips(NAME).await, [OUTSIDE]);
}

#[tokio::test]
async fn a_server_that_would_ask_itself_is_refused() {
    let (udp, tcp) = sockets();
    let at = udp.local_addr().unwrap();
    let config = DnsConfig::default().upstreams([at]);
    let catalogue = std::sync::Arc::new(Catalogue::default());
    let error = DnsServer::start(config, catalogue, vec![(udp, tcp)])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    assert!(error.hint().is_some());
}
