//! Answers that fit no datagram, and streams.
#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use house::{House, ask_stream, exchange, instance, ips, question};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NAME: &str = "web.service.consul.";

/// So many instances of `web`, told at once.
async fn crowd(count: u16) -> House {
    let house = House::new().await;
    let all = (0..count).map(|number| {
        let [high, low] = number.to_be_bytes();
        let one = instance("web", &format!("10.1.{high}.{low}"), 80, "0.1");
        (one.id.clone(), one)
    });
    house.catalogue.instances.replace(all.collect());
    house
        .until(NAME, RecordType::A, |answer| !answer.answers.is_empty())
        .await;
    house
}

fn with_edns(kind: RecordType, size: u16) -> Message {
    let mut message = question(NAME, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.edns = Some(edns);
    message
}

#[tokio::test]
async fn a_datagram_holds_what_the_asker_takes_and_the_rest_is_told_over_a_stream() {
    let house = crowd(150).await;
    for kind in [RecordType::A, RecordType::SRV] {
        let cases = [
            (question(NAME, kind), 512),
            (with_edns(kind, 0), 512),
            (with_edns(kind, 512), 512),
            (with_edns(kind, 900), 900),
            (with_edns(kind, 1232), 1232),
            // More does not arrive everywhere.
            (with_edns(kind, 4096), 1232),
            (with_edns(kind, u16::MAX), 1232),
        ];
        for (question, limit) in cases {
            let bytes = exchange(house.at, &question.to_vec().unwrap()).await;
            assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
            let answer = Message::from_vec(&bytes).unwrap();
            assert!(answer.metadata.truncation && answer.metadata.authoritative);
            assert_eq!(answer.queries, question.queries);
            assert_eq!(answer.edns.is_some(), question.edns.is_some());
            // As many as fit: not much room is left.
            assert!(!answer.answers.is_empty());
            assert!(bytes.len() + 120 > limit, "{} of {limit}", bytes.len());

            let whole = ask_stream(house.at, &question).await;
            assert!(!whole.metadata.truncation);
            assert_eq!(whole.answers.len(), 150, "{kind}");
        }
    }
}

#[tokio::test]
async fn every_instance_is_told_in_the_end_though_few_fit_at_a_time() {
    let house = crowd(150).await;
    let mut told = BTreeSet::new();
    for _ in 0..150 {
        let answer = house.ask(NAME, RecordType::A).await;
        assert!(answer.metadata.truncation && answer.answers.len() < 40);
        told.extend(ips(&answer));
    }
    assert_eq!(told.len(), 150);
}

#[tokio::test]
async fn an_answer_that_fits_exactly_is_not_cut() {
    // 12 of head, 24 of question, 16 an address: 29 fit into 512.
    for (count, cut) in [(29, false), (30, true)] {
        let house = crowd(count).await;
        let answer = house.ask(NAME, RecordType::A).await;
        assert_eq!(answer.metadata.truncation, cut, "{count}");
        assert_eq!(answer.answers.len(), 29);
    }
}

#[tokio::test]
async fn more_than_a_stream_can_carry_is_cut_too() {
    let house = crowd(5_000).await;
    let answer = ask_stream(house.at, &question(NAME, RecordType::A)).await;
    assert!(answer.metadata.truncation);
    let told: BTreeSet<Ipv4Addr> = ips(&answer).into_iter().collect();
    assert!(told.len() > 4_000, "{}", told.len());
}

#[tokio::test]
async fn another_version_of_edns_is_told_so() {
    let house = crowd(1).await;
    let mut question = with_edns(RecordType::A, 1232);
    question.edns.as_mut().unwrap().set_version(1);
    let answer = house::ask(house.at, &question).await;
    // 16, which BADSIG is as well.
    let code = u16::from(answer.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));
    assert!(answer.answers.is_empty());
    assert_eq!(answer.edns.unwrap().version(), 0);
}

#[tokio::test]
async fn a_stream_carries_many_questions_in_whatever_pieces() {
    let house = crowd(3).await;
    let mut stream = TcpStream::connect(house.at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut wire = Vec::new();
    for id in 0..20 {
        let mut question = question(NAME, RecordType::A);
        question.metadata.id = id;
        let bytes = question.to_vec().unwrap();
        wire.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(&bytes);
    }
    for piece in wire.chunks(7) {
        stream.write_all(piece).await.unwrap();
    }
    for id in 0..20 {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (id, 3));
    }
    // A stream that says nothing more of sense ends alone.
    stream.write_all(&[0, 1, 9]).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_u16());
    assert!(ended.await.unwrap().is_err());
    assert_eq!(house.ips(NAME).await.len(), 3);
}

#[tokio::test]
async fn streams_that_stay_open_leave_datagrams_alone_and_end_with_the_server() {
    let house = crowd(3).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(house.at).await.unwrap());
    }
    assert_eq!(house.ips(NAME).await.len(), 3);
    house.dns.stop().await;
    house.dns.stop().await;
    for mut stream in idle {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_u8());
        assert!(ended.await.unwrap().is_err());
    }
    std::net::UdpSocket::bind(house.at).unwrap();
    std::net::TcpListener::bind(house.at).unwrap();
}
