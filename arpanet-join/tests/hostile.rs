//! Strange bytes to the seed and to the joiner, somebody in between, and joiners that go away.
#![allow(clippy::unwrap_used)]

mod house;

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arpanet_core::admission::{Admission, Seed};
use arpanet_core::roster::Role;
use arpanet_core::{Error, ErrorKind};
use arpanet_join::{JoinAdmission, NodeIdentity};
use house::between::{Between, Change};
use house::{House, PASSWORD, admission, config, info, password};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_oneof};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const PREAMBLE: &[u8] = b"arpanet2\0\x01\0\0";
const HELLO: &[u8] = br#"{"me":"0.2","seed":"0.1"}"#;
/// Nothing here takes so long, however busy the machine is.
const BOUND: Duration = Duration::from_secs(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

/// What a stranger may say: with more or less of the right beginning.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let noise = || prop::collection::vec(any::<u8>(), 0..300);
    let json = prop::sample::select(vec![
        "{}",
        "null",
        "[[[[[[[[",
        r#"{"me":"9.999","seed":"0.1"}"#,
        r#"{"offer":{}}"#,
        r#"{"offer":{"node":"0.1","cluster":"","kdf":{"memory_kib":4294967295,"passes":1,"lanes":1},"salt":[],"pake":[]}}"#,
        r#""busy""#,
        r#"{"another_node":{"node":"0.1"}}"#,
        r#"{"admits_nobody":{"node":"0.1","servers":[]}}"#,
        r#"{"too_many_guesses":{"retry_after_ms":18446744073709551615}}"#,
        r#"{"pake":[1,2,3],"confirm":[0]}"#,
        r#"{"right":{"confirm":[0]}}"#,
        r#""wrong""#,
    ]);
    let frames = prop::collection::vec(
        prop_oneof![
            noise().boxed(),
            json.prop_map(|text| text.as_bytes().to_vec()).boxed()
        ],
        0..4,
    )
    .prop_map(|bodies| {
        bodies
            .iter()
            .flat_map(|body| frame(body))
            .collect::<Vec<u8>>()
    });
    prop_oneof![
        noise(),
        noise().prop_map(|noise| [PREAMBLE, &noise].concat()),
        frames.prop_map(|frames| [PREAMBLE, &frames].concat()),
        noise().prop_map(|noise| [PREAMBLE, &frame(HELLO), &noise].concat()),
        noise().prop_map(|noise| [PREAMBLE, &frame(HELLO), &frame(&noise)].concat()),
    ]
}

#[test]
fn a_seed_hears_any_bytes_and_still_admits() {
    let runtime = runtime();
    let house = runtime.block_on(House::new());
    let endpoint = house.endpoint();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(128));
    runner
        .run(&words(), |words| {
            let talk = async {
                let mut stream = TcpStream::connect(endpoint).await?;
                // It may have had enough before all is said.
                let _ = stream.write_all(&words).await;
                let _ = stream.shutdown().await;
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard).await;
                std::io::Result::Ok(heard)
            };
            let heard = runtime.block_on(async { timeout(BOUND, talk).await });
            let heard = heard.unwrap().unwrap();
            prop_assert!(heard.len() < 4096);
            Ok(())
        })
        .unwrap();
    runtime.block_on(house.ask("0.2", "two", PASSWORD)).unwrap();
}

#[test]
fn a_joiner_hears_any_bytes_and_says_in_one_sentence_that_it_did_not_join() {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = listener.local_addr().unwrap();
    let limit = Duration::from_secs(5);
    let me = JoinAdmission::new(config().timeout(limit), NodeIdentity::generate().unwrap());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(96));
    // "Busy" again and again is an answer too, and is waited out.
    let words = words().prop_filter("busy", |words| {
        !words.windows(4).any(|four| four == b"busy")
    });
    runner
        .run(&words, |words| {
            let seed = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(&words).await;
                let _ = stream.shutdown().await;
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard).await;
                heard
            };
            let both = async { tokio::join!(seed, ask(&me, endpoint)) };
            let (heard, error) = runtime
                .block_on(async { timeout(BOUND, both).await })
                .unwrap();
            check_sentence(&error, endpoint);
            prop_assert!(heard.len() < 4096);
            Ok(())
        })
        .unwrap();
}

async fn ask(me: &JoinAdmission, endpoint: SocketAddr) -> Error {
    let seed = Seed::new("0.1".parse().unwrap(), endpoint);
    let info = info("0.2", "two", Role::Server);
    let joined = me.join(&password(PASSWORD), &info, seed, false).await;
    assert!(me.verifier().is_none());
    joined.unwrap_err()
}

/// One line that names the place.
fn check_sentence(error: &Error, endpoint: SocketAddr) {
    let sentence = error.to_string();
    assert!(
        !sentence.contains('\n') && !sentence.contains(PASSWORD),
        "{sentence}"
    );
    assert!(sentence.contains(&endpoint.ip().to_string()), "{sentence}");
    assert!(
        sentence.contains(&endpoint.port().to_string()),
        "{sentence}"
    );
}

#[tokio::test]
async fn no_memory_is_taken_for_what_is_only_announced() {
    let house = House::new().await;
    for announced in [4097, 1 << 20, u32::MAX] {
        let mut stream = TcpStream::connect(house.endpoint()).await.unwrap();
        stream.write_all(PREAMBLE).await.unwrap();
        stream.write_all(&announced.to_be_bytes()).await.unwrap();
        // It does not wait for the rest.
        let mut heard = Vec::new();
        let ended = timeout(BOUND, stream.read_to_end(&mut heard));
        ended.await.unwrap().unwrap();
        assert_eq!(heard, PREAMBLE);
    }
}

#[tokio::test]
async fn those_who_connect_and_say_nothing_keep_nobody_out() {
    let house = House::new().await;
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(TcpStream::connect(house.endpoint()).await.unwrap());
    }
    house.ask("0.2", "two", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn what_passes_by_holds_neither_password_nor_key() {
    let house = House::new().await;
    let between = Between::new(house.endpoint(), None).await;
    let me = admission();
    let seed = Seed::new("0.1".parse().unwrap(), between.at);
    let word = password(PASSWORD);
    let info = info("0.2", "second-node", Role::Server);
    let got = me.join(&word, &info, seed, false).await.unwrap();
    let said = between.heard();
    assert!(said.iter().all(|said| said.len() > 500));
    let verifier = serde_json::to_value(me.verifier().unwrap()).unwrap();
    let secrets = [
        serde_json::to_value(&got.key).unwrap(),
        verifier["hash"].clone(),
    ];
    let mut never = vec![PASSWORD.as_bytes().to_vec(), got.key.key.expose().to_vec()];
    never.extend(secrets.iter().flat_map(texts));
    // Nor who joins: that is said under the seal.
    never.push(b"second-node".to_vec());
    assert!(never.len() >= 5);
    for secret in never {
        assert!(secret.len() >= 6);
        for said in &said {
            let found = said.windows(secret.len()).any(|here| here == secret);
            assert!(!found, "{}", String::from_utf8_lossy(&secret));
        }
    }
    // The test can see: what is public is there.
    let salt = serde_json::to_string(&verifier["salt"]).unwrap();
    assert!(String::from_utf8_lossy(&said[1]).contains(&salt));
}

/// The ways a secret may be written in JSON: as text, and as the list of its bytes.
fn texts(value: &serde_json::Value) -> Vec<Vec<u8>> {
    match value {
        serde_json::Value::String(text) => vec![text.clone().into_bytes()],
        serde_json::Value::Array(_) => {
            let bytes: Vec<u8> = serde_json::from_value(value.clone()).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            vec![value.to_string().into_bytes(), hex.into_bytes(), bytes]
        }
        serde_json::Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_join_with_any_one_byte_changed_on_the_way_fails() {
    let runtime = runtime();
    let limit = Duration::from_secs(3);
    let lengths = runtime.block_on(async {
        let house = House::new().await;
        let between = Between::new(house.endpoint(), None).await;
        let seed = Seed::new("0.1".parse().unwrap(), between.at);
        let info = info("0.2", "two", Role::Server);
        let me = admission();
        me.join(&password(PASSWORD), &info, seed, false)
            .await
            .unwrap();
        between.heard().map(|said| said.len())
    });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(32));
    let changes = (any::<bool>(), any::<prop::sample::Index>(), 1_u8..);
    runner
        .run(&changes, |(from_seed, at, xor)| {
            // A few bytes less than the last time, in case a number is written shorter.
            let at = at.index(lengths[usize::from(from_seed)] - 16);
            let change = Change { from_seed, at, xor };
            runtime.block_on(async {
                let house = House::new().await;
                let between = Between::new(house.endpoint(), Some(change)).await;
                let identity = NodeIdentity::generate().unwrap();
                let me = JoinAdmission::new(config().timeout(limit), identity);
                let error = timeout(BOUND, ask(&me, between.at)).await.unwrap();
                assert!(!error.to_string().contains('\n'), "{error}");
                // The seed is none the worse.
                house.ask("0.3", "three", PASSWORD).await.unwrap();
            });
            Ok(())
        })
        .unwrap();
}

/// Ready with nothing once it has been polled so often.
struct Polled<F> {
    inner: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for Polled<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.inner.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_join_dropped_at_any_await_can_be_begun_again() {
    let house = House::new().await;
    let me = admission();
    let info = info("0.2", "two", Role::Server);
    let word = password(PASSWORD);
    let mut dropped = 0;
    loop {
        let polled = Polled {
            inner: Box::pin(me.join(&word, &info, house.seed(), false)),
            left: dropped + 1,
        };
        match timeout(BOUND, polled).await.unwrap() {
            None => {
                assert!(me.verifier().is_none());
                dropped += 1;
            }
            Some(joined) => {
                joined.unwrap();
                break;
            }
        }
        // Others are admitted, and nothing was counted as a guess.
        if dropped % 3 == 0 {
            let name = format!("n{dropped}");
            let node = format!("0.{}", 10 + dropped);
            house.ask(&node, &name, PASSWORD).await.unwrap();
        }
        assert!(dropped < 200);
    }
    // Connection, preamble, offer, hash, confirmation, verdict.
    assert!(dropped >= 6, "{dropped}");
    assert!(me.verifier().is_some());
}

/// Something at the seed's address that is no seed of ours; what the joiner says of it.
async fn meet(words: &'static [u8], limit: Duration) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let stranger = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(words).await.unwrap();
        // Stays as long as the other side does.
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
    });
    let me = JoinAdmission::new(config().timeout(limit), NodeIdentity::generate().unwrap());
    let error = timeout(BOUND, ask(&me, endpoint)).await.unwrap();
    check_sentence(&error, endpoint);
    stranger.await.unwrap();
    error
}

#[tokio::test]
async fn whatever_is_no_seed_is_told_as_what_it_is_in_time() {
    let long = Duration::from_secs(15);
    let started = Instant::now();
    let web = meet(b"HTTP/1.1 400 Bad Request\r\n\r\n", long).await;
    assert_eq!(web.kind(), ErrorKind::Incompatible, "{web}");
    let newer = meet(b"arpanet2\0\x02\0\x07", long).await;
    assert_eq!(newer.kind(), ErrorKind::Incompatible, "{newer}");
    assert!(newer.to_string().contains("2.7"), "{newer}");
    assert_ne!(web.to_string(), newer.to_string());
    let greedy = meet(b"arpanet2\0\x01\0\0\xff\xff\xff\xff", long).await;
    assert!(greedy.to_string().len() < 300, "{greedy}");
    assert!(started.elapsed() < long, "none of these is waited for");

    let short = Duration::from_secs(1);
    let silent = meet(b"", short).await;
    assert_eq!(silent.kind(), ErrorKind::Timeout, "{silent}");
    let halting = meet(b"arpanet2\0\x01\0\0", short).await;
    assert_eq!(halting.kind(), ErrorKind::Timeout, "{halting}");
}

#[tokio::test]
async fn a_dead_port_is_told_at_once_and_a_black_hole_within_the_limit() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = gone.local_addr().unwrap();
    drop(gone);
    let me = JoinAdmission::new(
        config().timeout(Duration::from_secs(15)),
        NodeIdentity::generate().unwrap(),
    );
    let started = Instant::now();
    let dead = ask(&me, endpoint).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(dead.kind(), ErrorKind::Unavailable, "{dead}");
    check_sentence(&dead, endpoint);
    assert!(dead.hint().is_some(), "{dead:?}");

    // A queue that is full drops what comes: as a firewall does, and on loopback.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let endpoint = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(endpoint)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 10);
    }
    let limit = Duration::from_secs(1);
    let me = JoinAdmission::new(config().timeout(limit), NodeIdentity::generate().unwrap());
    let started = Instant::now();
    let hole = ask(&me, endpoint).await;
    let took = started.elapsed();
    assert!(took >= limit && took < 5 * limit, "{took:?}");
    assert_eq!(hole.kind(), ErrorKind::Timeout, "{hole}");
    check_sentence(&hole, endpoint);
    assert!(hole.hint().is_some(), "{hole:?}");
    assert_ne!(hole.to_string(), dead.to_string());
}
