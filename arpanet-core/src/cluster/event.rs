//! What a node tells its operator.

use serde::{Deserialize, Serialize};

use crate::discovery::MemberState;
use crate::health::ContainerHealth;
use crate::{AppAddr, ContainerName, NodeAddr};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClusterEvent {
    /// The node is coming up, and does this now.
    Step {
        /// What, for a user to read.
        what: String,
    },
    /// A member's state changed.
    Member {
        /// Which node.
        node: NodeAddr,
        /// Its state now.
        state: MemberState,
    },
    /// A container of this node lost its address to an older claim and was detached.
    AddressLost {
        /// The container.
        container: ContainerName,
        /// The address it had.
        addr: AppAddr,
        /// The node that keeps it.
        to: NodeAddr,
    },
    /// A container of this node passes from now on, or does not any more: what it provides comes into lookups, or leaves
    /// them.
    Health {
        /// The container.
        container: ContainerName,
        /// How it is now, and why.
        health: ContainerHealth,
    },
    /// Something could not be brought about; it is tried again.
    Trouble {
        /// What, in a sentence.
        what: String,
    },
}
