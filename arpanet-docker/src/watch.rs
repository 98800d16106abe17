//! Following the engine: what it tells is only taken as a reason to look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{Container, ContainerState};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::future::{BoxFuture, Fuse, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::endpoints;
use crate::error::own;
use crate::moment::seconds;
use crate::view::View;

/// Between two attempts to reach an engine that is away.
const RETRY: Duration = Duration::from_millis(100);

/// How long a reader waits for the first list.
const FIRST: Duration = Duration::from_secs(5);

/// As an engine tells of a container that ended without it.
const KILLED: ContainerState = ContainerState::Exited { code: 137 };

/// When all is looked at again, whatever was told.
const AGAIN: Duration = Duration::from_secs(60);

/// How far back the engine is asked for what happened, so that nothing falls between two looks.
const OVERLAP: Duration = Duration::from_secs(1);

/// How long the engine may be silent. It says so little that only the list tells whether it is still there.
const SILENCE: Duration = Duration::from_secs(86_400);

/// When a container that could not be looked at is tried again.
const LATER: Duration = Duration::from_secs(1);

/// The follower, as its readers see it.
#[derive(Debug)]
pub(crate) struct Follower {
    hub: WatchHub<ContainerName, Container>,
    /// Whether the engine was tried: all was seen, or it is away.
    tried: watch::Receiver<bool>,
    news: mpsc::UnboundedSender<String>,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
        self.hub.close();
    }
}

/// The one follower of a runtime, once somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Following(Mutex<Option<Follower>>);

impl Following {
    /// A reader, as soon as all was seen. One of an engine that is away, or slow, begins without.
    pub(crate) async fn watch(&self, view: &Arc<View>) -> Watch<ContainerName, Container> {
        let (hub, mut tried) = {
            let mut follower = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let follower = follower.get_or_insert_with(|| Follower::begin(Arc::clone(view)));
            (follower.hub.clone(), follower.tried.clone())
        };
        let _ = timeout(FIRST, tried.wait_for(|tried| *tried)).await;
        hub.watch()
    }

    /// Something changed that the engine does not tell.
    pub(crate) fn look_at(&self, id: &str) {
        let follower = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.as_ref() {
            let _ = follower.news.send(id.to_owned());
        }
    }
}

impl Follower {
    fn begin(view: Arc<View>) -> Self {
        let hub = WatchHub::new();
        hub.set_stale(true);
        let (tell, tried) = watch::channel(false);
        let (news, told) = mpsc::unbounded_channel();
        let run = Run {
            view,
            hub: hub.clone(),
            names: BTreeMap::new(),
            tell,
            told,
            is_lost: false,
        };
        let task = tokio::spawn(run.run()).abort_handle();
        Self {
            hub,
            tried,
            news,
            task,
        }
    }
}

struct Run {
    view: Arc<View>,
    hub: WatchHub<ContainerName, Container>,
    /// Who is in the hub, by id.
    names: BTreeMap<String, ContainerName>,
    tell: watch::Sender<bool>,
    told: mpsc::UnboundedReceiver<String>,
    /// That was logged.
    is_lost: bool,
}

/// A look at one container, and what was seen.
type Look = (String, Result<Option<Container>>);

/// Looks that are under way: one a container at a time, so that none overtakes another.
#[derive(Default)]
struct Looks {
    under_way: FuturesUnordered<BoxFuture<'static, Look>>,
    busy: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Looks {
    fn at(&mut self, view: &Arc<View>, id: String, delay: Duration) {
        if !self.busy.insert(id.clone()) {
            self.again.insert(id);
            return;
        }
        let view = Arc::clone(view);
        self.under_way.push(
            async move {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                let seen = view.ours(&id).await;
                (id, seen)
            }
            .boxed(),
        );
    }
}

impl Run {
    async fn run(mut self) {
        loop {
            let error = match self.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if std::mem::replace(&mut self.is_lost, true) {
                tracing::trace!(%error, "the docker engine is still away");
            } else {
                tracing::warn!(%error, "the docker engine can't be followed");
            }
            self.hub.set_stale(true);
            self.note_ended();
            self.tell.send_replace(true);
            sleep(RETRY).await;
        }
    }

    /// Notes what ended while the engine can't say it: one that is stopped takes its containers with it, unless it is set to
    /// restore them live.
    fn note_ended(&self) {
        for (name, container) in self.hub.snapshot() {
            let ended = match &container.namespace {
                Some(NetNamespace::Path(path)) => !path.exists(),
                _ => false,
            };
            if ended && container.state == ContainerState::Running {
                let container = container.state(KILLED).namespace(None);
                self.hub.upsert(name, container);
            }
        }
    }

    /// Until the engine is lost.
    async fn follow(&mut self) -> Result<std::convert::Infallible> {
        let docker = self.view.client.engine(SILENCE).await?;
        // The engine keeps what happened lately, so it does not matter which of the two it takes up first.
        let since = seconds(SystemTime::now() - OVERLAP);
        let only = HashMap::from([("type", vec!["container", "network"])]);
        let options = EventsOptionsBuilder::default()
            .since(&since)
            .filters(&only)
            .build();
        let mut events = Box::pin(docker.events(Some(options)));
        let mut looks = Looks::default();
        // What has to be seen until the whole is seen; none before the list is there.
        let mut missing: Option<BTreeSet<String>> = None;
        let mut listing = self.list();
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.tick().await;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if let Some(id) = endpoints::joined(&event) {
                            self.view.reconsider(id);
                        }
                        if let Some(id) = changed(event) && self.view.can_be_ours(&id) {
                            looks.at(&self.view, id, Duration::ZERO);
                        }
                    }
                    Some(Err(failure)) => return Err(self.view.client.failed(failure)),
                    None => return Err(own(ErrorKind::Unavailable, "the engine tells no more")),
                },
                Some(id) = self.told.recv() => looks.at(&self.view, id, Duration::ZERO),
                _ = again.tick() => listing = self.list(),
                listed = &mut listing => {
                    let ids: BTreeSet<String> = listed?.into_iter().collect();
                    let gone: Vec<String> =
                        self.names.keys().filter(|id| !ids.contains(*id)).cloned().collect();
                    missing.get_or_insert_with(|| ids.iter().chain(&gone).cloned().collect());
                    for id in ids.into_iter().chain(gone) {
                        looks.at(&self.view, id, Duration::ZERO);
                    }
                    self.all_seen(&mut missing);
                }
                Some((id, seen)) = looks.under_way.next(), if !looks.under_way.is_empty() => {
                    looks.busy.remove(&id);
                    if let Some(missing) = &mut missing {
                        missing.remove(&id);
                    }
                    let late = self.apply(&id, seen)?;
                    if looks.again.remove(&id) || late {
                        let delay = if late { LATER } else { Duration::ZERO };
                        looks.at(&self.view, id, delay);
                    }
                    self.all_seen(&mut missing);
                }
            }
        }
    }

    fn list(&self) -> Fuse<BoxFuture<'static, Result<Vec<String>>>> {
        let view = Arc::clone(&self.view);
        async move { view.candidates().await }.boxed().fuse()
    }

    /// Tells the readers, when nothing is missing any more.
    fn all_seen(&mut self, missing: &mut Option<BTreeSet<String>>) {
        if missing.as_ref().is_some_and(BTreeSet::is_empty) {
            self.hub.set_stale(false);
            self.is_lost = false;
            self.tell.send_replace(true);
        }
    }

    /// Takes over what was seen; whether it has to be looked at again.
    fn apply(&mut self, id: &str, seen: Result<Option<Container>>) -> Result<bool> {
        match seen {
            Ok(Some(container)) => {
                let name = container.name.clone();
                if self.names.get(id).is_some_and(|before| *before != name) {
                    self.remove(id);
                }
                self.names.insert(id.to_owned(), name.clone());
                self.hub.upsert(name, container);
            }
            Ok(None) => self.remove(id),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.remove(id);
                self.view.forget([&id.to_owned()]);
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                tracing::warn!(container = id, %error, "a container can't be looked at");
                return Ok(is_late(&error));
            }
        }
        Ok(false)
    }

    fn remove(&mut self, id: &str) {
        if let Some(name) = self.names.remove(id)
            // Another one may have the name by now.
            && self.hub.get(&name).is_some_and(|container| container.id == id)
        {
            self.hub.remove(&name);
        }
    }
}

/// One that the engine is busy with, say, while a driver of it hangs.
fn is_late(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Internal)
}

/// The container that an event changed.
fn changed(event: EventMessage) -> Option<String> {
    // What somebody does in it or with its files is not a change of it; health checks do so all the time.
    const NOTHING: [&str; 9] = [
        "exec_",
        "top",
        "attach",
        "detach",
        "resize",
        "archive-path",
        "export",
        "copy",
        "commit",
    ];
    let action = event.action?;
    if NOTHING.iter().any(|prefix| action.starts_with(prefix)) {
        return None;
    }
    let actor = event.actor?;
    if matches!(action.as_str(), "connect" | "disconnect") {
        return actor.attributes?.remove("container");
    }
    match event.typ {
        Some(EventMessageTypeEnum::NETWORK) => None,
        _ => actor.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    #[test]
    fn only_what_changes_a_container_is_a_reason_to_look() {
        for (action, reason) in [
            ("start", true),
            ("die", true),
            ("destroy", true),
            ("rename", true),
            ("health_status: healthy", true),
            ("exec_create: sh -c true", false),
            ("exec_die", false),
            ("attach", false),
        ] {
            let event = EventMessage {
                action: Some(action.to_owned()),
                actor: Some(EventActor {
                    id: Some("0123".to_owned()),
                    ..EventActor::default()
                }),
                ..EventMessage::default()
            };
            assert_eq!(changed(event).is_some(), reason, "{action}");
        }
    }
}
