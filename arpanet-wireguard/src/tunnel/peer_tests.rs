//! What is due of a peer, and when, in a time of the test's own.

use std::time::SystemTime;

use super::*;
use crate::tunnel::PrivateKey;
use crate::tunnel::protocol::{Call, Times};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

struct Side {
    key: PrivateKey,
    peer: Peer,
    times: Mutex<Times>,
}

/// Two that know each other.
fn sides(now: Instant) -> (Side, Side) {
    let (a, b) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let (for_a, for_b) = (b.public_key(), a.public_key());
    let side = |key, of| Side {
        key,
        peer: Peer::new(of, now),
        times: Mutex::default(),
    };
    (side(a, for_a), side(b, for_b))
}

/// An initiation of this side, under an index.
fn call(side: &Side, index: u32, goes_on: bool, now: Instant) -> (Vec<u8>, Vec<u32>) {
    let mut state = side.peer.lock();
    let timestamp = side.times.lock().unwrap().next(SystemTime::UNIX_EPOCH);
    let (initiation, message) =
        Initiation::begin(&side.key, &side.peer.key, index, timestamp).unwrap();
    let gone = state.call(initiation, Duration::ZERO, goes_on, now);
    (message.to_vec(), gone)
}

fn keypair(index: u32, now: Instant) -> Arc<Keypair> {
    let (a, b) = sides(now);
    let (message, _) = call(&a, 1, false, now);
    let (_, keys) = Call::read(&b.key, &message).unwrap().answer(index).unwrap();
    Arc::new(Keypair::new(&keys, false, now).unwrap())
}

#[test]
fn an_initiation_is_repeated_for_ninety_seconds_and_then_given_up() {
    let start = Instant::now();
    let (a, _) = sides(start);
    a.peer.lock().keep(b"waits");
    let (mut now, mut retries, mut index) = (start, 0, 0);
    call(&a, index, false, now);
    loop {
        assert_eq!(a.peer.lock().due(now).0, Due::Nothing);
        assert_eq!(a.peer.lock().due(now + seconds(4)).0, Due::Nothing);
        now += seconds(5);
        let (due, gone) = a.peer.lock().due(now);
        if due == Due::GivenUp {
            assert_eq!(gone, [index - 1, index], "those that were still open");
            break;
        }
        assert_eq!(due, Due::Retry);
        retries += 1;
        index += 1;
        call(&a, index, true, now);
    }
    assert_eq!((retries, now - start), (17, seconds(90)));
    let mut state = a.peer.lock();
    assert!(state.take_waiting().is_empty());
    assert!(!state.is_calling() && state.initiation(index).is_none());
}

#[test]
fn timestamps_grow_though_the_clock_stands() {
    let now = Instant::now();
    let (a, b) = sides(now);
    let mut last = None;
    for index in 0..3 {
        let (message, _) = call(&a, index, false, now);
        let timestamp = Call::read(&b.key, &message).unwrap().timestamp;
        let mut state = b.peer.lock();
        assert!(state.is_new(timestamp));
        state.hear(timestamp);
        assert!(!state.is_new(timestamp), "a recording");
        assert!(last.is_none_or(|last| !state.is_new(last)), "an older one");
        last = Some(timestamp);
    }
}

#[test]
fn an_answer_to_the_initiation_before_the_last_is_still_taken_and_the_last_ones_too() {
    let now = Instant::now();
    let (a, b) = sides(now);
    let (first, _) = call(&a, 1, false, now);
    let (second, _) = call(&a, 2, false, now);
    let answer = |message: &[u8]| Call::read(&b.key, message).unwrap().answer(9).unwrap().0;
    let mut state = a.peer.lock();
    assert!(state.initiation(1).unwrap().finish(&answer(&first)).is_ok());
    assert!(state.answered(1).is_empty(), "its number is the session's");
    assert!(!state.is_calling() && state.initiation(1).is_none());
    assert!(
        state
            .initiation(2)
            .unwrap()
            .finish(&answer(&second))
            .is_ok()
    );
    assert!(state.answered(2).is_empty());
    drop(state);
    call(&a, 3, false, now);
    call(&a, 4, false, now);
    assert_eq!(call(&a, 5, false, now).1, [3], "a third one is too many");
    assert_eq!(a.peer.lock().answered(5), [4], "the earlier goes with it");
}

#[test]
fn sessions_end_by_age_and_by_number() {
    let start = Instant::now();
    let (a, _) = sides(start);
    let mut state = a.peer.lock();
    for index in 0..4 {
        let at = start + seconds(index.into());
        assert!(state.agree(keypair(index, at), None).is_empty());
    }
    assert_eq!(state.agree(keypair(4, start + seconds(9)), None), [0]);
    let current = Arc::clone(&state.keypairs[0]);
    let fifth = state.agree(keypair(5, start + seconds(9)), Some(&current));
    assert_eq!(fifth, [2], "1 is sent with");
    assert!(state.expire(start + seconds(180)).is_empty());
    assert_eq!(state.expire(start + seconds(182)), [1]);
    assert_eq!(state.expire(start + seconds(189)), [3, 4, 5]);
}

#[test]
fn who_has_received_answers_within_ten_seconds() {
    let now = Instant::now();
    let (a, _) = sides(now);
    let traffic = &a.peer.traffic;
    traffic.received(80, false, now);
    assert!(!traffic.owes_an_answer(now + seconds(60)), "to no data");
    traffic.received(80, true, now);
    traffic.received(80, true, now + seconds(5));
    assert!(!traffic.owes_an_answer(now + seconds(9)));
    assert!(traffic.owes_an_answer(now + seconds(10)));
    traffic.sent(32, false, now + seconds(10));
    assert!(!traffic.owes_an_answer(now + seconds(60)));
    assert_eq!(traffic.received.load(Ordering::Relaxed), 240);
}

#[test]
fn who_has_sent_and_heard_nothing_for_fifteen_seconds_doubts_the_session_once() {
    let now = Instant::now();
    let (a, _) = sides(now);
    let traffic = &a.peer.traffic;
    traffic.sent(80, true, now);
    assert!(!traffic.is_unheard(now + seconds(14)));
    assert!(traffic.is_unheard(now + seconds(15)));
    assert!(!traffic.is_unheard(now + seconds(60)));
    traffic.sent(80, true, now + seconds(60));
    traffic.received(32, false, now + seconds(61));
    assert!(!traffic.is_unheard(now + seconds(99)));
    traffic.sent(32, false, now + seconds(99));
    assert!(!traffic.is_unheard(now + seconds(200)), "asked for nothing");
}
