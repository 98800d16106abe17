//! The key-value layer: shared state that the whole cluster agrees on, with locks and leadership.
//!
//! Only backends with a consensus behind them have it. Gossip does not: it answers
//! [`Unsupported`](crate::ErrorKind::Unsupported).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::watch::Watch;
use crate::{Error, ErrorKind, Result};

/// The key of an entry: 1 to 512 bytes of printable ASCII without spaces, parts divided by `/`.
///
/// ```
/// use arpanet_core::kv::Key;
/// assert!("paas/apps/web".parse::<Key>().is_ok());
/// assert!("".parse::<Key>().is_err());
/// assert!("two words".parse::<Key>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let valid = (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{text:?} can't be a key: 1 to 512 printable characters without spaces"),
        ))
    }
}

/// A number that grows with every change of an entry, over its deletion too: what compare-and-swap compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its bytes, at most 512 KiB.
    pub value: Bytes,
    /// Which version this is.
    pub revision: Revision,
}

impl Entry {
    /// A value of this revision.
    #[must_use]
    pub const fn new(value: Bytes, revision: Revision) -> Self {
        Self { value, revision }
    }
}

/// A session: holds locks for as long as it is renewed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub String);

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// What is locked.
    pub key: Key,
    /// Who holds it.
    pub session: SessionId,
    /// Grows with every holder of this lock. A resource that refuses lower numbers than it has seen is safe from a holder
    /// that does not know yet that it lost the lock.
    pub fencing: u64,
}

impl Held {
    /// A lock that is held.
    #[must_use]
    pub const fn new(key: Key, session: SessionId, fencing: u64) -> Self {
        Self {
            key,
            session,
            fencing,
        }
    }
}

/// Shared state that the whole cluster agrees on.
///
/// The contract, for every backend:
/// - Every call is idempotent; what a second call does is said at each. Removing what is not there succeeds.
/// - Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.
/// - A read sees every write that had returned before it began, on whichever node.
/// - Without a majority of the cluster's servers every call answers [`Unavailable`](crate::ErrorKind::Unavailable).
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait KeyValue: fmt::Debug + Send + Sync + 'static {
    /// The backend's name: `consul`, `memory`.
    fn name(&self) -> &'static str;

    /// What is stored under this key.
    ///
    /// # Errors
    /// None of its own.
    async fn get(&self, key: &Key) -> Result<Option<Entry>>;

    /// Stores a value, whatever was there. A second call stores it again, under a higher revision.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a value over 512 KiB.
    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision>;

    /// Stores a value if the entry still has this revision; `None` stands for no entry.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it changed meanwhile, and then nothing is stored;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a value over 512 KiB.
    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Revision>;

    /// Deletes an entry. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// All keys that start with `prefix`, sorted.
    ///
    /// # Errors
    /// None of its own.
    async fn list(&self, prefix: &str) -> Result<Vec<Key>>;

    /// Watches all entries whose keys start with `prefix`: first a snapshot, then changes.
    ///
    /// # Errors
    /// None of its own.
    async fn watch(&self, prefix: &str) -> Result<Watch<Key, Entry>>;

    /// Opens a session that ends when it has not been renewed for `ttl`. Each call opens another one.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a `ttl` of zero, or that the backend can't keep.
    async fn open_session(&self, ttl: Duration) -> Result<SessionId>;

    /// Says that the session's owner lives.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that ended: its locks are gone.
    async fn renew_session(&self, session: &SessionId) -> Result<()>;

    /// Ends a session and frees its locks. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn close_session(&self, session: &SessionId) -> Result<()>;

    /// Takes a lock if it is free; `None` while another session holds it. A second call by the holder answers with the
    /// lock as it is held.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the session ended.
    async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>>;

    /// Frees a lock, if this session holds it. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()>;

    /// Who holds this lock.
    ///
    /// # Errors
    /// None of its own.
    async fn holder(&self, key: &Key) -> Result<Option<Held>>;

    /// Waits for the lock, and takes it: leadership, whose holder renews its session. A second call by the holder answers
    /// at once.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the session ended, also while waiting.
    async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held>;
}
