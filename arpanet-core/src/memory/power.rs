//! What a test does to hosts: taking their power, killing their agents, installing them anew.

use tokio::time::Instant;

use super::network::HostIndex;
use super::place::Place;
use super::prober::Ailment;
use super::state::State;
use super::world::World;
use crate::runtime::{Container, ContainerSpec, EngineHealth};
use crate::{ContainerName, Result};

impl World {
    /// The host is installed anew: an empty disk and another identity at the same endpoint. Handles of before are dead.
    pub fn reinstall(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            power_off(state, index, now);
            let host = &state.hosts[index];
            let (label, name, endpoint) = (host.label, host.name.clone(), host.endpoint);
            let anew = state.add_host(label, Some(endpoint));
            state.hosts[anew].name = name;
        });
    }

    /// Takes the power from a host: agent and containers are gone, the disk stays. A second call does nothing.
    pub fn kill(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| power_off(state, index, now));
    }

    /// Kills the agent alone, as `kill -9`: containers and what is attached stay.
    pub fn crash(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| end_process(state, index, now));
    }

    /// The host's container engine stops, and its containers live on, as docker's live-restore has it: what is asked of it
    /// is [`Unavailable`](crate::ErrorKind::Unavailable), and watches are stale. A second call does nothing.
    pub fn stop_engine(&self, place: impl Place) {
        self.set_engine_away(place, true);
    }

    /// The host's container engine is back, and tells what changed meanwhile. A second call does nothing.
    pub fn start_engine(&self, place: impl Place) {
        self.set_engine_away(place, false);
    }

    /// Which part of the calls of all engines and overlays fails, and of those by which nodes say something to discovery, 0 to
    /// 1: half of these at once, and of the others only the answer is lost. Both are [`Unavailable`](crate::ErrorKind::Unavailable).
    pub fn falter(&self, part: f64) {
        self.act(|state, _| state.faltering = part.clamp(0.0, 1.0));
    }

    fn set_engine_away(&self, place: impl Place, away: bool) {
        let index = place.host(self);
        self.act(|state, _| {
            let changed = state.hosts[index].engine.set_away(away);
            state.activity += u64::from(changed);
        });
    }

    /// Gives a host its power back; the agent is the test's to start. A second call does nothing.
    pub fn start(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            let clock = state.wall_clock(now);
            let host = &mut state.hosts[index];
            if !std::mem::replace(&mut host.powered, true) {
                host.engine.regain_power(index, &mut host.router, clock);
                state.activity += 1;
                state.tell_agreed();
            }
        });
    }

    /// Starts a container as another client of the host's engine does: the agent is not asked, and need not run.
    ///
    /// # Errors
    /// As [`Runtime::create`](crate::Runtime::create) and [`Runtime::start`](crate::Runtime::start).
    pub fn start_foreign(&self, place: impl Place, spec: &ContainerSpec) -> Result<Container> {
        self.start_foreign_with(place, spec, Vec::new())
    }

    /// The same, of a container whose labels can't all be read.
    ///
    /// # Errors
    /// As [`start_foreign`](World::start_foreign).
    pub fn start_foreign_with(
        &self,
        place: impl Place,
        spec: &ContainerSpec,
        problems: Vec<String>,
    ) -> Result<Container> {
        let index = place.host(self);
        self.act(|state, now| {
            let clock = state.wall_clock(now);
            let host = &mut state.hosts[index];
            let (made, _) = host.engine.create(index, &mut host.router, spec, clock)?;
            host.engine.get(&made.name)?.container.problems = problems;
            host.engine
                .start(index, &mut host.router, &made.name, clock)?;
            state.activity += 1;
            Ok(state.hosts[index].engine.get(&made.name)?.container.clone())
        })
    }

    /// Removes a container as another client of the host's engine does. A second call does nothing.
    pub fn remove_foreign(&self, place: impl Place, name: &ContainerName) {
        let index = place.host(self);
        self.act(|state, _| {
            let host = &mut state.hosts[index];
            if host.engine.remove(&mut host.router, name) {
                state.activity += 1;
            }
        });
    }

    /// A container has no namespace of its own from now on, as one that shares the host's.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that is not there.
    pub fn without_namespace(&self, place: impl Place, name: &ContainerName) -> Result<()> {
        let index = place.host(self);
        self.act(|state, _| {
            let host = &mut state.hosts[index];
            host.engine.share_namespace(&mut host.router, name)?;
            state.activity += 1;
            Ok(())
        })
    }

    /// The engine's own check of a container says this from now on.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that is not there.
    pub fn set_health(
        &self,
        place: impl Place,
        name: &ContainerName,
        health: Option<EngineHealth>,
    ) -> Result<()> {
        let index = place.host(self);
        self.act(|state, _| {
            state.hosts[index].engine.set_health(name, health)?;
            state.activity += 1;
            Ok(())
        })
    }

    /// A container answers its checks like this from now on; `None` is well again. It stays so when it is restarted.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that is not there.
    pub fn set_ailment(
        &self,
        place: impl Place,
        name: &ContainerName,
        ailment: Option<Ailment>,
    ) -> Result<()> {
        let index = place.host(self);
        self.act(|state, _| {
            state.hosts[index].engine.get(name)?.ailment = ailment;
            state.activity += 1;
            Ok(())
        })
    }

    /// A container ends by itself with this exit code, and is started again where its policy says so.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that is not there.
    pub fn end_container(&self, place: impl Place, name: &ContainerName, code: i32) -> Result<()> {
        let index = place.host(self);
        self.act(|state, now| {
            let clock = state.wall_clock(now);
            let host = &mut state.hosts[index];
            host.engine.get(name)?;
            if host.engine.end(&mut host.router, name, code) {
                state.activity += 1;
                let host = &mut state.hosts[index];
                host.engine
                    .restart_by_policy(index, &mut host.router, name, code, clock)?;
            }
            Ok(())
        })
    }
}

/// The agent's process ends, and all handles of it with it.
fn end_process(state: &mut State, index: HostIndex, now: Instant) {
    let host = &mut state.hosts[index];
    host.process += 1;
    host.admission = None;
    host.overlay = None;
    host.engine.disconnect();
    host.discovery = None;
    state.forget_watchers(index);
    state.reassess(now);
}

fn power_off(state: &mut State, index: HostIndex, now: Instant) {
    if !state.hosts[index].powered {
        return;
    }
    end_process(state, index, now);
    let host = &mut state.hosts[index];
    host.powered = false;
    host.router.lose_all();
    host.engine.lose_power();
    state.tell_agreed();
}
