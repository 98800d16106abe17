//! Admission in the simulated world: the rules of the real one, without its cryptography.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::network::HostIndex;
use super::state::{Seat, State};
use crate::admission::{
    Admission, ClusterKey, Credential, Gatekeeper, Membership, MembershipStore, NodeInfo, Password,
    Secret, Seed,
};
use crate::roster::{ClusterId, Identity, Roster, RosterEntry};
use crate::{Error, ErrorKind, Result};

const BACKEND: &str = "memory";

/// How long a seed that does not answer is waited for.
const NO_ANSWER: Duration = Duration::from_secs(3);

/// What serves applicants on one host.
#[derive(Debug)]
pub(super) struct AdmissionProcess {
    membership: Membership,
    gatekeeper: Arc<dyn Gatekeeper>,
}

/// [`Admission`] of one host of a [`World`](super::World).
#[derive(Debug, Clone)]
pub struct MemoryAdmission {
    seat: Seat,
}

/// What the seed answers when it is first spoken to.
struct Proven {
    membership: Membership,
    gatekeeper: Arc<dyn Gatekeeper>,
    applicant: RosterEntry,
    identity: Identity,
}

impl MemoryAdmission {
    pub(super) const fn new(seat: Seat) -> Self {
        Self { seat }
    }

    /// Speaks to the seed, or says why it can't be spoken to.
    fn prove(&self, password: &Password, me: &NodeInfo, seed: Seed) -> Result<Proven> {
        self.seat.enter(|state, host| {
            let at = dial(state, host, seed)?;
            let process = state.hosts[at].admission.as_ref().ok_or_else(|| {
                let message = format!("{} refuses connections", seed.endpoint);
                Error::new(ErrorKind::Unavailable, message)
                    .with_hint("does arpanet2 run there? a seed is a boot or a server node")
            })?;
            let seed_is = &process.membership.me;
            if !seed_is.role.admits() {
                let message = format!("{} is a client and admits nobody", seed_is.node);
                return Err(Error::new(ErrorKind::PermissionDenied, message)
                    .with_hint("join by way of the boot node or a server"));
            }
            let known = state.hosts[at].password.as_ref();
            if known.is_none_or(|known| known.expose() != password.expose()) {
                return Err(Error::new(
                    ErrorKind::Unauthenticated,
                    "the password is wrong",
                ));
            }
            if seed_is.node != seed.node {
                let message = format!("{} is {}, not {}", seed.endpoint, seed_is.node, seed.node);
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            let identity = state.hosts[host].identity;
            let endpoint = me.advertise.unwrap_or(state.hosts[host].endpoint);
            // The gatekeeper knows the cluster's logical time.
            let applicant =
                RosterEntry::new(me.node, me.name.clone(), me.role, identity, 0).at(Some(endpoint));
            Ok(Proven {
                membership: process.membership.clone(),
                gatekeeper: Arc::clone(&process.gatekeeper),
                applicant,
                identity,
            })
        })
    }

    fn round_trip(&self, seed: Seed) -> Result<Duration> {
        self.seat.enter(|state, host| {
            Ok(state
                .by_endpoint(seed.endpoint)
                .filter(|at| state.network.linked(host, *at))
                .map_or(NO_ANSWER, |at| state.network.delay(host, at) * 2))
        })
    }
}

fn dial(state: &State, host: HostIndex, seed: Seed) -> Result<HostIndex> {
    state
        .by_endpoint(seed.endpoint)
        .filter(|at| state.network.linked(host, *at))
        .ok_or_else(|| {
            let message = format!("no answer from {} (tcp) in {NO_ANSWER:?}", seed.endpoint);
            Error::new(ErrorKind::Timeout, message)
                .with_hint("is that host up, and the port open there?")
        })
}

/// The password that a credential of this world is.
fn spell(credential: &Credential) -> Result<Password> {
    let text = std::str::from_utf8(credential.expose()).map_err(|_| {
        Error::new(
            ErrorKind::Incompatible,
            "the credential is of another admission",
        )
    })?;
    Password::new(text)
}

#[async_trait]
impl Admission for MemoryAdmission {
    async fn found(&self, password: &Password, me: &NodeInfo) -> Result<Membership> {
        self.seat.enter(|state, host| {
            let cluster = ClusterId::from_bytes(state.random.bytes());
            let key = ClusterKey::new(1, Secret::from_bytes(state.random.bytes()));
            let at = &mut state.hosts[host];
            at.password = Some(password.clone());
            let endpoint = me.advertise.unwrap_or(at.endpoint);
            let entry = RosterEntry::new(me.node, me.name.clone(), me.role, at.identity, 0)
                .at(Some(endpoint));
            let roster: Roster = [entry].into_iter().collect();
            Ok(Membership::new(
                me.clone(),
                at.identity,
                cluster,
                key,
                roster,
            ))
        })
    }

    async fn join(
        &self,
        password: &Password,
        me: &NodeInfo,
        seed: Seed,
        replace: bool,
    ) -> Result<Membership> {
        let named = |error: Error| error.operation("join").backend(BACKEND);
        let _busy = self.seat.busy();
        tokio::time::sleep(self.round_trip(seed)?).await;
        let proven = self.prove(password, me, seed).map_err(named)?;
        let roster = proven
            .gatekeeper
            .admit(proven.applicant, replace)
            .await
            .map_err(named)?;
        self.seat
            .enter(|state, host| {
                dial(state, host, seed)?;
                if me.role.admits() {
                    state.hosts[host].password = Some(password.clone());
                }
                Ok(())
            })
            .map_err(named)?;
        let Membership {
            cluster,
            key,
            credential,
            ..
        } = proven.membership;
        let credential = credential.filter(|_| me.role.admits());
        Ok(
            Membership::new(me.clone(), proven.identity, cluster, key, roster)
                .with_credential(credential),
        )
    }

    async fn credential(&self, password: &Password) -> Result<Credential> {
        Credential::from_bytes(password.expose().as_bytes().to_vec())
    }

    async fn serve(&self, membership: &Membership, gatekeeper: Arc<dyn Gatekeeper>) -> Result<()> {
        let changed = membership.credential.as_ref().map(spell).transpose()?;
        self.seat.enter(|state, host| {
            if changed.is_some() {
                state.hosts[host].password = changed;
            }
            state.hosts[host].admission = Some(AdmissionProcess {
                membership: membership.clone(),
                gatekeeper,
            });
            state.activity += 1;
            Ok(())
        })
    }

    async fn stop(&self) -> Result<()> {
        self.seat.enter(|state, host| {
            state.hosts[host].admission = None;
            Ok(())
        })
    }
}

/// The disk of one host of a [`World`](super::World): what is saved outlives agent and power.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    seat: Seat,
}

impl MemoryStore {
    pub(super) const fn new(seat: Seat) -> Self {
        Self { seat }
    }

    /// What was saved last.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the process that this handle belongs to has ended.
    pub fn load(&self) -> Result<Option<Membership>> {
        self.seat
            .enter(|state, host| Ok(state.hosts[host].stored.clone()))
    }
}

#[async_trait]
impl MembershipStore for MemoryStore {
    async fn save(&self, membership: &Membership) -> Result<()> {
        let _busy = self.seat.busy();
        // A disk takes its time: what is dropped before that is not saved.
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
        self.seat.enter(|state, host| {
            if state.hosts[host].stored.as_ref() != Some(membership) {
                state.hosts[host].stored = Some(membership.clone());
                state.activity += 1;
            }
            Ok(())
        })
    }

    async fn clear(&self) -> Result<()> {
        self.seat.enter(|state, host| {
            state.hosts[host].stored = None;
            Ok(())
        })
    }
}
