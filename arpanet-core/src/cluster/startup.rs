//! Coming up and going down: boot, join, return, stop, leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::reconcile::Applied;
use super::record::{self, NodeRecord};
use super::undo::Undo;
use super::view::View;
use super::{Cluster, FacilityContext, Node};
use crate::admission::{Holdings, Membership, NodeInfo, Password, Seed};
use crate::discovery::Instance;
use crate::roster::{Role, Roster};
use crate::{Error, ErrorKind, NodeAddr, Plane, Result};

/// How long a joining node waits for its seed to answer, over gossip and then over the overlay.
const SEED_LIMIT: Duration = Duration::from_secs(7);

/// How long a leaving node takes to tell the others.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Whether the node is in a cluster.
#[derive(Debug, Default)]
pub(super) enum Lifecycle {
    #[default]
    Down,
    Up {
        membership: Box<Membership>,
        task: AbortHandle,
    },
}

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    Silent,
    Told,
    ForGood,
}

/// How a node comes up.
pub(super) enum Way<'a> {
    Found(&'a Password),
    Join {
        password: &'a Password,
        role: Role,
        seed: Seed,
        replace: bool,
    },
    Return(Box<Membership>),
}

impl Way<'_> {
    /// A new member takes everything back when it fails; a returning one only stops, so that it can try again.
    const fn is_return(&self) -> bool {
        matches!(self, Self::Return(_))
    }
}

/// Says which step failed; kind and hint stay.
trait AtStep<T> {
    fn at(self, step: &str) -> Result<T>;
}

impl<T> AtStep<T> for Result<T> {
    fn at(self, step: &str) -> Result<T> {
        self.map_err(|error| error.context(format!("could not {step}")))
    }
}

impl Cluster {
    /// Founds a cluster with this node as its first. When it returns, the node can be used.
    ///
    /// A step that fails undoes the ones before it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when this node is up; otherwise those of the step that failed, which the message
    /// names.
    pub async fn boot(&self, password: &Password) -> Result<()> {
        self.come_up(Way::Found(password)).await
    }

    /// Joins the cluster of a seed, as a server or a client. When it returns, the seed answers over the overlay.
    /// `replace` takes the address over from a dead node.
    ///
    /// A step that fails undoes the ones before it.
    ///
    /// # Errors
    /// As [`boot`](Self::boot), and those of [`Admission::join`](crate::admission::Admission::join);
    /// [`ErrorKind::InvalidInput`] for the role of a boot node.
    pub async fn join(
        &self,
        password: &Password,
        role: Role,
        seed: Seed,
        replace: bool,
    ) -> Result<()> {
        if role == Role::Boot {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a node joins as a server or as a client",
            ));
        }
        self.come_up(Way::Join {
            password,
            role,
            seed,
            replace,
        })
        .await
    }

    /// Comes back with the membership that the store kept: no password, and no seed has to answer.
    ///
    /// # Errors
    /// As [`boot`](Self::boot); nothing that was kept is lost.
    pub async fn resume(&self, membership: Membership) -> Result<()> {
        self.come_up(Way::Return(Box::new(membership))).await
    }

    /// The membership, while this node is up.
    pub async fn membership(&self) -> Option<Membership> {
        match &*self.node.lifecycle.lock().await {
            Lifecycle::Down => None,
            Lifecycle::Up { membership, .. } => Some((**membership).clone()),
        }
    }

    /// Goes down without a word to the others, as for an upgrade of the software: what it kept brings it back by
    /// [`resume`](Self::resume), and its containers go on. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub async fn stop(&self) -> Result<()> {
        self.go_down(Departure::Silent).await
    }

    /// Leaves the cluster in order: what it registered is gone everywhere, and the host's network is as it was before.
    /// The address stays its own, and [`resume`](Self::resume) brings it back. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub async fn leave(&self) -> Result<()> {
        self.go_down(Departure::Told).await
    }

    /// Leaves for good: gives the address up, removes the containers that the cluster runs here, and takes everything
    /// back from the host, also what an earlier process left. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub async fn resign(&self) -> Result<()> {
        self.go_down(Departure::ForGood).await
    }

    async fn come_up(&self, way: Way<'_>) -> Result<()> {
        let mut lifecycle = self.node.lifecycle.lock().await;
        if matches!(*lifecycle, Lifecycle::Up { .. }) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("node {} is up already", self.node.me),
            ));
        }
        let mut done = Vec::new();
        match climb(&self.node, &way, &mut done).await {
            Ok(up) => {
                *lifecycle = up;
                drop(lifecycle);
                // What had to wait until the node is up.
                self.node.kick.notify_one();
                Ok(())
            }
            Err(error) => {
                self.node.roll_back(&way, done).await;
                Err(error)
            }
        }
    }

    async fn go_down(&self, departure: Departure) -> Result<()> {
        let node = &self.node;
        let mut lifecycle = node.lifecycle.lock().await;
        let mut outcomes = Vec::new();
        if let Lifecycle::Up { task, .. } = &*lifecycle {
            task.abort();
            outcomes.push(node.admission.stop().await);
            for facility in node.facilities.iter().rev() {
                outcomes.push(facility.stop().await);
            }
            match departure {
                Departure::Silent => {
                    outcomes.push(node.discovery.stop().await);
                    outcomes.push(node.overlay.stop().await);
                }
                Departure::Told => outcomes.push(node.discovery.leave(LEAVE_LIMIT).await),
                Departure::ForGood => {
                    outcomes.push(node.discovery.forget(node.me).await);
                    outcomes.push(node.discovery.leave(LEAVE_LIMIT).await);
                }
            }
        }
        if departure == Departure::ForGood {
            outcomes.push(node.remove_own_containers().await);
        }
        if departure != Departure::Silent {
            outcomes.push(node.stop_resolving().await);
            outcomes.push(node.overlay.reset().await);
        }
        if departure == Departure::ForGood {
            outcomes.push(node.store.clear().await);
        }
        *lifecycle = Lifecycle::Down;
        node.stop_tasks().await;
        outcomes.into_iter().collect()
    }
}

impl Node {
    /// Forgets what was learned and told while the node was up.
    pub(super) async fn stop_tasks(&self) {
        *self.applied.lock().await = Applied::default();
        self.resolving.clear();
        *self.view() = View::default();
        self.connected.send_replace(Default::default());
        self.listed.send_replace(false);
    }

    /// Keeps the membership with this roster; `false` while the node comes up or goes down.
    pub(super) async fn save_roster(&self, roster: &Roster) -> Result<bool> {
        // Not awaited: coming up holds this lock while it waits for a reconciliation.
        let Ok(mut lifecycle) = self.lifecycle.try_lock() else {
            return Ok(false);
        };
        let Lifecycle::Up { membership, .. } = &mut *lifecycle else {
            return Ok(false);
        };
        let mut changed = (**membership).clone();
        changed.roster = roster.clone();
        self.store.save(&changed).await?;
        **membership = changed;
        Ok(true)
    }

    /// Keeps what this node holds with its membership; `false` while the node comes up or goes down.
    pub(super) async fn save_holdings(&self, holdings: &Holdings) -> Result<bool> {
        let Ok(mut lifecycle) = self.lifecycle.try_lock() else {
            return Ok(false);
        };
        let Lifecycle::Up { membership, .. } = &mut *lifecycle else {
            return Ok(false);
        };
        if membership.holdings != *holdings {
            let mut changed = (**membership).clone();
            changed.holdings = holdings.clone();
            self.store.save(&changed).await?;
            **membership = changed;
        }
        Ok(true)
    }

    fn info(&self, role: Role) -> NodeInfo {
        NodeInfo::new(self.me, self.name.clone(), role).advertise(self.advertise)
    }

    async fn admitted(&self, way: &Way<'_>) -> Result<Membership> {
        match way {
            Way::Found(password) => self.admission.found(password, &self.info(Role::Boot)).await,
            Way::Join {
                password,
                role,
                seed,
                replace,
            } => {
                self.admission
                    .join(password, &self.info(*role), *seed, *replace)
                    .await
            }
            Way::Return(membership) => Ok((**membership).clone()),
        }
    }

    /// Has the seed take an admission back that can't be used, so that the address is free for the next try.
    pub(super) async fn hand_back(&self, way: &Way<'_>) -> Result<()> {
        let Way::Join {
            password,
            role,
            seed,
            ..
        } = way
        else {
            return Ok(());
        };
        let info = self.info(*role);
        match self.admission.withdraw(password, &info, *seed).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Waits until the seed has answered on every layer: its announcement came over discovery, its overlay answers.
    async fn meet(&self, password: &Password, role: Role, seed: Seed) -> Result<()> {
        let heard = tokio::time::timeout(SEED_LIMIT, self.hear_from(seed.node));
        if let Ok(heard) = heard.await {
            heard?;
        } else {
            let arrived = self
                .admission
                .withdraw(password, &self.info(role), seed)
                .await;
            return Err(no_datagrams(seed, arrived));
        }
        self.overlay.wait_reachable(seed.node, SEED_LIMIT).await
    }

    /// Waits until the overlay was told of the seed, or the seed has said that the two have no business with each other.
    async fn hear_from(&self, seed: NodeAddr) -> Result<()> {
        let (mut rounds, mut connected) = (self.rounds.subscribe(), self.connected.subscribe());
        loop {
            let said = self.agree(seed)?;
            if said && connected.borrow_and_update().contains(&seed) {
                return Ok(());
            }
            // Their senders are this node's own.
            let _ = tokio::select! {
                changed = connected.changed() => changed,
                changed = rounds.changed() => changed,
            };
        }
    }

    /// Refuses a cluster with another overlay, which reaches nobody here, or whose services are in another backend than
    /// this node's, so that each would miss the other's. `false` where the seed has not said yet what it has.
    fn agree(&self, seed: NodeAddr) -> Result<bool> {
        if !self.discovery.capabilities().records {
            return Ok(true);
        }
        let about: Option<NodeRecord> = self
            .view()
            .records
            .get(seed, record::NODE)
            .and_then(|about| record::decode(&about.value));
        let Some(about) = about else {
            return Ok(false);
        };
        for (what, mine, theirs) in [
            ("overlay", self.overlay.name(), about.overlay),
            ("discovery", self.discovery.name(), about.discovery),
        ] {
            if let Some(theirs) = theirs.filter(|theirs| theirs != mine) {
                let message =
                    format!("this node's {what} is {mine}, and the cluster's is {theirs}");
                return Err(Error::new(ErrorKind::Incompatible, message)
                    .with_hint(format!("join with {what} {theirs}")));
            }
        }
        Ok(true)
    }
}

/// Told when the seed was met over TCP and not over UDP; `arrived` says whether it has heard this node.
fn no_datagrams(seed: Seed, arrived: Result<bool>) -> Error {
    let (ip, port) = (seed.endpoint.ip(), seed.endpoint.port());
    let admitted = format!("the seed {} admitted this node over tcp, but", seed.node);
    let (message, hint) = match arrived {
        // Not seen: what was sent there is lost, too, or its sender did not last with all answers lost.
        Ok(false) => (
            format!(
                "{admitted} nothing from {ip} port {port}/udp arrives here, and the seed does not see this node"
            ),
            format!("let udp through in both directions: from here to {ip} port {port}, and back"),
        ),
        Ok(true) => (
            format!(
                "{admitted} nothing from {ip} port {port}/udp arrives here, while the seed sees this node"
            ),
            format!("let udp through from {ip} port {port} to this host"),
        ),
        Err(_) => (
            format!(
                "{admitted} nothing came back from {ip} port {port}/udp within {} s",
                SEED_LIMIT.as_secs()
            ),
            format!("let udp through in both directions: from here to {ip} port {port}, and back"),
        ),
    };
    Error::new(ErrorKind::Timeout, message).with_hint(format!(
        "{hint}; see where it ends with: tcpdump -ni any udp port {port}, here and there"
    ))
}

/// The steps of coming up; what each needs to be undone is noted before the next.
async fn climb(node: &Arc<Node>, way: &Way<'_>, done: &mut Vec<Undo>) -> Result<Lifecycle> {
    let returning = way.is_return();
    node.step("checking this host");
    node.overlay
        .preflight(node.me)
        .await
        .at("pass the checks of this host")?;
    node.step(match way {
        Way::Found(_) => "founding the cluster",
        Way::Join { .. } => "proving the password to the seed",
        Way::Return(_) => "returning to the cluster",
    });
    let membership = node.admitted(way).await.at(match way {
        Way::Found(_) => "found a cluster",
        Way::Join { .. } => "join the cluster",
        Way::Return(_) => "return to the cluster",
    })?;

    if !returning {
        done.push(Undo::ClearStore);
    }
    if matches!(way, Way::Join { .. }) {
        // With the identity that it was given to, so before the store is cleared.
        done.push(Undo::HandBack);
    }
    node.store
        .save(&membership)
        .await
        .at("keep the membership")?;

    done.push(if returning {
        Undo::StopOverlay
    } else {
        Undo::ResetOverlay
    });
    node.step("launching the overlay");
    let announcement = node
        .overlay
        .launch(&membership)
        .await
        .at("launch the overlay")?;
    for plane in [Plane::Docker, Plane::Discovery] {
        node.overlay
            .expose(plane)
            .await
            .at("give the node its addresses")?;
    }

    done.push(if returning {
        Undo::StopDiscovery
    } else {
        Undo::LeaveDiscovery
    });
    node.step("starting discovery");
    node.discovery
        .start(&membership)
        .await
        .at("start discovery")?;
    // From here on this node takes itself out.
    done.retain(|undo| *undo != Undo::HandBack);
    if node.discovery.capabilities().records {
        let about = record::encode(&NodeRecord {
            version: node.version.clone(),
            discovery: Some(node.discovery.name().to_owned()),
            overlay: Some(node.overlay.name().to_owned()),
        })?;
        node.discovery
            .publish(record::NODE, about)
            .await
            .at("announce the node")?;
        node.discovery
            .publish(record::ANNOUNCEMENT, announcement.0)
            .await
            .at("announce the overlay")?;
    }

    done.push(Undo::StopTasks);
    {
        let mut view = node.view();
        view.holdings = membership.holdings.clone();
        view.ranges.kept = membership.holdings.ranges.clone();
        if node.discovery.capabilities().records {
            view.roster = membership.roster.clone();
        }
    }
    let task = node.spawn_reconcile().await.at("watch the cluster")?;
    let up = async {
        if let Way::Join {
            password,
            role,
            seed,
            ..
        } = way
        {
            node.step("reaching the seed over the overlay");
            node.meet(password, *role, *seed)
                .await
                .at("reach the seed over the overlay")?;
        }
        node.discovery
            .start_on_overlay(returning)
            .await
            .at("start discovery on the overlay")?;
        let context = FacilityContext::new(
            membership.clone(),
            Arc::clone(&node.discovery),
            node.events.clone(),
        );
        for (index, facility) in node.facilities.iter().enumerate() {
            done.push(Undo::StopFacility(index));
            node.step(format!("starting {}", facility.name()));
            facility
                .start(&context)
                .await
                .at(&format!("start {}", facility.name()))?;
        }
        // Not before all that an engine may need to come up is served.
        node.wait_for_containers().await;
        node.discovery
            .register(Instance::new(
                format!("{}:arpanet2", node.me).parse()?,
                "arpanet2".parse()?,
                node.me.overlay(),
                0,
                node.me,
            ))
            .await
            .at("register the node")?;
        done.push(Undo::StopAdmission);
        node.admission
            .serve(&membership, Arc::new(node.gate(membership.me.role)))
            .await
            .at("admit others")
    };
    if let Err(error) = up.await {
        task.abort();
        return Err(error);
    }
    Ok(Lifecycle::Up {
        membership: Box::new(membership),
        task,
    })
}
