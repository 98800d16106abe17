//! The services that no connection is left for. They are read anew whenever anything in the catalogue changes that could be
//! of one of them, at most once in a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::feed::{Age, Ask, Sink, follow};
use crate::instances::each;
use crate::running::Source;
use crate::told::{Query, Told, instances};
use crate::wire::Check;

/// At most once in this time.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Rest(Arc<watch::Sender<BTreeSet<String>>>);

impl Rest {
    /// Of no services yet; reads until it is cancelled.
    pub(crate) fn follow(source: &Source, told: &Told, cancel: &CancellationToken) -> Self {
        let rest = Self(Arc::new(watch::Sender::default()));
        let reading = read(source.clone(), told.clone(), rest.0.subscribe());
        let failing = failing(source.clone(), rest.clone());
        let cancel = cancel.clone();
        tokio::spawn(async move {
            cancel
                .run_until_cancelled(async { tokio::join!(reading, failing) })
                .await;
        });
        rest
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.0.borrow().clone()
    }

    pub(crate) fn add(&self, service: &str) {
        self.0
            .send_if_modified(|names| names.insert(service.to_owned()));
    }

    pub(crate) fn remove(&self, service: &str) {
        self.0.send_if_modified(|names| names.remove(service));
    }

    /// Has all of them read again.
    pub(crate) fn look(&self) {
        self.0.send_if_modified(|names| !names.is_empty());
    }
}

/// Reads whenever there is something to look for.
async fn read(source: Source, told: Told, mut rest: watch::Receiver<BTreeSet<String>>) {
    let mut again = tokio::time::interval(PERIOD);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        if !failed && rest.changed().await.is_err() {
            return;
        }
        again.tick().await;
        let names = rest.borrow_and_update().clone();
        failed = false;
        let mut has_leader = true;
        let answers = each(&source, names).await;
        for (service, answer) in answers {
            // It may be followed, or gone, by now.
            if !rest.borrow().contains(&service) {
                continue;
            }
            match answer {
                Ok(answer) => {
                    has_leader &= answer.has_leader;
                    let age = Age {
                        index: answer.index,
                        is_anew: true,
                    };
                    told.show(&service, instances(&answer.value), age);
                }
                Err(_) => failed = true,
            }
        }
        told.set_stale(Query::Rest, failed || !has_leader);
        failed |= !has_leader;
    }
}

/// Follows which checks fail: all that a change of health is told by, without one of a service.
async fn failing(source: Source, rest: Rest) {
    // Not before it is needed.
    let mut names = rest.0.subscribe();
    if names.wait_for(|names| !names.is_empty()).await.is_err() {
        return;
    }
    let (leader, wait) = (source.leadership.follow(), source.wait);
    let ask: Ask<Vec<Check>> = Box::new(move |index| {
        let source = source.clone();
        Box::pin(async move { source.client.critical(source.beyond(index)).await })
    });
    follow(ask, (0, wait), leader, Failing(rest)).await;
}

struct Failing(Rest);

impl Sink<Vec<Check>> for Failing {
    fn tell(&mut self, _checks: Vec<Check>, _age: Age) {
        self.0.look();
    }

    fn set_stale(&mut self, stale: bool) {
        if stale {
            // Reading them says whether they are.
            self.0.look();
        }
    }
}
