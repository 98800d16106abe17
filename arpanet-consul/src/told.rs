//! What watches have been told of instances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arpanet_core::InstanceId;
use arpanet_core::discovery::Instance;
use arpanet_core::watch::WatchHub;

use crate::feed::Age;
use crate::translate::{by_id, to_instance};
use crate::wire::ServiceEntry;

pub(crate) type Instances = BTreeMap<InstanceId, Instance>;

pub(crate) fn instances(entries: &[ServiceEntry]) -> Instances {
    by_id(entries.iter().filter_map(to_instance))
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Query {
    /// Which services there are.
    Names,
    /// What one service has.
    Service(String),
    /// What the services have that are not asked for one by one.
    Rest,
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
    /// The queries that have no answer now.
    stale: BTreeSet<Query>,
}

impl Told {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn show(&self, service: &str, set: Instances, age: Age) {
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

    pub(crate) fn forget(&self, service: &str) {
        let last = Age {
            index: 0,
            is_anew: true,
        };
        self.show(service, Instances::new(), last);
        let mut state = self.state();
        state.shown.remove(service);
        state.stale.remove(&Query::Service(service.to_owned()));
        self.0.hub.set_stale(!state.stale.is_empty());
    }

    pub(crate) fn set_stale(&self, query: Query, stale: bool) {
        let mut state = self.state();
        if stale {
            state.stale.insert(query);
        } else {
            state.stale.remove(&query);
        }
        self.0.hub.set_stale(!state.stale.is_empty());
    }
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
        told.set_stale(Query::Names, true);
        told.set_stale(Query::Service("web".to_owned()), true);
        told.set_stale(Query::Names, false);
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
