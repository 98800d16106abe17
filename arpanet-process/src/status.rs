//! What a container is doing, as its shim knows and writes it.

use std::path::PathBuf;

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::ContainerState;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// The exit code of a container that was killed.
pub(crate) const KILLED: i32 = 128 + 9;

/// The status of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Status {
    /// Grows with each change, over all shims of the container.
    pub(crate) sequence: u64,
    /// What it is doing.
    pub(crate) state: ContainerState,
    /// The first process in its namespaces, while they are there.
    pub(crate) init: Option<Identity>,
}

impl Status {
    /// Made, with nothing of it there yet.
    pub(crate) const fn new() -> Self {
        Self {
            sequence: 0,
            state: ContainerState::Created,
            init: None,
        }
    }

    /// The next status.
    #[must_use]
    pub(crate) fn next(&self, state: ContainerState, init: Option<Identity>) -> Self {
        Self {
            sequence: self.sequence + 1,
            state,
            init,
        }
    }

    /// Where nobody looks after it any more: what ran was killed, what waited to run still can.
    #[must_use]
    pub(crate) fn orphaned(&self) -> Self {
        let state = match self.state {
            ContainerState::Running => ContainerState::Exited { code: KILLED },
            state => state,
        };
        self.next(state, None)
    }

    /// The exit code, once it has ended.
    pub(crate) const fn exited(&self) -> Option<i32> {
        match self.state {
            ContainerState::Exited { code } => Some(code),
            _ => None,
        }
    }

    pub(crate) fn namespace(&self) -> Option<NetNamespace> {
        let init = self.init.as_ref()?;
        Some(NetNamespace::Path(PathBuf::from(format!(
            "/proc/{}/ns/net",
            init.pid
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_shim_what_ran_was_killed_and_what_waited_still_waits() {
        let running = Status::new().next(ContainerState::Running, Identity::own());
        assert!(running.namespace().is_some());
        let orphaned = running.orphaned();
        assert_eq!(orphaned.exited(), Some(KILLED));
        assert_eq!(orphaned.namespace(), None);
        assert!(orphaned.sequence > running.sequence);
        assert_eq!(Status::new().orphaned().state, ContainerState::Created);
        let ended = Status::new().next(ContainerState::Exited { code: 3 }, None);
        assert_eq!(ended.orphaned().exited(), Some(3));
    }
}
