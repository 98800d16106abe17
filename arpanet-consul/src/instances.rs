//! Watches of instances: of one service, or of all, by a blocking query a service, which is how consul tells of changes at
//! the least cost to its servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arpanet_core::Result;
use futures_util::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::feed::{Age, Ask, Sink, follow};
use crate::reading::Answer;
use crate::rest::Rest;
use crate::running::Source;
use crate::told::{Query, Told, instances};
use crate::translate::is_reserved;
use crate::wire::ServiceEntry;

/// So many services are read at a time.
const SIDE_BY_SIDE: usize = 16;

/// Instances that are followed while somebody holds the guard.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) told: Told,
    pub(crate) guard: Arc<DropGuard>,
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
        let query = Query::Service(self.service.clone());
        self.told.set_stale(query, stale);
    }
}

/// The names of all services, and who follows each.
struct OfAll {
    told: Told,
    source: Source,
    cancel: CancellationToken,
    followed: BTreeMap<String, CancellationToken>,
    rest: Rest,
}

impl OfAll {
    /// By a connection of its own, as long as there are some.
    fn follow_service(&mut self, service: &str, first: u64) {
        let Ok(connection) = Arc::clone(&self.source.connections).try_acquire_owned() else {
            self.rest.add(service);
            return;
        };
        self.rest.remove(service);
        let cancel = self.cancel.child_token();
        self.followed.insert(service.to_owned(), cancel.clone());
        let sink = OfService {
            told: self.told.clone(),
            service: service.to_owned(),
        };
        let ask = ask_service(&self.source, service);
        let (leader, wait) = (self.source.leadership.follow(), self.source.wait);
        tokio::spawn(async move {
            let _connection = connection;
            cancel
                .run_until_cancelled(follow(ask, (first, wait), leader, sink))
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
            .cloned()
            .chain(self.rest.names())
            .filter(|name| !names.contains(name))
            .collect();
        for name in gone {
            if let Some(cancel) = self.followed.remove(&name) {
                cancel.cancel();
            }
            self.rest.remove(&name);
            self.told.forget(&name);
        }
        for name in names {
            if !self.followed.contains_key(&name) {
                self.follow_service(&name, 0);
            }
        }
        // Whenever any service changes the names are told again.
        self.rest.look();
    }

    fn set_stale(&mut self, stale: bool) {
        self.told.set_stale(Query::Names, stale);
    }
}

/// Follows until the guard is dropped or the source ends; then the readers are told that nothing more comes.
fn follow_while<T: Send + 'static>(
    source: &Source,
    ((cancel, guard), connection): ((CancellationToken, DropGuard), Option<OwnedSemaphorePermit>),
    told: Told,
    ask: Ask<T>,
    first: u64,
    sink: impl Sink<T> + 'static,
) -> Following {
    let (leader, wait) = (source.leadership.follow(), source.wait);
    let telling = told.clone();
    tokio::spawn(async move {
        let _connection = connection;
        cancel
            .run_until_cancelled(follow(ask, (first, wait), leader, sink))
            .await;
        telling.hub().close();
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
pub(crate) async fn of_service(
    source: &Source,
    service: &str,
    connection: OwnedSemaphorePermit,
) -> Result<Following> {
    let first = source.service(service).await?;
    let told = Told::new();
    told.show(service, instances(&first.value), first.age());
    told.set_stale(Query::Service(service.to_owned()), !first.has_leader);
    let sink = OfService {
        told: told.clone(),
        service: service.to_owned(),
    };
    let ask = ask_service(source, service);
    let ends = cancelled_with(source);
    let ends = (ends, Some(connection));
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
        rest: Rest::follow(source, &told, &ends.0),
    };
    for (service, answer) in first {
        told.show(&service, instances(&answer.value), answer.age());
        told.set_stale(Query::Service(service.clone()), !answer.has_leader);
        sink.follow_service(&service, answer.index);
    }
    told.set_stale(Query::Names, !names.has_leader);
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
    let ends = (ends, None);
    Ok(follow_while(source, ends, told, ask, names.index, sink))
}

/// The names that are services of the cluster.
pub(crate) fn of_the_cluster(names: BTreeMap<String, Vec<String>>) -> Vec<String> {
    names
        .into_keys()
        .filter(|name| !is_reserved(name))
        .collect()
}

/// What these services have now; all of them, or why not.
pub(crate) async fn all(
    source: &Source,
    names: Vec<String>,
) -> Result<Vec<(String, Answer<Vec<ServiceEntry>>)>> {
    let answers = each(source, names).await.into_iter();
    answers.map(|(name, answer)| Ok((name, answer?))).collect()
}

/// What each of these services has now.
pub(crate) async fn each(
    source: &Source,
    names: impl IntoIterator<Item = String>,
) -> Vec<(String, Result<Answer<Vec<ServiceEntry>>>)> {
    let names: Vec<String> = names.into_iter().collect();
    let reads = names.into_iter().map(|name| {
        let source = source.clone();
        async move {
            let answer = source.service(&name).await;
            (name, answer)
        }
    });
    stream::iter(reads)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await
}
