//! Entries: reading, writing, comparing and watching them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Rig, key, needs_cuts};
use crate::ErrorKind;
use crate::conformance::check::{
    Broken, Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::kv::{Entry, Key};
use crate::watch::{Change, Watch};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            what_is_written_is_read_everywhere,
            "A read sees every write that had returned before it began, on whichever node."
        ),
        check!(
            putting_again_raises_the_revision,
            "A second call stores it again, under a higher revision."
        ),
        check!(
            a_swap_needs_the_revision,
            "Stores a value if the entry still has this revision; None stands for no entry."
        ),
        check!(
            of_swaps_at_one_moment_one_wins,
            "Conflict when it changed meanwhile, and then nothing is stored;"
        ),
        check!(
            a_deleted_entry_is_gone,
            "Deletes an entry. A second call does nothing."
        ),
        check!(
            revisions_outlive_deletions,
            "A number that grows with every change of an entry, over its deletion too"
        ),
        check!(
            keys_are_listed_by_prefix,
            "All keys that start with prefix, sorted."
        ),
        check!(
            entries_are_watched_by_prefix,
            "Watches all entries whose keys start with prefix: first a snapshot, then changes."
        ),
        check!(
            values_have_a_limit,
            "InvalidInput for a value over 512 KiB."
        ),
        check!(
            dropped_calls_are_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            a_minority_has_no_answer,
            "Without a majority of the cluster's servers every call answers Unavailable.",
            needs_cuts
        ),
    ]
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn reads(rig: &Rig, node: usize, key: &Key, wanted: Option<&[u8]>) -> Verdict {
    let found = rig.key_value(node).get(key).await?;
    let found = found.as_ref().map(|entry| &entry.value[..]);
    ensure!(
        found == wanted,
        "node {node} reads {found:?} instead of {wanted:?}"
    );
    Ok(())
}

async fn what_is_written_is_read_everywhere(rig: &Rig) -> Verdict {
    let key = key("a")?;
    reads(rig, 0, &key, None).await?;
    for (node, text) in [(0, "one"), (1, "two"), (2, "")] {
        rig.key_value(node).put(&key, value(text)).await?;
        for observer in 0..rig.size() {
            reads(rig, observer, &key, Some(text.as_bytes())).await?;
        }
    }
    Ok(())
}

async fn putting_again_raises_the_revision(rig: &Rig) -> Verdict {
    let key = key("a")?;
    let mut last = None;
    for node in [0, 0, 1] {
        let revision = rig.key_value(node).put(&key, value("same")).await?;
        ensure!(Some(revision) > last, "{revision:?} came after {last:?}");
        let found = rig.key_value(2).get(&key).await?;
        let found = found.map(|entry| entry.revision);
        ensure!(found == Some(revision), "{revision:?} is read as {found:?}");
        last = Some(revision);
    }
    Ok(())
}

async fn a_swap_needs_the_revision(rig: &Rig) -> Verdict {
    let conflict = [ErrorKind::Conflict];
    let (key, kv) = (key("a")?, rig.key_value(0));
    let first = kv.compare_and_swap(&key, None, value("one")).await?;
    let again = kv.compare_and_swap(&key, None, value("two")).await;
    refused("a swap of nothing", again, &conflict)?;
    reads(rig, 1, &key, Some(b"one")).await?;
    let second = kv.compare_and_swap(&key, Some(first), value("two")).await?;
    let other = rig.key_value(1);
    let late = other
        .compare_and_swap(&key, Some(first), value("three"))
        .await;
    refused("a swap of what was", late, &conflict)?;
    reads(rig, 1, &key, Some(b"two")).await?;
    kv.delete(&key).await?;
    let gone = kv.compare_and_swap(&key, Some(second), value("four")).await;
    refused("a swap of what is gone", gone, &conflict)?;
    reads(rig, 1, &key, None).await
}

async fn of_swaps_at_one_moment_one_wins(rig: &Rig) -> Verdict {
    let key = key("counter")?;
    let mut revision = rig.key_value(0).put(&key, value("begin")).await?;
    for _ in 0..5 {
        let backends = [rig.key_value(0), rig.key_value(1), rig.key_value(2)];
        let swap =
            |node: usize, text| backends[node].compare_and_swap(&key, Some(revision), value(text));
        let (a, b, c) = tokio::join!(swap(0, "a"), swap(1, "b"), swap(2, "c"));
        let mut won = Vec::new();
        for (answer, text) in [(a, "a"), (b, "b"), (c, "c")] {
            match answer {
                Ok(revision) => won.push((revision, text)),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(won.len() == 1, "{} of three won", won.len());
        reads(rig, 1, &key, Some(won[0].1.as_bytes())).await?;
        revision = won[0].0;
    }
    Ok(())
}

async fn a_deleted_entry_is_gone(rig: &Rig) -> Verdict {
    let key = key("a")?;
    rig.key_value(0).put(&key, value("one")).await?;
    for _ in 0..2 {
        rig.key_value(1).delete(&key).await?;
        for observer in 0..rig.size() {
            reads(rig, observer, &key, None).await?;
        }
    }
    Ok(())
}

async fn revisions_outlive_deletions(rig: &Rig) -> Verdict {
    let (key, kv) = (key("a")?, rig.key_value(0));
    let before = kv.put(&key, value("one")).await?;
    kv.delete(&key).await?;
    let after = kv.put(&key, value("one")).await?;
    ensure!(
        after > before,
        "{before:?} and, after a deletion, {after:?}"
    );
    Ok(())
}

async fn keys_are_listed_by_prefix(rig: &Rig) -> Verdict {
    for name in ["b", "a/2", "a/1", "ab"] {
        rig.key_value(0).put(&key(name)?, value("one")).await?;
    }
    for (prefix, wanted) in [
        ("", &["a/1", "a/2", "ab", "b"][..]),
        ("a", &["a/1", "a/2", "ab"]),
        ("a/", &["a/1", "a/2"]),
        ("c", &[]),
    ] {
        let found = rig
            .key_value(1)
            .list(&format!("conformance/{prefix}"))
            .await?;
        let mut keys = Vec::new();
        for name in wanted {
            keys.push(key(name)?);
        }
        ensure!(found == keys, "{prefix:?} lists {found:?}");
    }
    Ok(())
}

/// What a watch has told so far.
struct Told {
    watch: Watch<Key, Entry>,
    set: BTreeMap<Key, Bytes>,
}

impl Told {
    /// Takes the snapshot that every watch begins with.
    async fn by(mut watch: Watch<Key, Entry>) -> Verdict<Self> {
        let Some(Change::Snapshot(set)) = watch.next().await else {
            return Err(Broken::new(
                "a watch began with something else than a snapshot",
            ));
        };
        let values = set.into_iter().map(|(key, entry)| (key, entry.value));
        let set = values.collect();
        Ok(Self { watch, set })
    }

    fn now(&mut self) -> &BTreeMap<Key, Bytes> {
        while let Some(Some(change)) = self.watch.try_next() {
            match change {
                Change::Snapshot(set) => {
                    let values = set.into_iter().map(|(key, entry)| (key, entry.value));
                    self.set = values.collect();
                }
                Change::Upsert(key, entry) => {
                    self.set.insert(key, entry.value);
                }
                Change::Removed(key) => {
                    self.set.remove(&key);
                }
                Change::Stale | Change::Fresh => {}
            }
        }
        &self.set
    }

    /// Waits until it has told of just these.
    async fn comes_to_tell(&mut self, rig: &Rig, wanted: &[(&str, &'static str)]) -> Verdict {
        let mut all = BTreeMap::new();
        for (name, text) in wanted {
            all.insert(key(name)?, value(text));
        }
        until(rig.patience(), async || {
            let found = self.now();
            ensure!(*found == all, "the watch told {found:?} instead of {all:?}");
            Ok(())
        })
        .await
    }
}

async fn entries_are_watched_by_prefix(rig: &Rig) -> Verdict {
    let kv = rig.key_value(0);
    kv.put(&key("a/1")?, value("one")).await?;
    kv.put(&key("b")?, value("other")).await?;
    for observer in 0..rig.size() {
        let watch = rig.key_value(observer).watch("conformance/a/").await?;
        let mut told = Told::by(watch).await?;
        told.comes_to_tell(rig, &[("a/1", "one")]).await?;
        kv.put(&key("a/2")?, value("two")).await?;
        kv.put(&key("b")?, value("another")).await?;
        told.comes_to_tell(rig, &[("a/1", "one"), ("a/2", "two")])
            .await?;
        kv.put(&key("a/2")?, value("three")).await?;
        told.comes_to_tell(rig, &[("a/1", "one"), ("a/2", "three")])
            .await?;
        kv.delete(&key("a/2")?).await?;
        told.comes_to_tell(rig, &[("a/1", "one")]).await?;
    }
    Ok(())
}

async fn values_have_a_limit(rig: &Rig) -> Verdict {
    const LONGEST: usize = 512 * 1024;
    let (key, kv) = (key("long")?, rig.key_value(0));
    let long = Bytes::from(vec![7; LONGEST]);
    kv.put(&key, long.clone()).await?;
    reads(rig, 1, &key, Some(&long)).await?;
    let longer = Bytes::from(vec![7; LONGEST + 1]);
    let answer = kv.put(&key, longer).await;
    refused("a put of more", answer, &[ErrorKind::InvalidInput]).map(drop)
}

async fn dropped_calls_are_finished_by_the_next(rig: &Rig) -> Verdict {
    let kv = rig.key_value(0);
    for polls in INTERRUPTIONS {
        let key = key("a")?;
        interrupted(kv.put(&key, value("one")), polls).await;
        kv.put(&key, value("one")).await?;
        reads(rig, 1, &key, Some(b"one")).await?;
        interrupted(kv.delete(&key), polls).await;
        kv.delete(&key).await?;
        reads(rig, 1, &key, None).await?;
    }
    Ok(())
}

async fn a_minority_has_no_answer(rig: &Rig) -> Verdict {
    let (key, down) = (key("a")?, [ErrorKind::Unavailable]);
    rig.key_value(0).put(&key, value("before")).await?;
    rig.cut(0).await;
    until(rig.patience(), async || {
        let kv = rig.key_value(0);
        refused("get", kv.get(&key).await, &down)?;
        refused("put", kv.put(&key, value("minority")).await, &down)?;
        refused("delete", kv.delete(&key).await, &down)?;
        refused("list", kv.list("").await, &down)?;
        let session = kv.open_session(rig.shortest_ttl()).await;
        refused("open_session", session, &down).map(drop)
    })
    .await?;
    until(rig.patience(), async || {
        rig.key_value(1).put(&key, value("majority")).await?;
        Ok(())
    })
    .await?;
    rig.heal(0).await;
    until(rig.patience(), async || {
        reads(rig, 0, &key, Some(b"majority")).await
    })
    .await
}
