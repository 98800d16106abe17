//! [`Admission`] over TCP on the underlay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arpanet_core::admission::{
    Admission, ClusterKey, Credential, Gatekeeper, Membership, NodeInfo, Password, Secret, Seed,
};
use arpanet_core::roster::{ClusterId, Roster, RosterEntry};
use arpanet_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{self, Asking};
use crate::error::{self, BACKEND};
use crate::identity::random;
use crate::limit::GuessLimiter;
use crate::seed::{Hall, Post, lock};
use crate::{JoinConfig, NodeIdentity, Verifier, verifier};

/// What a node sends is at least this long, in bytes: sealed gossip, or a handshake.
const SMALLEST: usize = 32;

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

    /// The password's hash: there after `found`, and after `join` as a server; another one once it serves with a membership
    /// whose password was changed.
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

    /// What a node asks a seed for, unless told: its address, while it is free.
    fn asking<'a>(&'a self, password: &'a Password, me: &'a NodeInfo, seed: Seed) -> Asking<'a> {
        Asking {
            password,
            me,
            identity: &self.identity,
            udp_port: self.udp_port(),
            replace: false,
            withdraw: false,
            seed,
        }
    }

    fn udp_port(&self) -> u16 {
        self.config.udp_port.unwrap_or(self.config.listen.port())
    }

    /// Listens whether others take this host for a node of theirs: they go on sending to one that has lost its state.
    async fn stay_quiet(&self) -> Result<()> {
        let limit = self.config.listen_before_founding;
        if limit.is_zero() {
            return Ok(());
        }
        let at = SocketAddr::new(self.config.listen.ip(), self.udp_port());
        let Ok(socket) = UdpSocket::bind(at).await else {
            // Whoever launches the tunnel says who has the port.
            return Ok(());
        };
        let mut datagram = [0; SMALLEST];
        let heard = async {
            loop {
                match socket.recv_from(&mut datagram).await {
                    // What is shorter is no word of a node.
                    Ok((SMALLEST, from)) => return from,
                    Ok(_) => {}
                    // An answer to nothing that was sent: there is no more to hear.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        match timeout(limit, heard).await {
            Ok(from) => Err(error::living_cluster(from)),
            Err(_) => Ok(()),
        }
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
        let hash = verifier::hash(password, self.config.kdf, None);
        let (verifier, quiet) = tokio::join!(hash, self.stay_quiet());
        quiet?;
        let verifier = verifier?;
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
            replace,
            ..self.asking(password, me, seed)
        };
        let given = client::join(&self.config, &asking).await?;
        // What the seed may not know itself: by this address it has just been reached.
        let mut roster = given.roster;
        roster.locate(seed.node, seed.endpoint);
        // With a password that was changed it has to be told from the one before.
        let credential = (me.role.admits() && given.key.password != 0)
            .then(|| given.verifier.to_credential())
            .transpose()?;
        *lock(&self.verifier) = me.role.admits().then_some(given.verifier);
        Ok(Membership::new(
            me.clone(),
            self.identity.public(),
            given.cluster,
            given.key,
            roster,
        )
        .with_credential(credential))
    }

    async fn withdraw(&self, password: &Password, me: &NodeInfo, seed: Seed) -> Result<bool> {
        let asking = Asking {
            withdraw: true,
            ..self.asking(password, me, seed)
        };
        client::withdraw(&self.config, &asking).await
    }

    async fn credential(&self, password: &Password) -> Result<Credential> {
        verifier::hash(password, self.config.kdf, None)
            .await?
            .to_credential()
    }

    async fn serve(&self, membership: &Membership, gatekeeper: Arc<dyn Gatekeeper>) -> Result<()> {
        if let Some(credential) = &membership.credential {
            *lock(&self.verifier) = Some(Verifier::from_credential(credential)?);
        }
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
