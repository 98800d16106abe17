//! What this node has registered: told to its own agent, which keeps it and tells the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::admission::NodeInfo;
use arpanet_core::discovery::{Instance, MemberState};
use arpanet_core::{Error, ErrorKind, InstanceId, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::blocking::{next_index, pause};
use crate::check::{ServiceCheck, health_check_id};
use crate::client::Client;
use crate::config::Consistency;
use crate::error::own;
use crate::reading::Reading;
use crate::translate::{
    HEARTBEAT, MEMBER, instance_id, is_shown, service_id, status, to_heartbeat, to_member, to_node,
    to_service,
};
use crate::wire::{NewService, Service, ServiceEntry, Status};

/// An agent that could not tell the catalogue tries again after a minute by itself, or when it is told something. So it is
/// told again after this time.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) instance: Instance,
    pub(crate) checks: Vec<ServiceCheck>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    client: Client,
    me: NodeInfo,
    /// Consul's name for this node.
    at: String,
    heartbeat: Duration,
    limit: Duration,
    held: Mutex<BTreeMap<InstanceId, Registration>>,
    /// Of these the agent may not have what is held here: it did not answer. Without a leader it can be silent for seconds,
    /// as it tells the catalogue of one thing.
    owed: Mutex<BTreeSet<InstanceId>>,
    /// Told that the agent answers while there is something owed to it.
    answers: Notify,
    /// Held while the agent is told.
    telling: tokio::sync::Mutex<()>,
}

impl Registry {
    pub(crate) fn new(
        client: Client,
        me: NodeInfo,
        at: String,
        heartbeat: Duration,
        limit: Duration,
    ) -> Self {
        Self {
            client,
            me,
            at,
            heartbeat,
            limit,
            held: Mutex::default(),
            owed: Mutex::default(),
            answers: Notify::new(),
            telling: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Registration>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> MutexGuard<'_, BTreeSet<InstanceId>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === the node ===

    /// Says that this node is a member and lives. That also has the agent tell the catalogue what it could not before.
    pub(crate) async fn announce(&self) -> Result<()> {
        self.client.register_service(&to_member(&self.me)).await?;
        self.beat().await
    }

    /// The sign of life. An agent that has lost the check is given it again, and [`settling`](Self::settling) all else.
    pub(crate) async fn beat(&self) -> Result<()> {
        match self.client.update_check(HEARTBEAT, Status::Passing).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.client
                    .register_check(&to_heartbeat(self.heartbeat))
                    .await?;
                self.client.update_check(HEARTBEAT, Status::Passing).await?;
                self.client.register_service(&to_member(&self.me)).await?;
                let held = self.held().keys().cloned().collect::<Vec<_>>();
                self.owed().extend(held);
            }
            Err(error) => return Err(error),
        }
        if !self.owed().is_empty() {
            self.answers.notify_one();
        }
        Ok(())
    }

    /// Tells the agent, each time that it answers a sign of life, what it may not have. Ends never.
    pub(crate) async fn settling(&self) {
        loop {
            self.answers.notified().await;
            if let Err(error) = self.settle_owed().await {
                tracing::debug!(%error, "consul's agent does not take what it is owed");
            }
        }
    }

    async fn settle_owed(&self) -> Result<()> {
        let owed = self.owed().clone();
        for id in &owed {
            self.settle(id, true).await?;
        }
        self.have_the_catalogue_told().await
    }

    /// Of all that an agent is told, only a registration has it try the catalogue again.
    async fn have_the_catalogue_told(&self) -> Result<()> {
        self.client.register_service(&to_member(&self.me)).await
    }

    /// Waits until the catalogue has this node as a living member.
    pub(crate) async fn announced(&self) -> Result<()> {
        self.confirmed(MEMBER, |entries| {
            entries.iter().filter_map(to_node).any(|(at, member)| {
                at == self.at && member.node == self.me.node && member.state == MemberState::Alive
            })
        })
        .await
    }

    /// Takes it back that this node is a member.
    pub(crate) async fn withdraw(&self) -> Result<()> {
        let service = self.client.deregister_service(MEMBER).await;
        let check = self.client.deregister_check(HEARTBEAT).await;
        service.and(check)
    }

    /// What the agent has of instances of arpanet2's, whoever registered them, with their services.
    pub(crate) async fn kept(&self) -> Result<Vec<(InstanceId, String)>> {
        let services = self.client.local_services().await?;
        Ok(services
            .into_values()
            .filter_map(|service| Some((instance_id(&service.id)?, service.service)))
            .collect())
    }

    // === instances ===

    /// Registers, and waits until the catalogue shows it; tries for so long as is set.
    pub(crate) async fn register(&self, registration: Registration) -> Result<()> {
        let id = registration.instance.id.clone();
        let before = self.held().insert(id, registration.clone());
        let is_new = before.as_ref() != Some(&registration);
        let task = Task::Register {
            registration,
            is_new,
        };
        self.until_done(&task).await
    }

    /// Takes an instance out, and waits until the catalogue does not show it.
    pub(crate) async fn deregister(&self, id: &InstanceId) -> Result<()> {
        let before = self.held().remove(id);
        let owing = Owing::new(self, id);
        let service = match (self.kept_in(id).await, before) {
            (Ok(kept), _) => kept,
            (Err(_), Some(before)) => Some(before.instance.service.to_string()),
            (Err(error), None) => return Err(error),
        };
        owing.settled();
        let id = id.clone();
        match service {
            Some(service) => self.until_done(&Task::Deregister { service, id }).await,
            None => self.settle(&id, true).await,
        }
    }

    /// Takes all instances and the node itself out. `limit` is for the catalogue to know.
    pub(crate) async fn leave(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        self.held().clear();
        self.owed().clear();
        let mut first = Ok(());
        let kept = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => {
                first = Err(error);
                Vec::new()
            }
        };
        for (id, _) in &kept {
            first = first.and(self.settle(id, true).await);
        }
        first = first.and(self.withdraw().await);
        let gone = async {
            for (id, service) in &kept {
                self.absent(service, &service_id(id)).await?;
            }
            self.absent(MEMBER, MEMBER).await
        };
        // Whoever can't be told now is told by the agent later: the catalogue drops what it has not any more.
        let _ = tokio::time::timeout_at(end, gone).await;
        first
    }

    async fn local(&self, at_consul: &str) -> Result<Option<Service>> {
        match self.client.local_service(at_consul).await {
            Ok(service) => Ok(Some(service)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The service in which the agent has an instance.
    async fn kept_in(&self, id: &InstanceId) -> Result<Option<String>> {
        let _telling = self.telling.lock().await;
        let known = self.local(&service_id(id)).await?;
        Ok(known.map(|known| known.service))
    }

    /// Has the agent have what is held here of an instance, as it is once the agent's turn has come: of two calls about one
    /// instance the later one stands.
    async fn settle(&self, id: &InstanceId, anew: bool) -> Result<()> {
        let owing = Owing::new(self, id);
        let _telling = self.telling.lock().await;
        let wanted = self.held().get(id).cloned();
        match &wanted {
            Some(registration) => self.tell(registration, anew).await?,
            None => self.client.deregister_service(&service_id(id)).await?,
        }
        if self.held().get(id) == wanted.as_ref() {
            self.owed().remove(id);
            owing.settled();
        }
        Ok(())
    }

    /// Tells the agent. What it knows already is not told again, unless `anew`.
    async fn tell(&self, registration: &Registration, anew: bool) -> Result<()> {
        let wanted = to_service(&registration.instance, &registration.checks);
        let known = self.local(&wanted.id).await?;
        let health = health_check_id(&wanted.id);
        let reported = status(registration.instance.health);
        if let Some(known) = &known {
            if known.service != wanted.name {
                // Watches of the service that it was in are not told by consul when an id goes over to another.
                self.client.deregister_service(&wanted.id).await?;
            } else if !anew && is_same(known, &wanted) {
                match self.client.update_check(&health, reported).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    answer => return answer,
                }
            }
        }
        self.client.register_service(&wanted).await?;
        // A check that was there keeps its status through a registration.
        self.client.update_check(&health, reported).await
    }

    // === the catalogue ===

    /// Waits until the service's entries are as wanted; `Unavailable` when they are not for a while.
    async fn confirmed(
        &self,
        service: &str,
        wanted: impl Fn(&[ServiceEntry]) -> bool + Send + Sync,
    ) -> Result<()> {
        let end = Instant::now() + AGAIN;
        let mut index = 0;
        loop {
            let reading = Reading::beyond(Consistency::Default, index, AGAIN);
            let answer = self.client.health_service(service, reading).await?;
            if wanted(&answer.value) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(own(
                    ErrorKind::Unavailable,
                    "consul's catalogue does not show it yet",
                ));
            }
            index = next_index(index, answer.index);
        }
    }

    async fn absent(&self, service: &str, at_consul: &str) -> Result<()> {
        self.confirmed(service, |entries| {
            !entries
                .iter()
                .any(|entry| entry.node.node == self.at && entry.service.id == at_consul)
        })
        .await
    }

    fn is_wanted(&self, task: &Task) -> bool {
        match task {
            Task::Register { registration, .. } => {
                self.held().get(&registration.instance.id) == Some(registration)
            }
            Task::Deregister { id, .. } => !self.held().contains_key(id),
        }
    }

    async fn is_done(&self, task: &Task) -> Result<()> {
        match task {
            // Another call was made about it meanwhile, which has the rest.
            _ if !self.is_wanted(task) => Ok(()),
            Task::Register { registration, .. } => {
                let instance = &registration.instance;
                self.confirmed(instance.service.as_str(), |entries| {
                    is_shown(entries, &self.at, instance)
                })
                .await
            }
            Task::Deregister { service, id } => self.absent(service, &service_id(id)).await,
        }
    }

    async fn tell_of(&self, task: &Task, is_again: bool) -> Result<()> {
        match task {
            _ if !self.is_wanted(task) => Ok(()),
            Task::Register {
                registration,
                is_new,
            } => {
                let anew = *is_new || is_again;
                self.settle(&registration.instance.id, anew).await
            }
            Task::Deregister { id, .. } => {
                self.settle(id, true).await?;
                if is_again {
                    self.have_the_catalogue_told().await?;
                }
                Ok(())
            }
        }
    }

    /// Tries until it is done, for so long as is set.
    async fn until_done(&self, task: &Task) -> Result<()> {
        let end = Instant::now() + self.limit;
        let mut failures = 0;
        let mut last: Option<Error> = None;
        loop {
            let attempt = async {
                self.tell_of(task, failures > 0).await?;
                self.is_done(task).await
            };
            match tokio::time::timeout_at(end, attempt).await {
                Ok(Err(error)) if error.is_retryable() => last = Some(error),
                Ok(answer) => return answer,
                Err(_) => return Err(gave_up(self.limit, last)),
            }
            failures += 1;
            let again = Instant::now() + pause(failures, rand::random());
            if again >= end {
                return Err(gave_up(self.limit, last));
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

/// Of an instance that the agent is being told of: owed to it from when this is dropped, unless it was settled.
struct Owing<'a> {
    registry: &'a Registry,
    id: Option<&'a InstanceId>,
}

impl<'a> Owing<'a> {
    const fn new(registry: &'a Registry, id: &'a InstanceId) -> Self {
        let id = Some(id);
        Self { registry, id }
    }

    fn settled(mut self) {
        self.id = None;
    }
}

impl Drop for Owing<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.registry.owed().insert(id.clone());
        }
    }
}

/// What the catalogue has to know.
enum Task {
    Register {
        registration: Registration,
        is_new: bool,
    },
    Deregister {
        service: String,
        id: InstanceId,
    },
}

fn gave_up(limit: Duration, last: Option<Error>) -> Error {
    let message = format!(
        "consul's catalogue could not be told within {} s",
        limit.as_secs_f32()
    );
    let error = match last {
        Some(last) => own(ErrorKind::Unavailable, message).with_source(last),
        None => own(ErrorKind::Unavailable, message),
    };
    error.with_hint(
        "the catalogue is told once this node's agent answers and most of consul's servers reach each other",
    )
}

/// Whether the agent has a service as it is wanted.
fn is_same(known: &Service, wanted: &NewService) -> bool {
    known.id == wanted.id
        && known.service == wanted.name
        && known.tags == wanted.tags
        && known.address == wanted.address
        && known.port == wanted.port
        && known.meta == wanted.meta
}
