//! Watching a changing set: first the whole, then changes, merged for a slow reader.
//!
//! A backend owns a [`WatchHub`] and tells it what is there; each reader holds a [`Watch`]. What a reader has not yet
//! taken is kept as at most one change a key, so a slow reader costs no more than the set itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<K, V> {
    /// The whole set: first of all, and again when the source can't say what changed meanwhile.
    Snapshot(BTreeMap<K, V>),
    /// New, or changed.
    Upsert(K, V),
    /// Gone.
    Removed(K),
    /// The source is out of reach: what was told stays the best known.
    Stale,
    /// The source is back; changes since then follow, or a snapshot.
    Fresh,
}

type Filter<K, V> = Box<dyn Fn(&K, &V) -> bool + Send + Sync>;

struct Reader<K, V> {
    filter: Filter<K, V>,
    state: Mutex<Pending<K, V>>,
    woken: Notify,
}

struct Pending<K, V> {
    snapshot_due: bool,
    known: BTreeMap<K, ()>,
    changed: BTreeMap<K, Option<V>>,
    freshness: VecDeque<bool>,
    closed: bool,
}

impl<K: Ord + Clone, V: Clone> Reader<K, V> {
    /// Notes a change; what does not pass the filter is a removal for this reader.
    fn note(&self, key: &K, value: Option<&V>) {
        let passing = value.filter(|value| (self.filter)(key, value));
        let mut state = lock(&self.state);
        if state.snapshot_due {
            return;
        }
        match passing {
            Some(value) => {
                state.changed.insert(key.clone(), Some(value.clone()));
            }
            None if state.known.contains_key(key) => {
                state.changed.insert(key.clone(), None);
            }
            None => {
                state.changed.remove(key);
            }
        }
        drop(state);
        self.woken.notify_one();
    }
}

/// The writing side: the set as it is, and its readers.
pub struct WatchHub<K, V> {
    inner: Arc<Mutex<Hub<K, V>>>,
}

struct Hub<K, V> {
    set: BTreeMap<K, V>,
    readers: Vec<Weak<Reader<K, V>>>,
    stale: bool,
}

impl<K, V> Clone for WatchHub<K, V> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, V> fmt::Debug for WatchHub<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchHub").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Default for WatchHub<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> WatchHub<K, V> {
    /// An empty set with no readers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Hub {
                set: BTreeMap::new(),
                readers: Vec::new(),
                stale: false,
            })),
        }
    }

    /// Puts a value in; telling the same again changes nothing and wakes nobody.
    pub fn upsert(&self, key: K, value: V) {
        let mut hub = lock(&self.inner);
        if hub.set.get(&key) == Some(&value) {
            return;
        }
        hub.each_reader(|reader| reader.note(&key, Some(&value)));
        hub.set.insert(key, value);
    }

    /// Takes a value out; a second call does nothing.
    pub fn remove(&self, key: &K) {
        let mut hub = lock(&self.inner);
        if hub.set.remove(key).is_some() {
            hub.each_reader(|reader| reader.note(key, None));
        }
    }

    /// Makes the set equal to this one; readers get the differences.
    pub fn replace(&self, set: BTreeMap<K, V>) {
        let gone: Vec<K> = lock(&self.inner)
            .set
            .keys()
            .filter(|key| !set.contains_key(key))
            .cloned()
            .collect();
        gone.iter().for_each(|key| self.remove(key));
        set.into_iter()
            .for_each(|(key, value)| self.upsert(key, value));
    }

    /// Says whether the source is out of reach.
    pub fn set_stale(&self, stale: bool) {
        let mut hub = lock(&self.inner);
        if std::mem::replace(&mut hub.stale, stale) != stale {
            hub.each_reader(|reader| {
                lock(&reader.state).freshness.push_back(stale);
                reader.woken.notify_one();
            });
        }
    }

    /// Ends every watch: readers get what is pending, then `None`.
    pub fn close(&self) {
        let mut hub = lock(&self.inner);
        hub.each_reader(|reader| {
            lock(&reader.state).closed = true;
            reader.woken.notify_one();
        });
        hub.readers.clear();
    }

    /// One value.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        lock(&self.inner).set.get(key).cloned()
    }

    /// The whole set.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<K, V> {
        lock(&self.inner).set.clone()
    }

    /// Looks at the set without copying it. The hub is locked meanwhile: no call on it inside.
    pub fn with<R>(&self, look: impl FnOnce(&BTreeMap<K, V>) -> R) -> R {
        look(&lock(&self.inner).set)
    }

    /// A new reader of all.
    #[must_use]
    pub fn watch(&self) -> Watch<K, V> {
        self.watch_where(|_, _| true)
    }

    /// A new reader of what passes the filter; a value that stops passing is told as removed.
    #[must_use]
    pub fn watch_where(
        &self,
        filter: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> Watch<K, V> {
        let mut hub = lock(&self.inner);
        let reader = Arc::new(Reader {
            filter: Box::new(filter),
            state: Mutex::new(Pending {
                snapshot_due: true,
                known: BTreeMap::new(),
                changed: BTreeMap::new(),
                freshness: if hub.stale {
                    VecDeque::from([true])
                } else {
                    VecDeque::new()
                },
                closed: false,
            }),
            woken: Notify::new(),
        });
        hub.readers.retain(|reader| reader.strong_count() > 0);
        hub.readers.push(Arc::downgrade(&reader));
        Watch {
            reader,
            hub: Arc::clone(&self.inner),
        }
    }
}

impl<K, V> Hub<K, V> {
    fn each_reader(&mut self, act: impl Fn(&Reader<K, V>)) {
        self.readers
            .retain(|reader| reader.upgrade().inspect(|reader| act(reader)).is_some());
    }
}

/// The reading side. Dropping it ends the watch.
pub struct Watch<K, V> {
    reader: Arc<Reader<K, V>>,
    hub: Arc<Mutex<Hub<K, V>>>,
}

impl<K, V> fmt::Debug for Watch<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, V: Clone> Watch<K, V> {
    /// The next change; the first is a [`Change::Snapshot`]. `None` when the source is closed for good.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change<K, V>> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.reader.woken.notified().await;
        }
    }

    /// Waits until [`try_next`](Self::try_next) has an answer, and takes nothing.
    pub async fn ready(&self) {
        loop {
            {
                let state = lock(&self.reader.state);
                if state.snapshot_due
                    || state.closed
                    || !state.freshness.is_empty()
                    || !state.changed.is_empty()
                {
                    return;
                }
            }
            self.reader.woken.notified().await;
        }
    }

    /// What [`next`](Self::next) would answer now; `None` when it would wait.
    pub fn try_next(&mut self) -> Option<Option<Change<K, V>>> {
        // Lock order: hub, then reader, as in every writer.
        let hub = lock(&self.hub);
        let mut state = lock(&self.reader.state);
        if std::mem::take(&mut state.snapshot_due) {
            let set: BTreeMap<K, V> = hub
                .set
                .iter()
                .filter(|(key, value)| (self.reader.filter)(key, value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            state.known = set.keys().map(|key| (key.clone(), ())).collect();
            return Some(Some(Change::Snapshot(set)));
        }
        if let Some(stale) = state.freshness.pop_front() {
            return Some(Some(if stale { Change::Stale } else { Change::Fresh }));
        }
        if let Some((key, value)) = state.changed.pop_first() {
            return Some(Some(match value {
                Some(value) => {
                    state.known.insert(key.clone(), ());
                    Change::Upsert(key, value)
                }
                None => {
                    state.known.remove(&key);
                    Change::Removed(key)
                }
            }));
        }
        state.closed.then_some(None)
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_the_whole_then_merged_changes() {
        let hub = WatchHub::new();
        hub.upsert("a", 1);
        let mut watch = hub.watch();
        assert_eq!(
            watch.next().await,
            Some(Change::Snapshot(BTreeMap::from([("a", 1)])))
        );
        hub.upsert("b", 1);
        hub.upsert("b", 2);
        hub.upsert("c", 1);
        hub.remove(&"c");
        hub.remove(&"a");
        assert_eq!(watch.next().await, Some(Change::Removed("a")));
        assert_eq!(watch.next().await, Some(Change::Upsert("b", 2)));
        assert_eq!(watch.try_next(), None);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_one_change_a_key() {
        let hub = WatchHub::new();
        let mut watch = hub.watch();
        watch.next().await;
        for round in 0..10_000 {
            hub.upsert(round % 10, round);
        }
        let mut told = 0;
        while watch.try_next().is_some() {
            told += 1;
        }
        assert_eq!(told, 10);
    }

    #[tokio::test]
    async fn what_stops_passing_the_filter_is_removed_for_the_reader() {
        let hub = WatchHub::new();
        let mut watch = hub.watch_where(|_, value| *value > 0);
        watch.next().await;
        hub.upsert("a", 1);
        assert_eq!(watch.next().await, Some(Change::Upsert("a", 1)));
        hub.upsert("b", 0);
        hub.upsert("a", 0);
        assert_eq!(watch.next().await, Some(Change::Removed("a")));
        assert_eq!(watch.try_next(), None);
    }

    #[tokio::test]
    async fn stale_fresh_and_closed_are_told_in_order() {
        let hub = WatchHub::<u8, u8>::new();
        let mut watch = hub.watch();
        watch.next().await;
        hub.set_stale(true);
        hub.set_stale(true);
        hub.set_stale(false);
        hub.upsert(1, 1);
        hub.close();
        assert_eq!(watch.next().await, Some(Change::Stale));
        assert_eq!(watch.next().await, Some(Change::Fresh));
        assert_eq!(watch.next().await, Some(Change::Upsert(1, 1)));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let hub = WatchHub::new();
        let mut watch = hub.watch();
        watch.next().await;
        let waiting = tokio::spawn(async move { watch.next().await });
        tokio::task::yield_now().await;
        hub.upsert(1, 1);
        assert_eq!(waiting.await.unwrap(), Some(Change::Upsert(1, 1)));
    }
}
