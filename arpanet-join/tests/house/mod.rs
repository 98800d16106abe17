//! A seed with a gatekeeper of its own, on loopback.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod between;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arpanet_core::admission::{Admission, Gatekeeper, Membership, NodeInfo, Password, Seed};
use arpanet_core::roster::{Role, Roster, RosterEntry};
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_join::{JoinAdmission, JoinConfig, KdfParams, NodeIdentity};
use async_trait::async_trait;

pub const PASSWORD: &str = "Apples";

/// A roster and the simplest rule: the first has it.
#[derive(Debug)]
pub struct Book(pub Mutex<Roster>);

#[async_trait]
impl Gatekeeper for Book {
    async fn admit(&self, applicant: RosterEntry, replace: bool) -> Result<Roster> {
        let mut roster = self.0.lock().unwrap();
        let taken = |holder: &RosterEntry, what: String| {
            Error::new(
                ErrorKind::AlreadyExists,
                format!("{what} is taken by {}", holder.name),
            )
            .with_hint("choose another")
        };
        if let Some(holder) = roster.holder(applicant.node)
            && holder.identity != applicant.identity
            && !replace
        {
            return Err(taken(holder, applicant.node.to_string()));
        }
        if let Some(holder) = roster.by_name(&applicant.name)
            && holder.node != applicant.node
        {
            return Err(taken(holder, format!("the name {}", applicant.name)));
        }
        let mut applicant = applicant;
        if replace {
            applicant.generation = roster
                .entry(applicant.node)
                .map_or(1, |held| held.generation + 1);
        }
        roster.merge(applicant);
        Ok(roster.clone())
    }
}

pub fn password(text: &str) -> Password {
    Password::new(text).unwrap()
}

pub fn config() -> JoinConfig {
    JoinConfig::default()
        .listen("127.0.0.1:0".parse().unwrap())
        .udp_port(40000)
        .kdf(KdfParams::new(8 * 1024, 1, 1).unwrap())
}

pub fn admission() -> JoinAdmission {
    JoinAdmission::new(config(), NodeIdentity::generate().unwrap())
}

pub fn info(node: &str, name: &str, role: Role) -> NodeInfo {
    NodeInfo::new(node.parse().unwrap(), name.parse().unwrap(), role)
}

/// A booted node that admits.
pub struct House {
    pub boot: JoinAdmission,
    pub membership: Membership,
    pub book: Arc<Book>,
}

impl House {
    pub async fn new() -> Self {
        let boot = admission();
        let me = info("0.1", "one", Role::Boot);
        let membership = boot.found(&password(PASSWORD), &me).await.unwrap();
        let book = Arc::new(Book(Mutex::new(membership.roster.clone())));
        boot.serve(&membership, Arc::clone(&book) as _)
            .await
            .unwrap();
        Self {
            boot,
            membership,
            book,
        }
    }

    pub fn endpoint(&self) -> SocketAddr {
        self.boot.local_addr().unwrap()
    }

    pub fn seed(&self) -> Seed {
        Seed::new("0.1".parse().unwrap(), self.endpoint())
    }

    /// A new node asks with this password.
    pub async fn ask(&self, node: &str, name: &str, word: &str) -> Result<Membership> {
        let me = info(node, name, Role::Client);
        admission()
            .join(&password(word), &me, self.seed(), false)
            .await
    }
}
