//! What this node has registered: told to its own agent, which keeps it and tells the catalogue.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::admission::NodeInfo;
use arpanet_core::discovery::{Instance, MemberState};
use arpanet_core::{Error, ErrorKind, InstanceId, Result};
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
    /// Held while the agent is told, so that of two calls about one instance the later one stands.
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
            telling: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Registration>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === the node ===

    /// Says that this node is a member and lives. That also has the agent tell the catalogue what it could not before.
    pub(crate) async fn announce(&self) -> Result<()> {
        self.client.register_service(&to_member(&self.me)).await?;
        self.beat().await
    }

    /// The sign of life. An agent that has lost the check is given it again, and all else.
    pub(crate) async fn beat(&self) -> Result<()> {
        match self.client.update_check(HEARTBEAT, Status::Passing).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            answer => return answer,
        }
        self.client
            .register_check(&to_heartbeat(self.heartbeat))
            .await?;
        self.client.update_check(HEARTBEAT, Status::Passing).await?;
        self.client.register_service(&to_member(&self.me)).await?;
        let held: Vec<Registration> = self.held().values().cloned().collect();
        for registration in held {
            self.tell(&registration, true).await?;
        }
        Ok(())
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
        let told = self.tell(&registration, is_new).await;
        self.until_done(&Task::Register(registration), told).await
    }

    /// Takes an instance out, and waits until the catalogue does not show it.
    pub(crate) async fn deregister(&self, id: &InstanceId) -> Result<()> {
        self.held().remove(id);
        let at_consul = service_id(id);
        let service = {
            let _telling = self.telling.lock().await;
            self.local(&at_consul)
                .await
                .map(|known| known.map(|known| known.service))
        };
        let service = match service {
            Ok(None) => return Ok(()),
            Ok(Some(service)) => service,
            Err(error) => return Err(error),
        };
        let told = self.forget(&at_consul).await;
        let task = Task::Deregister { service, at_consul };
        self.until_done(&task, told).await
    }

    /// Takes all instances and the node itself out. `limit` is for the catalogue to know.
    pub(crate) async fn leave(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        self.held().clear();
        let mut first = Ok(());
        let kept = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => {
                first = Err(error);
                Vec::new()
            }
        };
        for (id, _) in &kept {
            first = first.and(self.forget(&service_id(id)).await);
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

    async fn forget(&self, at_consul: &str) -> Result<()> {
        let _telling = self.telling.lock().await;
        self.client.deregister_service(at_consul).await
    }

    /// Tells the agent. What it knows already is not told again, unless `anew`.
    async fn tell(&self, registration: &Registration, anew: bool) -> Result<()> {
        let _telling = self.telling.lock().await;
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

    fn is_held(&self, registration: &Registration) -> bool {
        self.held().get(&registration.instance.id) == Some(registration)
    }

    async fn is_done(&self, task: &Task) -> Result<()> {
        match task {
            // Somebody deregistered it, or registered something else, meanwhile: that call has the rest.
            Task::Register(registration) if !self.is_held(registration) => Ok(()),
            Task::Register(Registration { instance, .. }) => {
                self.confirmed(instance.service.as_str(), |entries| {
                    is_shown(entries, &self.at, instance)
                })
                .await
            }
            Task::Deregister { service, at_consul } => self.absent(service, at_consul).await,
        }
    }

    async fn tell_again(&self, task: &Task) -> Result<()> {
        match task {
            Task::Register(registration) if self.is_held(registration) => {
                self.tell(registration, true).await
            }
            Task::Register(_) => Ok(()),
            Task::Deregister { at_consul, .. } => {
                self.forget(at_consul).await?;
                // Of all that it is told, only a registration has the agent try the catalogue again.
                self.client.register_service(&to_member(&self.me)).await
            }
        }
    }

    /// Tries until it is done, for so long as is set.
    async fn until_done(&self, task: &Task, mut told: Result<()>) -> Result<()> {
        let end = Instant::now() + self.limit;
        let mut failures = 0;
        let mut last: Option<Error> = None;
        loop {
            let attempt = async {
                told?;
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
            told = tokio::time::timeout_at(end, self.tell_again(task))
                .await
                .unwrap_or(Ok(()));
        }
    }
}

/// What the catalogue has to know.
enum Task {
    Register(Registration),
    Deregister { service: String, at_consul: String },
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
        "this node's agent has it, and tells the catalogue once most of consul's servers reach each other",
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
