//! What is refused before anything of this program looks at it: a path that is none, a body that can't be read. That is told as
//! all else is, so that every answer of the agent's can be read by whoever asked.

use arpanet_core::{Error, ErrorKind};
use axum::Json;
use axum::body::to_bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;

/// So much of why it was refused is told.
const LONGEST: usize = 1_000;

/// An answer as it is, or a refusal that says nothing of a [`Failure`] as one.
pub(super) async fn told(response: Response) -> Response {
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    let told = response.headers().get(header::CONTENT_TYPE);
    if !is_refusal || told.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return response;
    }
    let allowed = response.headers().get(header::ALLOW).cloned();
    // What is longer is not read: its status says enough.
    let why = to_bytes(response.into_body(), LONGEST).await;
    let why = String::from_utf8_lossy(&why.unwrap_or_default()).into_owned();
    let mut response = (status, Json(Failure::from(&error(status, why)))).into_response();
    if let Some(allowed) = allowed {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn error(status: StatusCode, why: String) -> Error {
    let (kind, message) = match status {
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, "the agent has nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            ErrorKind::Unsupported,
            "the agent does not do this with what is at this path",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorKind::InvalidInput, "this is too much at once"),
        _ if status.is_server_error() => (ErrorKind::Internal, "the agent can't answer this"),
        _ => (
            ErrorKind::InvalidInput,
            "the agent can't read what it is asked",
        ),
    };
    let error =
        Error::new(kind, message).with_hint("are the agent and this command of one version?");
    if why.is_empty() {
        return error;
    }
    error.with_source(why)
}
