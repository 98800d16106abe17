//! What the command that starts an agent tells it, on its standard input, and what the agent reports, on its standard
//! output. So no password is ever an argument of a process.

use std::net::SocketAddr;

use arpanet_core::roster::Role;
use arpanet_core::{NodeAddr, NodeName};
use serde::{Deserialize, Serialize};

use super::state::Settings;
use crate::failure::Failure;

/// How to come up. An empty standard input means [`Order::Resume`].
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// Found a cluster.
    Boot { me: Me, password: String },
    /// Join one.
    Join {
        me: Me,
        password: String,
        role: Role,
        seed: NodeAddr,
        endpoint: SocketAddr,
        replace: bool,
    },
    /// Come back as a member.
    Resume,
}

/// Who the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) node: NodeAddr,
    pub(crate) name: NodeName,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) settings: Settings,
}

/// One line each: steps, and then how it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Report {
    /// The node is coming up, and does this now.
    Step(String),
    /// The node can be used.
    Ready,
    /// It can't, and nothing was changed.
    Failed(Failure),
}
