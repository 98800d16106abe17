//! Getting into a cluster: what a node proves, and what it is given.
//!
//! The same for every stack. `arpanet-join` does it over TCP on the underlay; the simulated world does it in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cluster::Deed;
use crate::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use crate::{AppAddr, AppNet, NodeAddr, NodeName, Result};

/// Bytes that never show in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret<const N: usize>(#[serde(with = "secret_bytes")] [u8; N]);

impl<const N: usize> Secret<N> {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves: never to be logged or shown.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

mod secret_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        Vec::<u8>::deserialize(deserializer)?
            .try_into()
            .map_err(|bytes: Vec<u8>| {
                de::Error::invalid_length(bytes.len(), &"a secret of another length")
            })
    }
}

/// The human's password: shown nowhere, wiped when dropped.
#[derive(Clone)]
pub struct Password(Box<str>);

impl Password {
    /// A password of 1 to 1,024 bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty or a longer one.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self> {
        let text = text.into();
        if (1..=1024).contains(&text.len()) {
            return Ok(Self(text));
        }
        Err(crate::Error::new(crate::ErrorKind::InvalidInput, "a password has 1 to 1,024 bytes")
            .with_hint("give it as an argument, as - on standard input, in ARPANET2_PASSWORD or with --password-file"))
    }

    /// The password itself: never to be logged or shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_boxed_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(secret)")
    }
}

/// What an admitting node checks a password by, as its admission layer writes it: opaque to all others. As good as the
/// password to whoever has it, so only nodes that admit others hold it. Never shows in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credential(Vec<u8>);

impl Credential {
    /// The most bytes that it has.
    pub const MAX: usize = 512;

    /// From its bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for none, and for more than [`MAX`](Self::MAX).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        if (1..=Self::MAX).contains(&bytes.len()) {
            return Ok(Self(bytes));
        }
        Err(crate::Error::new(
            crate::ErrorKind::InvalidInput,
            format!("a credential has 1 to {} bytes", Self::MAX),
        ))
    }

    /// The bytes themselves: never to be logged or shown.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(secret)")
    }
}

/// The cluster's random key with its id. Gossip, consul's encryption and weave's password are derived from it, never
/// from the human's password.
///
/// Keys turn over; of two, the one with the higher [`rank`](Self::rank) stands, on every node alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterKey {
    /// Which key this is. Not secret.
    pub id: u32,
    /// The key.
    pub key: Secret<32>,
    /// Which departures of the [roster](Roster::departures) its maker knew: whoever left later may still have it.
    #[serde(default)]
    pub covers: u64,
    /// The id of the key that came with the present password; 0 for the one that the cluster was founded with.
    #[serde(default)]
    pub password: u32,
}

impl ClusterKey {
    /// A key with its id, made when nobody had left and with the first password.
    #[must_use]
    pub const fn new(id: u32, key: Secret<32>) -> Self {
        Self {
            id,
            key,
            covers: 0,
            password: 0,
        }
    }

    /// Made when these departures were known.
    #[must_use]
    pub const fn covering(mut self, departures: u64) -> Self {
        self.covers = departures;
        self
    }

    /// With the password that came with the key of this id.
    #[must_use]
    pub const fn with_password(mut self, id: u32) -> Self {
        self.password = id;
        self
    }

    /// What decides between two keys: who has left counts first, so that no key stands that somebody made who had not
    /// heard of a departure.
    #[must_use]
    pub const fn rank(&self) -> (u64, u32) {
        (self.covers, self.id)
    }
}

/// The keys that a cluster stands on: its key, and what passwords are checked by since the last change of the password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keys {
    /// The cluster's key.
    pub key: ClusterKey,
    /// What a changed password is checked by; none before the first change, and none on nodes that admit nobody.
    pub credential: Option<Credential>,
}

impl Keys {
    /// A key with what passwords are checked by.
    #[must_use]
    pub const fn new(key: ClusterKey, credential: Option<Credential>) -> Self {
        Self { key, credential }
    }
}

/// What a node is, wherever it boots or joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its address.
    pub node: NodeAddr,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Where others reach it on the underlay, where it says so itself (`--advertise`).
    pub advertise: Option<SocketAddr>,
}

impl NodeInfo {
    /// A node without an advertised endpoint.
    #[must_use]
    pub const fn new(node: NodeAddr, name: NodeName, role: Role) -> Self {
        Self {
            node,
            name,
            role,
            advertise: None,
        }
    }

    /// Reached by others at this endpoint.
    #[must_use]
    pub const fn advertise(mut self, endpoint: Option<SocketAddr>) -> Self {
        self.advertise = endpoint;
        self
    }
}

/// The seed that a joining node dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Seed {
    /// Its node address.
    pub node: NodeAddr,
    /// Its endpoint on the underlay.
    pub endpoint: SocketAddr,
}

impl Seed {
    /// The seed `node` at this endpoint.
    #[must_use]
    pub const fn new(node: NodeAddr, endpoint: SocketAddr) -> Self {
        Self { node, endpoint }
    }
}

/// What a node holds of the cluster's addresses, kept with its membership: it must not forget it, also when nobody is there to
/// remind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Holdings {
    /// Addresses that are held before a container has them, with the age of each claim.
    pub reserved: BTreeMap<AppAddr, u64>,
    /// Addresses of this host's containers, also of those that ended and may start again.
    pub kept: BTreeSet<AppAddr>,
    /// Ranges that are this node's, and those that it gave away, by network.
    pub ranges: BTreeMap<AppNet, Vec<Deed>>,
}

/// What admission yields: all that a node needs to take part, and to come back without a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Membership {
    /// The node itself.
    pub me: NodeInfo,
    /// Its long-lived public key.
    pub identity: Identity,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its key.
    pub key: ClusterKey,
    /// Everybody in it.
    pub roster: Roster,
    /// What the node holds; nothing for a new one.
    #[serde(default)]
    pub holdings: Holdings,
    /// What the password is checked by since it was changed, on nodes that admit others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
}

impl Membership {
    /// All parts of a membership.
    #[must_use]
    pub fn new(
        me: NodeInfo,
        identity: Identity,
        cluster: ClusterId,
        key: ClusterKey,
        roster: Roster,
    ) -> Self {
        Self {
            me,
            identity,
            cluster,
            key,
            roster,
            holdings: Holdings::default(),
            credential: None,
        }
    }

    /// With a password that was changed since the cluster was founded.
    #[must_use]
    pub fn with_credential(mut self, credential: Option<Credential>) -> Self {
        self.credential = credential;
        self
    }

    /// The keys that it comes with.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys::new(self.key.clone(), self.credential.clone())
    }
}

/// Decides whether a node that has proved the password may have what it asks for. The cluster implements it; the
/// admitting backend asks it.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Gatekeeper: fmt::Debug + Send + Sync + 'static {
    /// Takes the applicant into the roster, after every living member has agreed, and returns the roster with it.
    ///
    /// The same identity asking again for the same address is admitted again.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) names who has the address or the name;
    /// [`Conflict`](crate::ErrorKind::Conflict) when another seed admitted somebody else meanwhile;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) on a node that admits nobody.
    async fn admit(&self, applicant: RosterEntry, replace: bool) -> Result<Roster>;

    /// Takes the admission of a node back that could not come up, and says whether anything of it has been heard over
    /// discovery. A second call, or one for somebody else's address, takes nothing back.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where admissions stay.
    async fn withdraw(&self, node: NodeAddr, identity: Identity) -> Result<bool> {
        let _ = (node, identity);
        Err(crate::Error::unsupported("this gatekeeper", "withdraw"))
    }
}

/// Founding a cluster, joining one, and admitting others: what `arpanet-join` promises.
///
/// Every call is idempotent as its text says, and dropping a call's future leaves nothing behind but perhaps an
/// admission at the seed, which the same call finds again.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Admission: fmt::Debug + Send + Sync + 'static {
    /// Makes a new cluster: random id and key, a roster of this node alone. Each call makes another one.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when the system gives no randomness.
    async fn found(&self, password: &Password, me: &NodeInfo) -> Result<Membership>;

    /// Proves the password to the seed and asks for the address. A second call by the same identity is admitted again.
    ///
    /// # Errors
    /// [`Unauthenticated`](crate::ErrorKind::Unauthenticated) for a wrong password;
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the address or the name is taken;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when the seed is a client;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) for another protocol;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Timeout`](crate::ErrorKind::Timeout), within 10 s, when
    /// nothing answers there.
    async fn join(
        &self,
        password: &Password,
        me: &NodeInfo,
        seed: Seed,
        replace: bool,
    ) -> Result<Membership>;

    /// Gives back an admission by this seed that could not be used, and asks whether the seed has heard anything of this
    /// node over discovery: so a way that is closed can be told from an answer that is lost. A second call gives nothing
    /// back.
    ///
    /// # Errors
    /// As [`join`](Self::join); [`Unsupported`](crate::ErrorKind::Unsupported) where admissions stay.
    async fn withdraw(&self, password: &Password, me: &NodeInfo, seed: Seed) -> Result<bool> {
        let _ = (password, me, seed);
        Err(crate::Error::unsupported("this admission", "withdraw"))
    }

    /// What a new password will be checked by, for [`Discovery::turn_over`](crate::Discovery::turn_over). Nothing is
    /// changed by it; each call makes another one.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where passwords stay.
    async fn credential(&self, password: &Password) -> Result<Credential> {
        let _ = password;
        Err(crate::Error::unsupported(
            "this admission",
            "change the password",
        ))
    }

    /// Admits others from now on, where this node's role does; on a client it answers applicants that it does not.
    /// A second call replaces the gatekeeper and the membership: whoever is admitted then gets its key, and passwords are
    /// checked by its credential.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the port can't be had, naming who holds it.
    async fn serve(
        &self,
        membership: &Membership,
        gatekeeper: std::sync::Arc<dyn Gatekeeper>,
    ) -> Result<()>;

    /// Stops admitting. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn stop(&self) -> Result<()>;
}

/// Where a node keeps its membership between starts. Core touches no files: the embedder decides where.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait MembershipStore: fmt::Debug + Send + Sync + 'static {
    /// Keeps this membership instead of the one before, durably: when it returns, a power loss can't take it.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) on a full disk, and then the one before is still there.
    async fn save(&self, membership: &Membership) -> Result<()>;

    /// Forgets it. A second call does nothing.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when the system refuses.
    async fn clear(&self) -> Result<()>;
}

/// Keeps nothing: for tests, and for nodes that shall not come back without a password.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStore;

#[async_trait]
impl MembershipStore for NoStore {
    async fn save(&self, _: &Membership) -> Result<()> {
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }
}
