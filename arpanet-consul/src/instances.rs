//! Watches of instances: of one service, or of all, by a blocking query a service, which is how consul tells of changes at
//! the least cost to its servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arpanet_core::discovery::Instance;
use arpanet_core::watch::WatchHub;
use arpanet_core::{InstanceId, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Answer;
use crate::feed::{Age, Ask, Sink, follow};
use crate::running::Source;
use crate::translate::{by_id, is_reserved, to_instance};
use crate::wire::ServiceEntry;

/// So many services are read at a time.
const SIDE_BY_SIDE: usize = 16;

type Instances = BTreeMap<InstanceId, Instance>;

/// Instances that are followed while somebody holds the guard.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) told: Told,
    pub(crate) guard: Arc<DropGuard>,
}

fn instances(entries: &[ServiceEntry]) -> Instances {
    by_id(entries.iter().filter_map(to_instance))
}

fn ask_service(source: &Source, service: &str) -> Ask<Vec<ServiceEntry>> {
    let (source, service) = (source.clone(), service.to_owned());
    Box::new(move |index| {
        let (source, service) = (source.clone(), service.clone());
        Box::pin(async move {
            let reading = source.beyond(index);
            source.client.health_service(&service, reading).await
        })
    })
}

/// What all of these watches tell into.
#[derive(Debug, Clone)]
pub(crate) struct Told(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    hub: WatchHub<InstanceId, Instance>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What each service has shown last, and of which index that was.
    shown: BTreeMap<String, (u64, BTreeSet<InstanceId>)>,
    /// The queries that have no answer now; the names' is `None`.
    stale: BTreeSet<Option<String>>,
}

impl Told {
    fn new() -> Self {
        Self(Arc::new(Inner {
            hub: WatchHub::new(),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hub(&self) -> WatchHub<InstanceId, Instance> {
        self.0.hub.clone()
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(told: &Weak<Inner>) -> Option<Self> {
        told.upgrade().map(Self)
    }

    /// Tells what a lookup was answered, so that no watch is behind it. Of a service that is not watched nothing is told.
    pub(crate) fn overtake(&self, service: &str, entries: &[ServiceEntry], index: u64) {
        let is_watched = self.state().shown.contains_key(service);
        if is_watched {
            let age = Age {
                index,
                is_anew: false,
            };
            self.show(service, instances(entries), age);
        }
    }

    /// Makes a service's instances these, unless something newer was shown. One that another service has by now stays.
    fn show(&self, service: &str, set: Instances, age: Age) {
        let hub = &self.0.hub;
        let mut state = self.state();
        let now: BTreeSet<InstanceId> = set.keys().cloned().collect();
        let before = match state.shown.get_mut(service) {
            Some((index, _)) if *index > age.index && !age.is_anew => return,
            Some((index, ids)) => {
                *index = age.index;
                std::mem::replace(ids, now)
            }
            None => {
                state.shown.insert(service.to_owned(), (age.index, now));
                BTreeSet::new()
            }
        };
        for id in before {
            let gone = !set.contains_key(&id)
                && hub
                    .get(&id)
                    .is_some_and(|shown| shown.service.as_str() == service);
            if gone {
                hub.remove(&id);
            }
        }
        for (id, instance) in set {
            hub.upsert(id, instance);
        }
    }

    fn forget(&self, service: &str) {
        let last = Age {
            index: 0,
            is_anew: true,
        };
        self.show(service, Instances::new(), last);
        let mut state = self.state();
        state.shown.remove(service);
        state.stale.remove(&Some(service.to_owned()));
        self.0.hub.set_stale(!state.stale.is_empty());
    }

    fn set_stale(&self, query: Option<String>, stale: bool) {
        let mut state = self.state();
        if stale {
            state.stale.insert(query);
        } else {
            state.stale.remove(&query);
        }
        self.0.hub.set_stale(!state.stale.is_empty());
    }
}

/// One service's answers.
struct OfService {
    told: Told,
    service: String,
}

impl Sink<Vec<ServiceEntry>> for OfService {
    fn tell(&mut self, entries: Vec<ServiceEntry>, age: Age) {
        self.told.show(&self.service, instances(&entries), age);
    }

    fn set_stale(&mut self, stale: bool) {
        self.told.set_stale(Some(self.service.clone()), stale);
    }
}

/// The names of all services, and who follows each.
struct OfAll {
    told: Told,
    source: Source,
    cancel: CancellationToken,
    followed: BTreeMap<String, CancellationToken>,
}

impl OfAll {
    fn follow_service(&mut self, service: &str, first: u64) {
        let cancel = self.cancel.child_token();
        self.followed.insert(service.to_owned(), cancel.clone());
        let sink = OfService {
            told: self.told.clone(),
            service: service.to_owned(),
        };
        let ask = ask_service(&self.source, service);
        let leader = self.source.leadership.follow();
        tokio::spawn(async move {
            cancel
                .run_until_cancelled(follow(ask, first, leader, sink))
                .await;
        });
    }
}

impl Sink<Vec<String>> for OfAll {
    fn tell(&mut self, names: Vec<String>, _age: Age) {
        let names: BTreeSet<String> = names.into_iter().collect();
        let gone: Vec<String> = self
            .followed
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(cancel) = self.followed.remove(&name) {
                cancel.cancel();
            }
            self.told.forget(&name);
        }
        for name in names {
            if !self.followed.contains_key(&name) {
                self.follow_service(&name, 0);
            }
        }
    }

    fn set_stale(&mut self, stale: bool) {
        self.told.set_stale(None, stale);
    }
}

/// Follows until the guard is dropped or the source ends; then the readers are told that nothing more comes.
fn follow_while<T: Send + 'static>(
    source: &Source,
    (cancel, guard): (CancellationToken, DropGuard),
    told: Told,
    ask: Ask<T>,
    first: u64,
    sink: impl Sink<T> + 'static,
) -> Following {
    let leader = source.leadership.follow();
    let telling = told.clone();
    tokio::spawn(async move {
        cancel
            .run_until_cancelled(follow(ask, first, leader, sink))
            .await;
        telling.0.hub.close();
    });
    Following {
        told,
        guard: Arc::new(guard),
    }
}

fn cancelled_with(source: &Source) -> (CancellationToken, DropGuard) {
    let cancel = source.cancel.child_token();
    (cancel.clone(), cancel.drop_guard())
}

/// Follows one service, with all that it has now.
pub(crate) async fn of_service(source: &Source, service: &str) -> Result<Following> {
    let first = source.service(service).await?;
    let told = Told::new();
    told.show(service, instances(&first.value), first.age());
    told.set_stale(Some(service.to_owned()), !first.has_leader);
    let sink = OfService {
        told: told.clone(),
        service: service.to_owned(),
    };
    let ask = ask_service(source, service);
    let ends = cancelled_with(source);
    Ok(follow_while(source, ends, told, ask, first.index, sink))
}

/// Follows all services, with all that they have now.
pub(crate) async fn of_all(source: &Source) -> Result<Following> {
    let names = source.names().await?;
    let first: Vec<(String, Answer<Vec<ServiceEntry>>)> = all(source, names.value).await?;
    let told = Told::new();
    let ends = cancelled_with(source);
    let mut sink = OfAll {
        told: told.clone(),
        source: source.clone(),
        cancel: ends.0.clone(),
        followed: BTreeMap::new(),
    };
    for (service, answer) in first {
        told.show(&service, instances(&answer.value), answer.age());
        told.set_stale(Some(service.clone()), !answer.has_leader);
        sink.follow_service(&service, answer.index);
    }
    told.set_stale(None, !names.has_leader);
    let source_of_names = source.clone();
    let ask: Ask<Vec<String>> = Box::new(move |index| {
        let source = source_of_names.clone();
        Box::pin(async move {
            let reading = source.beyond(index);
            let answer = source.client.service_names(reading).await?;
            Ok(Answer {
                value: of_the_cluster(answer.value),
                index: answer.index,
                has_leader: answer.has_leader,
            })
        })
    });
    Ok(follow_while(source, ends, told, ask, names.index, sink))
}

/// The names that are services of the cluster.
pub(crate) fn of_the_cluster(names: BTreeMap<String, Vec<String>>) -> Vec<String> {
    names
        .into_keys()
        .filter(|name| !is_reserved(name))
        .collect()
}

/// What these services have now.
pub(crate) async fn all(
    source: &Source,
    names: Vec<String>,
) -> Result<Vec<(String, Answer<Vec<ServiceEntry>>)>> {
    let reads = names.into_iter().map(|name| {
        let source = source.clone();
        async move {
            let answer = source.service(&name).await?;
            Ok((name, answer))
        }
    });
    stream::iter(reads)
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, service: &str) -> (InstanceId, Instance) {
        let instance = Instance::new(
            id.parse().unwrap(),
            service.parse().unwrap(),
            [10, 1, 0, 5].into(),
            80,
            "0.2".parse().unwrap(),
        );
        (instance.id.clone(), instance)
    }

    const fn age(index: u64) -> Age {
        Age {
            index,
            is_anew: false,
        }
    }

    #[test]
    fn what_is_older_than_what_was_shown_is_not_shown() {
        let told = Told::new();
        told.show("web", Instances::from([instance("w2", "web")]), age(7));
        told.show("web", Instances::from([instance("w1", "web")]), age(5));
        let shown = |told: &Told| told.0.hub.snapshot().into_keys().collect::<Vec<_>>();
        assert_eq!(shown(&told), ["w2".parse().unwrap()]);
        let anew = Age {
            index: 1,
            is_anew: true,
        };
        told.show("web", Instances::from([instance("w1", "web")]), anew);
        assert_eq!(shown(&told), ["w1".parse().unwrap()]);
        told.overtake("db", &[], 9);
        told.overtake("web", &[], 9);
        assert!(shown(&told).is_empty());
    }

    #[test]
    fn an_instance_that_goes_over_is_kept_whichever_is_told_first() {
        for told_first in ["db", "web"] {
            let told = Told::new();
            told.show("web", Instances::from([instance("w1", "web")]), age(1));
            if told_first == "web" {
                told.show("web", Instances::new(), age(2));
            }
            told.show("db", Instances::from([instance("w1", "db")]), age(2));
            told.show("web", Instances::new(), age(2));
            let set = told.0.hub.snapshot();
            assert_eq!(set, Instances::from([instance("w1", "db")]), "{told_first}");
            told.forget("db");
            assert!(told.0.hub.snapshot().is_empty());
        }
    }

    #[test]
    fn all_are_fresh_once_each_is() {
        let told = Told::new();
        let mut watch = told.0.hub.watch();
        watch.try_next();
        told.set_stale(None, true);
        told.set_stale(Some("web".to_owned()), true);
        told.set_stale(None, false);
        assert_eq!(
            watch.try_next(),
            Some(Some(arpanet_core::watch::Change::Stale))
        );
        assert_eq!(watch.try_next(), None);
        told.forget("web");
        assert_eq!(
            watch.try_next(),
            Some(Some(arpanet_core::watch::Change::Fresh))
        );
    }
}
