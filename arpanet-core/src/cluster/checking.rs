//! Asking the checks of this host's containers, a bounded number at a time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::checkups::Ticket;
use super::reconcile::Applied;
use super::view::View;
use super::{Cluster, ClusterEvent, Node};
use crate::health::{ContainerHealth, Question};
use crate::overlay::AttachAddr;
use crate::random::Random;
use crate::runtime::{Container, ContainerState};
use crate::{AppAddr, ContainerName, NodeAddr};

/// How many questions are under way at once: more wait for their turn, and none is left out.
const AT_ONCE: usize = 64;

/// How long a node that comes up waits for the first answers, so that what served before goes on serving.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// The task that asks; it ends with this.
#[derive(Debug)]
pub(super) struct Checking(AbortHandle);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl View {
    /// How a container of this node is; `None` for one that does not run, or that nothing asks.
    pub(super) fn health(&self, container: &Container) -> Option<ContainerHealth> {
        let running = container.state == ContainerState::Running;
        self.checkups.health(container).filter(|_| running)
    }
}

impl Cluster {
    /// How the running containers of this node are, by their checks and their engine's own; those that have none are not
    /// among them.
    #[must_use]
    pub fn health(&self) -> BTreeMap<ContainerName, ContainerHealth> {
        let view = self.node.view();
        let containers = view.containers.values();
        containers
            .filter_map(|container| Some((container.name.clone(), view.health(container)?)))
            .collect()
    }

    /// Why what this node's containers provide at these addresses gets no traffic, where that is for their health.
    #[must_use]
    pub fn unwell(&self) -> BTreeMap<Ipv4Addr, ContainerHealth> {
        let me = self.node.me;
        let view = self.node.view();
        let mut unwell = BTreeMap::new();
        for container in view.containers.values() {
            let Some(health) = view.health(container).filter(|health| !health.is_passing()) else {
                continue;
            };
            let addresses = Self::addresses(container).into_iter().map(AppAddr::ip);
            let plugin = container.spec.plugin.map(|block| me.plugin(block));
            unwell.extend(addresses.chain(plugin).map(|ip| (ip, health.clone())));
        }
        unwell
    }
}

impl Applied {
    /// The lowest address that a container has.
    fn lowest_address(&self, me: NodeAddr, name: &ContainerName) -> Option<Ipv4Addr> {
        let attached = self.attached.iter().flat_map(BTreeMap::keys);
        let held = attached.filter(|(container, _)| container == name);
        let ips = held.filter_map(|(_, addr)| match addr {
            AttachAddr::Application(addr) => (!self.has_lost(name, *addr)).then(|| addr.ip()),
            AttachAddr::Plugin(block) => Some(me.plugin(*block)),
        });
        ips.min()
    }
}

impl Node {
    /// Begins to ask what is to be asked.
    pub(super) fn spawn_checking(self: &Arc<Self>) -> Checking {
        let task = run(Arc::downgrade(self), Arc::clone(&self.checking));
        Checking(tokio::spawn(task).abort_handle())
    }

    /// Asks the containers that run and have an address, and no others, from now on.
    pub(super) fn follow_checks(&self, applied: &Applied) {
        let mut view = self.view();
        let View {
            containers,
            checkups,
            ..
        } = &mut *view;
        let asked = containers.values().filter_map(|container| {
            let running = container.state == ContainerState::Running;
            let is_asked = running && !container.spec.checks.is_empty();
            let ip = is_asked.then(|| applied.lowest_address(self.me, &container.name));
            Some((container, ip.flatten()?))
        });
        if checkups.follow(Instant::now(), asked) {
            self.checking.notify_one();
        }
    }

    /// Waits a moment for the first answers of those that an earlier process left attached: they are not to leave lookups
    /// because it was replaced.
    pub(super) async fn hear_first(&self) {
        let all = async {
            loop {
                let answered = self.answered.notified();
                if self.view().checkups.all_have_answered() {
                    return;
                }
                answered.await;
            }
        };
        if timeout(FIRST_ANSWERS, all).await.is_err() {
            tracing::debug!("not all checks have been answered yet");
        }
    }

    /// Tells of containers that are another than before.
    pub(super) fn tell_health(&self, applied: &mut Applied) {
        let now = {
            let view = self.view();
            let running = view.containers.values();
            running
                .filter_map(|container| Some((container.name.clone(), view.health(container)?)))
                .collect::<BTreeMap<_, _>>()
        };
        for (container, health) in &now {
            let news = match applied.health.get(container) {
                Some(before) => !before.is_like(health),
                None => !matches!(health, ContainerHealth::Starting { .. }),
            };
            if news {
                self.emit(ClusterEvent::Health {
                    container: container.clone(),
                    health: health.clone(),
                });
            }
        }
        applied.health = now;
    }
}

/// What is under way.
#[derive(Default)]
struct Asked {
    tasks: JoinSet<(Ticket, Result<(), String>)>,
    tickets: BTreeMap<Ticket, AbortHandle>,
}

impl Asked {
    fn ask(&mut self, node: &Node, ticket: Ticket, question: Question) {
        let answer = question.ask(node.prober.clone(), node.runtime.clone());
        let task = self.tasks.spawn(async move { (ticket, answer.await) });
        self.tickets.insert(ticket, task);
    }

    fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.tickets.len())
    }

    /// Ends questions that nobody awaits any more.
    fn keep(&mut self, awaited: impl Fn(Ticket) -> bool) {
        self.tickets.retain(|ticket, task| {
            let keep = awaited(*ticket);
            if !keep {
                task.abort();
            }
            keep
        });
    }

    /// An answer, unless it is one that nobody awaits any more.
    fn answered(&mut self, joined: Joined) -> Option<(Ticket, Result<(), String>)> {
        let answer = match joined {
            Ok(answer) => answer,
            Err(error) => {
                let mut tickets = self.tickets.iter();
                let (ticket, _) = tickets.find(|(_, task)| task.id() == error.id())?;
                (*ticket, Err("asking broke off".to_owned()))
            }
        };
        self.tickets.remove(&answer.0);
        Some(answer)
    }
}

type Joined = Result<(Ticket, Result<(), String>), JoinError>;

/// Until the node is gone, which is not kept alive by it.
async fn run(node: Weak<Node>, changed: Arc<Notify>) {
    let Some(seed) = node.upgrade().map(|node| node.seed) else {
        return;
    };
    let mut random = Random::new(seed);
    let mut asked = Asked::default();
    let mut joined: Option<Joined> = None;
    loop {
        let due = {
            let Some(node) = node.upgrade() else { return };
            node.hear_and_ask(&mut asked, joined.take(), &mut random)
        };
        let until_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = until_due => {}
            Some(next) = asked.tasks.join_next() => joined = Some(next),
        }
    }
}

impl Node {
    /// Takes the answers that are there and asks what is due. When that is to be done again, unless something changes.
    fn hear_and_ask(
        &self,
        asked: &mut Asked,
        mut joined: Option<Joined>,
        random: &mut Random,
    ) -> Option<Instant> {
        let mut has_turned = false;
        let mut has_heard = false;
        let due = {
            let mut view = self.view();
            let now = Instant::now();
            while let Some(next) = joined.take().or_else(|| asked.tasks.try_join_next()) {
                if let Some((ticket, answer)) = asked.answered(next) {
                    has_heard = true;
                    let chance = random.fraction();
                    has_turned |= view.checkups.hear(ticket, now, answer, chance);
                }
            }
            asked.keep(|ticket| view.checkups.awaits(ticket));
            for (ticket, question) in view.checkups.take_due(now, asked.room()) {
                asked.ask(self, ticket, question);
            }
            // What is due and has no room waits for an answer to others.
            let has_room = asked.room() > 0;
            view.checkups.next_due().filter(|_| has_room)
        };
        if has_heard {
            self.answered.notify_waiters();
        }
        if has_turned {
            self.kick.notify_one();
        }
        due
    }
}
