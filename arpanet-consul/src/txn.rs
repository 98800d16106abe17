//! Transactions (<https://developer.hashicorp.com/consul/api-docs/txn>), of one operation each: they answer with the entry
//! as it was written, and so with its revision, which consul's plain writes do not.

use arpanet_core::{Error, ErrorKind, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::own;
use crate::transport::Request;
use crate::wire::Pair;

/// One operation on one key.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Operation {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

impl Operation {
    fn new(verb: &'static str, key: &str) -> Self {
        Self {
            verb,
            key: key.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn set(key: &str, value: &[u8], flags: u64) -> Self {
        Self {
            value: Some(STANDARD.encode(value)),
            flags: Some(flags),
            ..Self::new("set", key)
        }
    }

    /// Index 0 stands for no entry.
    pub(crate) fn cas(key: &str, value: &[u8], flags: u64, index: u64) -> Self {
        Self {
            value: Some(STANDARD.encode(value)),
            flags: Some(flags),
            index: Some(index),
            ..Self::new("cas", key)
        }
    }

    pub(crate) fn lock(key: &str, session: &str) -> Self {
        Self {
            value: Some(String::new()),
            session: Some(session.to_owned()),
            ..Self::new("lock", key)
        }
    }

    pub(crate) fn unlock(key: &str, session: &str) -> Self {
        Self {
            value: Some(String::new()),
            session: Some(session.to_owned()),
            ..Self::new("unlock", key)
        }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The entry as it was written, without its value.
    Done(Pair),
    /// It was rolled back; consul's words.
    Refused(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answered {
    results: Option<Vec<One>>,
    errors: Option<Vec<Fault>>,
}

#[derive(Debug, Deserialize)]
struct One {
    #[serde(rename = "KV")]
    kv: Pair,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fault {
    what: String,
}

impl Client {
    pub(crate) async fn transact(&self, operation: &Operation) -> Result<Outcome> {
        let body =
            serde_json::to_vec(&[serde_json::json!({ "KV": operation })]).map_err(|cause| {
                own(ErrorKind::Internal, "a request can't be written").with_source(cause)
            })?;
        let request = Request {
            method: Method::PUT,
            ..Request::get("/v1/txn")
        }
        .body(body);
        let response = self
            .transport
            .send_or(request, Some(StatusCode::CONFLICT))
            .await?;
        let answered: Answered = self.transport.read(&response)?;
        if let Some(done) = answered
            .results
            .and_then(|results| results.into_iter().next())
        {
            return Ok(Outcome::Done(done.kv));
        }
        let faults = answered.errors.unwrap_or_default();
        let told: Vec<String> = faults.into_iter().map(|fault| fault.what).collect();
        Ok(Outcome::Refused(told.join("; ")))
    }
}

/// A refusal that is none of those that the caller knows.
pub(crate) fn refused(at: &str, told: &str) -> Error {
    let told = Error::words(told);
    if told.contains("Permission denied") {
        return own(
            ErrorKind::PermissionDenied,
            format!("consul at {at} says: {told}"),
        )
        .with_hint("the ACL token, or the anonymous one where none is set, may not do it");
    }
    own(
        ErrorKind::Internal,
        format!("consul at {at} refuses: {told}"),
    )
}

/// Whether consul refused because the session is none.
pub(crate) fn is_session_fault(told: &str) -> bool {
    told.contains("invalid session") || told.contains("session lookup")
}

/// Whether consul refused because somebody else holds the lock, or held it a moment ago.
pub(crate) fn is_held(told: &str) -> bool {
    told.contains("is already held") || told.contains("lock delay") || told.contains("lock-delay")
}

/// Whether consul refused because the entry is another by now.
pub(crate) fn is_outdated(told: &str) -> bool {
    told.contains("index is stale")
}
