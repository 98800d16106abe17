use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::record::Signature;

const OWNER: u16 = 7;
const NOW: Duration = Duration::ZERO;

fn owner() -> NodeAddr {
    NodeAddr::from_index(OWNER).unwrap()
}

/// Who tells.
fn source_node() -> NodeAddr {
    NodeAddr::from_index(8).unwrap()
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

fn held(store: &Store) -> Held {
    held_of(store, source_node())
}

/// What it tells this node that it has.
fn held_of(store: &Store, by: NodeAddr) -> Held {
    let mut marks = vec![store.mark(owner()).unwrap()];
    marks.extend(store.told_by(by, owner()).into_iter().flatten());
    Held::of(marks[0], &marks)
}

fn feed(from: &Store, to: &mut Store) {
    let lacking = from.lacking(held(to), usize::MAX);
    assert!(lacking.all);
    for delta in lacking.deltas {
        assert!(matches!(
            to.apply(source_node(), owner(), &delta, NOW, |_| true),
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
    sink.apply(source_node(), owner(), &two, NOW, |_| true);
    assert!(sink.has_gap(owner()) && sink.watermark(owner()) == 0 && sink.newest(owner()) == 2);
    sink.apply(source_node(), owner(), &one, NOW, |_| true);
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
        sink.apply(source_node(), owner(), &old, NOW, |_| true),
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
        sink.apply(source_node(), owner(), &forged, NOW, |r| r.key != "b"),
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
        sink.apply(source_node(), owner(), &old, NOW, |_| true),
        Applied::OtherHolder
    );
}

/// Asks again and again for at most five deltas, of which `lost` don't come; how often.
fn fetch(source: &Store, sink: &mut Store, mut lost: impl FnMut() -> bool) -> usize {
    for round in 1..100 {
        let Lacking { deltas, all } = source.lacking(held(sink), 5);
        for delta in deltas.iter().filter(|_| !lost()) {
            assert!(crate::wire::encode(delta).len() <= crate::wire::MAX_PACKET - 16);
            sink.apply(source_node(), owner(), delta, NOW, |_| true);
        }
        if all && sink.hash() == source.hash() && !sink.has_gap(owner()) {
            return round;
        }
    }
    panic!(
        "it takes no end: {:?} of {:?}",
        sink.mark(owner()),
        source.mark(owner())
    );
}

fn large() -> Store {
    let mut source = store();
    for version in 1..=300u64 {
        let record = record(&format!("key{version}"), version, Some("0123456789"));
        source.put_own(owner(), record, NOW);
    }
    source
}

#[test]
fn large_states_come_in_deltas_that_fit() {
    let (source, mut sink) = (large(), store());
    let rounds = fetch(&source, &mut sink, || false);
    assert_eq!((live(&sink), sink.watermark(owner())), (live(&source), 300));
    assert!(rounds > 2, "{rounds}");
}

#[test]
fn the_parts_of_a_whole_may_overtake_each_other() {
    let (mut source, mut sink) = (store(), store());
    // Whoever has it from before its owner's start is told the whole.
    for version in 1..=300u64 {
        let record = record(&format!("key{version}"), 1 << 32 | version, Some("1"));
        source.put_own(owner(), record, NOW);
    }
    let mut deltas = source.lacking(held(&sink), 5).deltas;
    deltas.extend_from_within(1..3);
    for delta in deltas.iter().rev() {
        assert!(sink.has_gap(owner()) || sink.watermark(owner()) == 0);
        sink.apply(source_node(), owner(), delta, NOW, |_| true);
    }
    let told = sink.told_by(source_node(), owner()).unwrap()[0].version;
    assert_eq!(told, deltas[4].to, "nothing has to be told again");
    fetch(&source, &mut sink, || false);
    // One that is late begins no other.
    for delta in &deltas[1..] {
        sink.apply(source_node(), owner(), delta, NOW, |_| true);
    }
    assert!(!sink.has_gap(owner()));
    assert_eq!(live(&sink), live(&source));
}

#[test]
fn the_whole_of_a_large_state_comes_to_an_end_though_some_of_it_is_lost() {
    let mut dice = StdRng::seed_from_u64(1);
    for loss in [0.0, 0.1, 0.2, 0.5] {
        for away_since in [0, 150, 301] {
            let (mut source, mut sink) = (large(), store());
            let taken_back = record("key301", 301, Some("1"));
            source.put_own(owner(), taken_back, NOW);
            if away_since > 0 {
                let mut lacking = source.lacking(held(&sink), usize::MAX);
                lacking.deltas.retain(|delta| delta.to <= away_since);
                for delta in lacking.deltas {
                    sink.apply(source_node(), owner(), &delta, NOW, |_| true);
                }
            }
            for (version, key) in [(302, "key7"), (303, "key149"), (304, "key301")] {
                source.put_own(owner(), record(key, version, None), NOW);
            }
            source.collect(Duration::from_secs(10), Duration::from_secs(5));
            source.put_own(owner(), record("key9", 305, Some("2")), NOW);
            fetch(&source, &mut sink, || dice.random_bool(loss));
            let is_alike = live(&sink) == live(&source);
            assert!(is_alike, "{loss} {away_since}");
        }
    }
}

#[test]
fn who_was_told_the_whole_tells_it() {
    let (mut source, mut middle, mut late) = (store(), store(), store());
    source.put_own(owner(), record("a", 1, Some("1")), NOW);
    feed(&source, &mut late);
    source.put_own(owner(), record("a", 2, None), NOW);
    source.collect(Duration::from_secs(10), Duration::from_secs(5));
    feed(&source, &mut middle);
    // It has never heard of the removal, and knows that there may have been one.
    feed(&middle, &mut late);
    assert_eq!(live(&late), []);
    assert_eq!(late.hash(), source.hash());
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
            sink.apply(source_node(), owner(), index.get(&deltas),  NOW, |_| true);
        }
        source.collect(Duration::from_secs(dropped * 10), Duration::from_secs(1));
        feed(&source, &mut sink);
        prop_assert_eq!(live(&sink), live(&source));
        prop_assert_eq!(sink.hash(), source.hash());
    }

    /// Whoever tells whom, whatever is lost of it and whoever forgets removals: who claims to know all has it, and nothing else.
    #[test]
    fn who_claims_to_know_all_has_it(steps in prop::collection::vec(step(), 1..60)) {
        let mut stores = [store(), store(), store(), store()];
        let mut version = 0;
        for step in steps {
            match step {
                Step::Write(key, live) => {
                    version += 1;
                    let value = live.then(|| "x".repeat(400));
                    stores[0].put_own(owner(), record(&format!("k{key}"), version, value.as_deref()), NOW);
                }
                Step::Start => version = (life(version) + 1) << 32,
                Step::Forget(at) => stores[at].collect(Duration::from_secs(9), Duration::from_secs(1)),
                Step::Tell { from, to, lost } if from != to => {
                    let by = NodeAddr::from_index(20 + u16::try_from(from).unwrap()).unwrap();
                    let Lacking { deltas, .. } = stores[from].lacking(held_of(&stores[to], by), 3);
                    for (nth, delta) in deltas.iter().enumerate() {
                        if lost & (1 << nth) == 0 {
                            stores[to].apply(by, owner(), delta, NOW, |_| true);
                        }
                    }
                }
                Step::Tell { .. } => {}
            }
        }
        let [source, others @ ..] = &stores;
        for other in others.iter().filter(|other| other.hash() == source.hash()) {
            prop_assert_eq!(live(other), live(source));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8, bool),
    Start,
    Forget(usize),
    /// In at most three deltas, of which those are lost.
    Tell {
        from: usize,
        to: usize,
        lost: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5u8, any::<bool>()).prop_map(|(key, live)| Step::Write(key, live)),
        (0..4usize).prop_map(Step::Forget),
        Just(Step::Start),
        // Nobody tells the owner.
        (0..4usize, 1..4usize, prop_oneof![Just(0), 0..8u8])
            .prop_map(|(from, to, lost)| Step::Tell { from, to, lost }),
    ]
}
