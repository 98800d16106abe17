//! Dialling others, again and again, as weave does: each for as long as the system tries.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::mesh::{Mesh, State};

/// Between two attempts. Weave waits longer each time.
const RETRY: Duration = Duration::from_millis(400);

/// A router to be connected with, and how that goes.
#[derive(Debug)]
pub(super) struct Attempt {
    /// As it was told.
    pub(super) given: String,
    pub(super) at_once: bool,
    /// Connected, with this name; empty where the other connected first.
    with: Option<String>,
    fault: Option<String>,
    is_dialling: bool,
}

impl Attempt {
    pub(super) const fn new(given: String) -> Self {
        Self {
            given,
            at_once: false,
            with: None,
            fault: None,
            is_dialling: true,
        }
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.with.is_some()
    }

    fn is_final(&self) -> bool {
        let is_name = |fault: &String| fault.contains("collision") || fault.contains("ourself");
        self.fault.as_ref().is_some_and(is_name)
    }

    pub(super) fn report(&self, target: SocketAddr) -> Value {
        let (state, info) = match (&self.fault, self.is_dialling) {
            (None, _) => ("connecting", String::new()),
            (Some(fault), true) => ("retrying", fault.clone()),
            (Some(fault), false) if self.is_final() => ("failed", format!("{fault}, retry: never")),
            (Some(fault), false) => {
                let when = "2026-11-24 11:21:29.487975684 +0000 UTC m=+1.826534811";
                ("failed", format!("{fault}, retry: {when}"))
            }
        };
        json!({"Address": target.to_string(), "Outbound": true, "State": state, "Info": info, "Attrs": null})
    }
}

/// Whether a connection by which the target was settled is there.
fn is_connected(state: &State, attempt: &Attempt, target: SocketAddr) -> bool {
    match attempt.with.as_deref() {
        None => false,
        Some("") => state
            .connections
            .values()
            .any(|other| other.is_at(target.ip())),
        Some(name) => state.connections.contains_key(name),
    }
}

/// Keeps a target connected until it is one no more.
pub(super) fn dial(mesh: &Arc<Mesh>, target: SocketAddr) {
    loop {
        let outcome = TcpStream::connect(target)
            .map_err(|error| {
                let why = error.to_string().to_lowercase();
                let why = why.split(" (os error").next().unwrap_or_default();
                format!("dial tcp 0.0.0.0:0->{target}: connect: {why}")
            })
            .and_then(|stream| mesh.greet(stream));
        let mut state = mesh.state();
        let Some(attempt) = state.targets.get_mut(&target) else {
            return;
        };
        attempt.is_dialling = false;
        match outcome {
            Ok(name) => {
                attempt.with = Some(name);
                attempt.fault = None;
            }
            Err(fault) => attempt.fault = Some(fault),
        }
        let failed = attempt.fault.is_some();
        if failed {
            state.terminated += 1;
        }
        let retry = Instant::now() + RETRY;
        loop {
            let Some(attempt) = state.targets.get(&target) else {
                return;
            };
            let is_due = attempt.at_once || (!attempt.is_final() && Instant::now() >= retry);
            if is_due && !is_connected(&state, attempt, target) {
                break;
            }
            let waited = mesh.news.wait_timeout(state, RETRY / 4);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(attempt) = state.targets.get_mut(&target) {
            attempt.at_once = false;
            attempt.with = None;
            attempt.is_dialling = true;
        }
    }
}
