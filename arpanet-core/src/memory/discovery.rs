//! Discovery in the simulated world.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::catalogue::{DiscoveryProcess, Merge};
use super::network::HostIndex;
use super::spread::CONFIRMATION;
use super::state::{Seat, State};
use crate::admission::{Credential, Keys, Membership};
use crate::discovery::{
    Discovery, DiscoveryCapabilities, Instance, Member, MemberState, Record, RecordKey, Selector,
    ServiceSummary, Spread, summarize,
};
use crate::roster::{Roster, RosterEntry};
use crate::watch::Watch;
use crate::{Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName};

const BACKEND: &str = "memory";

/// The longest value of a record.
const VALUE_LIMIT: usize = 16 * 1024;

/// The longest key of a record.
const KEY_LIMIT: usize = 128;

/// [`Discovery`] of one host of a [`World`](super::World).
///
/// Words reach every node that there is any way to, after the delay of the link. A node that is out of reach is suspect
/// after 0.5 s and down after 1.5 s.
#[derive(Debug, Clone)]
pub struct MemoryDiscovery {
    seat: Seat,
    capabilities: DiscoveryCapabilities,
}

impl MemoryDiscovery {
    pub(super) const fn new(seat: Seat) -> Self {
        Self {
            seat,
            capabilities: DiscoveryCapabilities::all().with_turning_keys(),
        }
    }

    /// The same, with less that it can do.
    #[must_use]
    pub const fn with_capabilities(mut self, capabilities: DiscoveryCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Acts on the running process, whether or not it has lost its place.
    fn running<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut DiscoveryProcess, Instant) -> Result<R>,
    ) -> Result<R> {
        self.seat
            .enter(|state, host| {
                let now = Instant::now();
                act(process(state, host)?, now)
            })
            .map_err(|error| error.operation(operation).backend(BACKEND))
    }

    fn read<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut DiscoveryProcess, Instant) -> R,
    ) -> Result<R> {
        self.running(operation, |process, now| {
            process.check()?;
            Ok(act(process, now))
        })
    }

    /// Changes this node's word and sends it out; what to wait for.
    fn say(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut super::catalogue::OwnerState) -> bool,
    ) -> Result<Option<(Instant, u64)>> {
        self.seat
            .enter(|state, host| {
                process(state, host)?.check()?;
                state.faltering(|state| {
                    let now = Instant::now();
                    let Some(word) = process(state, host)?.say(now, act) else {
                        return Ok(None);
                    };
                    let confirmed = state.broadcast(host, &word, now);
                    Ok(Some((confirmed, word.version)))
                })
            })
            .map_err(|error| error.operation(operation).backend(BACKEND))
    }

    /// Waits until those who are thought alive have confirmed a word, but not for ever.
    async fn confirm(&self, said: Option<(Instant, u64)>) -> Result<Spread> {
        let Some((confirmed, version)) = said else {
            return Ok(Spread::default());
        };
        let _busy = self.seat.busy();
        let limit = Instant::now() + CONFIRMATION;
        tokio::time::sleep_until(confirmed.min(limit)).await;
        let missing = self
            .seat
            .enter(|state, host| unconfirmed(state, host, version))?;
        if missing.is_empty() {
            return Ok(Spread::default());
        }
        tokio::time::sleep_until(limit).await;
        self.seat
            .enter(|state, host| unconfirmed(state, host, version))
            .map(Spread::unconfirmed_by)
    }
}

fn unconfirmed(state: &State, host: HostIndex, version: u64) -> Result<BTreeSet<NodeAddr>> {
    let now = Instant::now();
    let process = state.discovery(host).ok_or_else(not_running)?;
    let boot = process.own().boot;
    Ok(process
        .living(now)
        .filter(|(other, _)| {
            let heard = state
                .discovery(*other)
                .and_then(|other| other.views.get(&host))
                .is_some_and(|view| (view.state.boot, view.state.version) >= (boot, version));
            !heard
        })
        .map(|(_, node)| node)
        .collect())
}

pub(super) fn process(state: &mut State, host: HostIndex) -> Result<&mut DiscoveryProcess> {
    state.hosts[host].discovery.as_mut().ok_or_else(not_running)
}

pub(super) fn not_running() -> Error {
    let message = "discovery does not run on this node";
    Error::new(ErrorKind::Unavailable, message)
}

fn check_key(key: &str) -> Result<()> {
    let valid = (1..=KEY_LIMIT).contains(&key.len())
        && key.split('/').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        });
    if valid {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{key:?} can't be the key of a record"),
    )
    .with_hint("a key is a path of names and addresses with /, at most 128 bytes"))
}

#[async_trait]
impl Discovery for MemoryDiscovery {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        self.capabilities
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        let _busy = self.seat.busy();
        let met = self.seat.enter(|state, host| {
            let now = Instant::now();
            if let Some(process) = &state.hosts[host].discovery
                && process.membership.identity == membership.identity
                && process.membership.cluster == membership.cluster
                && !process.own().left
            {
                return Ok(now);
            }
            let detection = state.detection;
            let at = &mut state.hosts[host];
            at.boots += 1;
            at.discovery = Some(DiscoveryProcess::new(
                (host, at.endpoint),
                membership,
                at.boots,
                detection,
            ));
            Ok(state.appear(host, now))
        })?;
        tokio::time::sleep_until(met).await;
        self.seat
            .enter(|state, host| {
                let refused = process(state, host)?.check();
                if refused.is_err() {
                    state.hosts[host].discovery = None;
                    state.reassess(Instant::now());
                }
                refused
            })
            .map_err(|error| error.operation("start discovery").backend(BACKEND))
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.read("register", |process, _| process.membership.me.node)
            .and_then(|me| {
                if instance.node == me {
                    return Ok(());
                }
                let message = format!(
                    "{} runs on {}, and {me} can register its own only",
                    instance.id, instance.node
                );
                Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND))
            })?;
        let said = self.say("register", |own| {
            if own.instances.get(&instance.id) == Some(&instance) {
                return false;
            }
            own.instances.insert(instance.id.clone(), instance);
            true
        })?;
        self.confirm(said).await
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        let said = self.say("deregister", |own| own.instances.remove(id).is_some())?;
        self.confirm(said).await.map(drop)
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        self.read("lookup", |process, now| {
            process
                .passing(now, |instance| instance.service == *service)
                .into_values()
                .collect()
        })
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        self.read("list services", |process, now| {
            summarize(process.all_instances(now).values())
        })
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.read("list members", |process, now| {
            process.all_members(now).into_values().collect()
        })
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        self.read("watch", |process, now| {
            process
                .instance_hub(now)
                .watch_where(move |_, instance| selector.matches(instance))
        })
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.read("watch members", |process, now| {
            process.member_hub(now).watch()
        })
    }

    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        if !self.capabilities.records {
            return Err(Error::unsupported(BACKEND, "publish records"));
        }
        check_key(key)?;
        if value.len() > VALUE_LIMIT {
            let message = format!("the record {key} has {} bytes, over 16 KiB", value.len());
            return Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND));
        }
        let said = self.say("publish", |own| {
            own.records.insert(key.to_owned(), value.clone()) != Some(value)
        })?;
        self.confirm(said).await
    }

    async fn retract(&self, key: &str) -> Result<()> {
        if !self.capabilities.records {
            return Err(Error::unsupported(BACKEND, "retract records"));
        }
        let said = self.say("retract", |own| own.records.remove(key).is_some())?;
        self.confirm(said).await.map(drop)
    }

    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        if !self.capabilities.records {
            return Err(Error::unsupported(BACKEND, "watch records"));
        }
        let prefix = prefix.to_owned();
        self.read("watch records", |process, now| {
            process
                .record_hub(now)
                .watch_where(move |(_, key), _| key.starts_with(&prefix))
        })
    }

    async fn admit(&self, entry: RosterEntry) -> Result<()> {
        if !self.capabilities.admits {
            return Err(Error::unsupported(BACKEND, "admit nodes"));
        }
        let _busy = self.seat.busy();
        super::election::admit(&self.seat, entry)
            .await
            .map_err(|error| error.operation("admit").backend(BACKEND))
    }

    async fn roster(&self) -> Result<Roster> {
        self.running("tell the roster", |process, _| {
            Ok(Roster::clone(&process.roster))
        })
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let turns_keys = self.capabilities.turns_keys;
        let confirmed = self
            .seat
            .enter(|state, host| {
                let now = Instant::now();
                let process = process(state, host)?;
                let Some(entry) = process.roster.entry(node) else {
                    let message = format!("there never was a node {node}");
                    return Err(Error::new(ErrorKind::NotFound, message));
                };
                if entry.forgotten {
                    return Ok(now);
                }
                let member = process.all_members(now).remove(&node);
                let alive = member.is_some_and(|member| member.state != MemberState::Down);
                let me = process.membership.me.node;
                if alive && node != me {
                    let message = format!("{node} is alive");
                    return Err(Error::new(ErrorKind::Conflict, message)
                        .with_hint("stop it there, or wait until it is down"));
                }
                let mut roster = Roster::clone(&process.roster);
                roster.forget(node);
                if process.merge(&std::sync::Arc::new(roster), now) == Merge::Nothing {
                    return Ok(now);
                }
                let told = state.broadcast_roster(host, now);
                if node != me && turns_keys {
                    // Its machine has the key.
                    return Ok(told.max(state.turn_over(host, None, now)?));
                }
                Ok(told)
            })
            .map_err(|error| error.operation("forget").backend(BACKEND))?;
        let _busy = self.seat.busy();
        tokio::time::sleep_until(confirmed).await;
        Ok(())
    }

    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        if !self.capabilities.turns_keys {
            return Err(Error::unsupported(BACKEND, "turn the cluster's key over"));
        }
        let confirmed = self
            .seat
            .enter(|state, host| state.turn_over(host, credential, Instant::now()))
            .map_err(|error| error.operation("turn the key over").backend(BACKEND))?;
        let _busy = self.seat.busy();
        tokio::time::sleep_until(confirmed).await;
        self.seat.enter(|state, host| {
            let process = process(state, host)?;
            let rank = process.keys.borrow().key.rank();
            let living: Vec<_> = process.living(Instant::now()).collect();
            let lacks = |other: HostIndex| {
                let other = state.discovery(other);
                other.is_none_or(|other| other.keys.borrow().key.rank() < rank)
            };
            let lacking = living.into_iter().filter(|(other, _)| lacks(*other));
            Ok(Spread::unconfirmed_by(
                lacking.map(|(_, node)| node).collect(),
            ))
        })
    }

    async fn watch_keys(&self) -> Result<tokio::sync::watch::Receiver<Keys>> {
        if !self.capabilities.turns_keys {
            return Err(Error::unsupported(BACKEND, "tell the cluster's key"));
        }
        self.running("tell the key", |process, _| Ok(process.keys.subscribe()))
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        let _busy = self.seat.busy();
        let told = self.seat.enter(|state, host| {
            let now = Instant::now();
            let Some(process) = state.hosts[host].discovery.as_mut() else {
                return Ok(None);
            };
            let word = process.say(now, |own| {
                own.instances.clear();
                own.records.clear();
                !std::mem::replace(&mut own.left, true)
            });
            Ok(Some(match word {
                Some(word) => state.broadcast(host, &word, now),
                None => now,
            }))
        })?;
        let Some(told) = told else { return Ok(()) };
        tokio::time::sleep_until(told.min(Instant::now() + limit)).await;
        self.stop().await
    }

    async fn stop(&self) -> Result<()> {
        self.seat.enter(|state, host| {
            if state.hosts[host].discovery.take().is_some() {
                state.reassess(Instant::now());
            }
            Ok(())
        })
    }
}
