//! What a node keeps between starts.

use arpanet_core::admission::{Membership, Secret};
use serde::{Deserialize, Serialize};

use crate::{JoinAdmission, NodeIdentity, Verifier};

/// All that a node needs to come back without a password. The embedder decides where it is kept; only root may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JoinState {
    /// The seed of the node's [`NodeIdentity`].
    pub identity: Secret<32>,
    /// The password's hash, on nodes that admit others.
    pub verifier: Option<Verifier>,
    /// What admission yielded, once the node is in a cluster.
    pub membership: Option<Membership>,
}

impl JoinState {
    /// A node that is in no cluster yet.
    #[must_use]
    pub fn new(identity: &NodeIdentity) -> Self {
        Self {
            identity: identity.secret(),
            verifier: None,
            membership: None,
        }
    }

    /// What this admission holds now, and this membership.
    #[must_use]
    pub fn of(admission: &JoinAdmission, membership: Option<Membership>) -> Self {
        Self {
            identity: admission.identity().secret(),
            verifier: admission.verifier(),
            membership,
        }
    }
}
