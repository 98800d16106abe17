use proptest::prelude::*;

use super::*;
use crate::record::Signature;

const OWNER: u16 = 7;
const NOW: Duration = Duration::ZERO;

fn owner() -> NodeAddr {
    NodeAddr::from_index(OWNER).unwrap()
}

fn signature() -> Signature {
    Signature::sign(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]), b"")
}

fn record(key: &str, version: u64, value: Option<&str>) -> WireRecord {
    WireRecord {
        key: key.into(),
        version,
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        signature: signature(),
    }
}

fn store() -> Store {
    let mut store = Store::default();
    store.set_holder(owner(), 1);
    store
}

fn feed(from: &Store, to: &mut Store) {
    let mark = to.mark(owner()).unwrap();
    let (deltas, all) = from.deltas_since(mark, usize::MAX);
    assert!(all);
    for delta in deltas {
        assert!(matches!(
            to.apply(owner(), &delta, NOW, |_| true),
            Applied::Changes(_)
        ));
    }
}

fn live(store: &Store) -> Vec<(String, Bytes)> {
    store
        .live_of(owner())
        .map(|(key, _, value)| (key.to_owned(), value.clone()))
        .collect()
}

#[test]
fn a_gap_is_known_and_closed_by_what_was_missing() {
    let (mut source, mut sink) = (store(), store());
    let one = source.put_own(owner(), record("a", 1, Some("1")), NOW);
    let two = source.put_own(owner(), record("b", 2, Some("2")), NOW);
    sink.apply(owner(), &two, NOW, |_| true);
    assert!(sink.has_gap(owner()) && sink.watermark(owner()) == 0 && sink.newest(owner()) == 2);
    sink.apply(owner(), &one, NOW, |_| true);
    assert!(!sink.has_gap(owner()));
    assert_eq!((sink.watermark(owner()), sink.hash()), (2, source.hash()));
}

#[test]
fn a_removal_that_was_dropped_still_reaches_who_was_away() {
    let (mut source, mut sink) = (store(), store());
    source.put_own(owner(), record("a", 1, Some("1")), NOW);
    source.put_own(owner(), record("b", 2, Some("2")), NOW);
    feed(&source, &mut sink);
    source.put_own(owner(), record("a", 3, None), NOW);
    source.collect(Duration::from_secs(10), Duration::from_secs(5));
    source.put_own(owner(), record("c", 4, Some("3")), NOW);
    feed(&source, &mut sink);
    assert_eq!(live(&sink), live(&source));
    // And the old record does not rise again.
    let old = Delta {
        owner: OWNER,
        generation: 1,
        from: 0,
        to: 1,
        target: 1,
        records: vec![record("a", 1, Some("1"))],
    };
    assert_eq!(
        sink.apply(owner(), &old, NOW, |_| true),
        Applied::Changes(Vec::new())
    );
}

#[test]
fn a_wrong_signature_refuses_the_whole_delta() {
    let mut sink = store();
    let forged = Delta {
        owner: OWNER,
        generation: 1,
        from: 0,
        to: 2,
        target: 2,
        records: vec![record("a", 1, Some("1")), record("b", 2, Some("x"))],
    };
    assert_eq!(
        sink.apply(owner(), &forged, NOW, |r| r.key != "b"),
        Applied::Refused
    );
    assert_eq!((sink.watermark(owner()), live(&sink).len()), (0, 0));
}

#[test]
fn another_holder_of_the_address_starts_anew() {
    let mut sink = store();
    sink.put_own(owner(), record("a", 9 << 32, Some("1")), NOW);
    assert_eq!(sink.set_holder(owner(), 2), [("a".to_owned(), None)]);
    assert_eq!(sink.watermark(owner()), 0);
    let old = Delta {
        owner: OWNER,
        generation: 1,
        from: 0,
        to: 1,
        target: 1,
        records: Vec::new(),
    };
    assert_eq!(
        sink.apply(owner(), &old, NOW, |_| true),
        Applied::OtherHolder
    );
}

#[test]
fn large_states_come_in_deltas_that_fit() {
    let (mut source, mut sink) = (store(), store());
    for version in 1..=300u64 {
        source.put_own(
            owner(),
            record(&format!("key{version}"), version, Some("0123456789")),
            NOW,
        );
    }
    let mut rounds = 0;
    while sink.watermark(owner()) < 300 {
        let (deltas, _) = source.deltas_since(sink.mark(owner()).unwrap(), 5);
        for delta in deltas {
            assert!(crate::wire::encode(&delta).len() <= crate::wire::MAX_PACKET - 16);
            sink.apply(owner(), &delta, NOW, |_| true);
        }
        rounds += 1;
        assert!(rounds < 100);
    }
    assert_eq!(live(&sink), live(&source));
}

proptest! {
    /// Whatever is lost, doubled or reordered of the pushes, a comparison mends it.
    #[test]
    fn lost_and_reordered_pushes_are_mended(
        writes in prop::collection::vec((0..6u8, any::<bool>()), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        dropped in 0..3u64,
    ) {
        let (mut source, mut sink) = (store(), store());
        let mut deltas = Vec::new();
        for (version, (key, live)) in (1u64..).zip(&writes) {
            let value = live.then(|| version.to_string());
            deltas.push(source.put_own(owner(), record(&format!("k{key}"), version, value.as_deref()), Duration::from_secs(version)));
        }
        for index in order {
            sink.apply(owner(), index.get(&deltas), NOW, |_| true);
        }
        source.collect(Duration::from_secs(dropped * 10), Duration::from_secs(1));
        feed(&source, &mut sink);
        prop_assert_eq!(live(&sink), live(&source));
        prop_assert_eq!(sink.hash(), source.hash());
    }
}
