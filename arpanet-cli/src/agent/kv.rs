//! The key-value store on the agent's API. Values are bodies, revisions are a header; what goes on comes as lines of JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::kv::{Entry, Held, Key, Revision, SessionId};
use arpanet_core::watch::Change;
use arpanet_core::{Cluster, Error, ErrorKind, KeyValue, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::api::{Answer, ApiError};

/// The header that carries a revision.
pub(crate) const REVISION: &str = "arpanet2-revision";

/// What a lock's session lasts without a renewal: what a holder that died keeps others waiting.
const SESSION: Duration = Duration::from_secs(10);

/// Time for three renewals before a session ends.
const RENEWAL: Duration = Duration::from_secs(3);

/// The longest value that is read: more is the store's to refuse.
const BODY_LIMIT: usize = 1024 * 1024;

pub(crate) fn routes<S>(cluster: Cluster) -> Router<S> {
    Router::new()
        .route("/", get(list))
        .route("/entry", get(read).put(write).delete(remove))
        .route("/watch", get(watch))
        .route("/lock", post(lock))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(cluster)
}

/// Which entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyQuery {
    pub(crate) key: String,
    /// The revision that it must still have, 0 for none.
    pub(crate) expect: Option<u64>,
}

/// Which entries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PrefixQuery {
    #[serde(default)]
    pub(crate) prefix: String,
}

/// A change of the watched entries. A value that is no text is told in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvChange {
    /// All that is there.
    Snapshot(Vec<KvEntry>),
    Put(KvEntry),
    Deleted(String),
    /// The store is out of reach.
    Stale,
    Fresh,
}

/// An entry as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KvEntry {
    pub(crate) key: String,
    /// Where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// Where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hex: Option<String>,
    pub(crate) revision: u64,
}

impl KvEntry {
    pub(crate) fn new(key: impl ToString, value: &[u8], revision: u64) -> Self {
        let text = std::str::from_utf8(value).ok().map(str::to_owned);
        let hex = text.is_none().then(|| {
            let digits = value.iter().map(|byte| format!("{byte:02x}"));
            digits.collect()
        });
        Self {
            key: key.to_string(),
            value: text,
            hex,
            revision,
        }
    }
}

impl From<(&Key, &Entry)> for KvEntry {
    fn from((key, entry): (&Key, &Entry)) -> Self {
        Self::new(key, &entry.value, entry.revision.0)
    }
}

/// What is told of a lock, line by line. The lock is held for as long as the client listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LockNews {
    /// It is the client's, with this fencing number.
    Held(u64),
    /// It is no more: why.
    Lost(crate::failure::Failure),
}

fn store(cluster: &Cluster) -> Result<&Arc<dyn KeyValue>> {
    cluster.key_value().map_err(|error| {
        error.with_hint("a cluster that was booted with --discovery consul has one")
    })
}

async fn list(
    State(cluster): State<Cluster>,
    Query(query): Query<PrefixQuery>,
) -> Answer<Vec<String>> {
    let keys = store(&cluster)?.list(&query.prefix).await?;
    Ok(axum::Json(keys.iter().map(Key::to_string).collect()))
}

async fn read(
    State(cluster): State<Cluster>,
    Query(query): Query<KeyQuery>,
) -> Result<Response, ApiError> {
    let key = query.key.parse()?;
    let entry = store(&cluster)?.get(&key).await?.ok_or_else(|| {
        let message = format!("there is nothing under the key {key}");
        Error::new(ErrorKind::NotFound, message)
    })?;
    Ok(([(REVISION, entry.revision.0.to_string())], entry.value).into_response())
}

async fn write(
    State(cluster): State<Cluster>,
    Query(query): Query<KeyQuery>,
    value: Bytes,
) -> Answer<u64> {
    let (store, key) = (store(&cluster)?, query.key.parse()?);
    let revision = match query.expect {
        None => store.put(&key, value).await?,
        Some(expected) => {
            let expected = (expected > 0).then_some(Revision(expected));
            store.compare_and_swap(&key, expected, value).await?
        }
    };
    Ok(axum::Json(revision.0))
}

async fn remove(State(cluster): State<Cluster>, Query(query): Query<KeyQuery>) -> Answer<()> {
    store(&cluster)?.delete(&query.key.parse()?).await?;
    Ok(axum::Json(()))
}

async fn watch(
    State(cluster): State<Cluster>,
    Query(query): Query<PrefixQuery>,
) -> Result<Response, ApiError> {
    let watch = store(&cluster)?.watch(&query.prefix).await?;
    let lines = stream::unfold(watch, async |mut watch| {
        let change = match watch.next().await? {
            Change::Snapshot(set) => KvChange::Snapshot(set.iter().map(KvEntry::from).collect()),
            Change::Upsert(key, entry) => KvChange::Put(KvEntry::from((&key, &entry))),
            Change::Removed(key) => KvChange::Deleted(key.to_string()),
            Change::Stale => KvChange::Stale,
            _ => KvChange::Fresh,
        };
        Some((line(&change), watch))
    });
    Ok(Body::from_stream(Box::pin(lines)).into_response())
}

pub(super) fn line(what: &impl Serialize) -> Result<Bytes, Infallible> {
    // Of plain data, so that nothing can fail.
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    Ok(Bytes::from(line))
}

async fn lock(
    State(cluster): State<Cluster>,
    Query(query): Query<KeyQuery>,
) -> Result<Response, ApiError> {
    let key: Key = query.key.parse()?;
    let store = Arc::clone(store(&cluster)?);
    let session = store.open_session(SESSION).await?;
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(hold(store, key, session, tell));
    let lines = stream::unfold(told, async |mut told: mpsc::Receiver<LockNews>| {
        let news = told.recv().await?;
        Some((line(&news), told))
    });
    Ok(Body::from_stream(Box::pin(lines)).into_response())
}

/// Waits for a lock and holds it until the client is gone, which shows when nothing can be told.
async fn hold(
    store: Arc<dyn KeyValue>,
    key: Key,
    session: SessionId,
    tell: mpsc::Sender<LockNews>,
) {
    let kept = async {
        let held = renewing(&*store, &session, store.campaign(&key, &session)).await?;
        let Held { fencing, .. } = held;
        if tell.send(LockNews::Held(fencing)).await.is_err() {
            return Ok(());
        }
        let never = std::future::pending::<Result<()>>();
        renewing(&*store, &session, never).await
    };
    tokio::select! {
        () = tell.closed() => {}
        outcome = kept => if let Err(error) = &outcome {
            let _ = tell.send(LockNews::Lost(error.into())).await;
        },
    }
    let ended = async {
        store.unlock(&key, &session).await?;
        store.close_session(&session).await
    };
    if let Err(error) = ended.await {
        tracing::warn!(%error, %key, "the lock is freed when its session ends");
    }
}

/// Works, and renews the session meanwhile; fails as soon as the session can't be relied on any more.
async fn renewing<T>(
    store: &dyn KeyValue,
    session: &SessionId,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let renewals = async {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            match tokio::time::timeout(RENEWAL, store.renew_session(session)).await {
                Ok(Ok(())) => last = tokio::time::Instant::now(),
                Ok(Err(error)) if !error.is_retryable() => return error,
                // One more renewal may take as long again.
                late if last.elapsed() + RENEWAL >= SESSION => {
                    let message = "the session could not be renewed in time";
                    let error = Error::new(ErrorKind::Timeout, message);
                    return match late {
                        Ok(Err(source)) => error.with_source(source),
                        _ => error,
                    };
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        outcome = work => outcome,
        error = renewals => Err(error),
    }
}
