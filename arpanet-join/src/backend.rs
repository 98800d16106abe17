//! [`Admission`] over TCP on the underlay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arpanet_core::admission::{
    Admission, ClusterKey, Gatekeeper, Membership, NodeInfo, Password, Secret, Seed,
};
use arpanet_core::roster::{ClusterId, Roster, RosterEntry};
use arpanet_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::{self, Asking};
use crate::error::BACKEND;
use crate::identity::random;
use crate::limit::GuessLimiter;
use crate::seed::{Hall, Post, lock};
use crate::{JoinConfig, NodeIdentity, Verifier, verifier};

/// Founds clusters, joins them and admits others, over TCP on the underlay.
///
/// One of these is one node. It holds the password's hash where the node admits others ([`verifier`](Self::verifier)),
/// and never the password.
#[derive(Debug)]
pub struct JoinAdmission {
    config: JoinConfig,
    identity: NodeIdentity,
    verifier: Mutex<Option<Verifier>>,
    limiter: Arc<Mutex<GuessLimiter>>,
    serving: Mutex<Option<Serving>>,
}

#[derive(Debug)]
struct Serving {
    hall: Arc<Hall>,
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl JoinAdmission {
    /// A node with this identity. Nothing is opened before [`serve`](Admission::serve).
    #[must_use]
    pub fn new(config: JoinConfig, identity: NodeIdentity) -> Self {
        Self {
            config,
            identity,
            verifier: Mutex::new(None),
            limiter: Arc::default(),
            serving: Mutex::new(None),
        }
    }

    /// With the hash from an earlier run, so that it admits others without being told the password again.
    #[must_use]
    pub fn with_verifier(self, verifier: Option<Verifier>) -> Self {
        *lock(&self.verifier) = verifier;
        self
    }

    /// The password's hash: there after `found`, and after `join` as a server.
    #[must_use]
    pub fn verifier(&self) -> Option<Verifier> {
        lock(&self.verifier).clone()
    }

    /// This node's identity.
    #[must_use]
    pub const fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// Where applicants are heard, while they are.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        lock(&self.serving).as_ref().map(|serving| serving.address)
    }

    fn udp_port(&self) -> u16 {
        self.config.udp_port.unwrap_or(self.config.listen.port())
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        let open = || {
            let listener = std::net::TcpListener::bind(self.config.listen)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        open().map_err(|source: std::io::Error| {
            let endpoint = self.config.listen;
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{} port {}/tcp can't be had",
                    endpoint.ip(),
                    endpoint.port()
                ),
            )
            .operation("serve")
            .backend(BACKEND)
            .with_hint(format!(
                "which process has it: ss -ltnp 'sport = :{}'",
                endpoint.port()
            ))
            .with_source(source)
        })
    }
}

#[async_trait]
impl Admission for JoinAdmission {
    async fn found(&self, password: &Password, me: &NodeInfo) -> Result<Membership> {
        let cluster = ClusterId::from_bytes(*random()?);
        let key = ClusterKey::new(1, Secret::from_bytes(*random()?));
        let verifier = verifier::hash(password, self.config.kdf, None).await?;
        let identity = self.identity.public();
        let entry =
            RosterEntry::new(me.node, me.name.clone(), me.role, identity, 0).at(me.advertise);
        let roster = Roster::from_iter([entry]);
        *lock(&self.verifier) = Some(verifier);
        Ok(Membership::new(me.clone(), identity, cluster, key, roster))
    }

    async fn join(
        &self,
        password: &Password,
        me: &NodeInfo,
        seed: Seed,
        replace: bool,
    ) -> Result<Membership> {
        if me.node == seed.node {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the seed {} is this node itself", seed.node),
            )
            .operation("join")
            .backend(BACKEND)
            .with_hint("name a node that is in the cluster already"));
        }
        let asking = Asking {
            password,
            me,
            identity: &self.identity,
            udp_port: self.udp_port(),
            replace,
            seed,
        };
        let given = client::join(&self.config, &asking).await?;
        // What the seed may not know itself: by this address it has just been reached.
        let mut roster = given.roster;
        roster.locate(seed.node, seed.endpoint);
        *lock(&self.verifier) = me.role.admits().then_some(given.verifier);
        Ok(Membership::new(
            me.clone(),
            self.identity.public(),
            given.cluster,
            given.key,
            roster,
        ))
    }

    async fn serve(&self, membership: &Membership, gatekeeper: Arc<dyn Gatekeeper>) -> Result<()> {
        let verifier = match (membership.me.role.admits(), self.verifier()) {
            (false, _) => None,
            (true, Some(verifier)) => Some(verifier),
            (true, None) => {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "this node shall admit others, but has lost the password's hash",
                )
                .operation("serve")
                .backend(BACKEND)
                .with_hint("join again with the password"));
            }
        };
        let post = Post {
            membership: membership.clone(),
            verifier,
            gatekeeper,
        };
        let mut serving = lock(&self.serving);
        if let Some(serving) = serving
            .as_ref()
            .filter(|serving| !serving.task.is_finished())
        {
            serving.hall.replace(post);
            return Ok(());
        }
        let (listener, address) = self.listen()?;
        let hall = Arc::new(Hall::new(
            self.identity.clone(),
            post,
            Arc::clone(&self.limiter),
        ));
        let task = tokio::spawn(Arc::clone(&hall).run(listener));
        *serving = Some(Serving {
            hall,
            task,
            address,
        });
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        let serving = lock(&self.serving).take();
        if let Some(mut serving) = serving {
            serving.task.abort();
            // The port is free once the task is gone.
            let _ = (&mut serving.task).await;
        }
        Ok(())
    }
}
