//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets and tests only"
)]

mod asking;
mod node;

use std::time::Duration;

use arpanet_core::conformance::bytes::Draw;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use self::asking::Asked;
use self::node::Node;
use crate::failure::Failure;

/// An answer is there by then.
const END: Duration = Duration::from_secs(600);
/// What goes on without an end is listened to for so long.
const LISTENED: Duration = Duration::from_secs(1);

/// Statuses that an answer may have.
const KNOWN: [StatusCode; 15] = [
    StatusCode::OK,
    StatusCode::SWITCHING_PROTOCOLS,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::NOT_IMPLEMENTED,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
    StatusCode::INSUFFICIENT_STORAGE,
];

/// Whatever is asked of the agent's API, of a node in a simulated world: each answer has a status that is known and is JSON, but
/// for what is a value or goes on; a refusal says why, and after it the node has what it had before.
pub fn requests(bytes: &[u8]) {
    let mut said = Draw::new(bytes);
    // On a paused clock what is waited for takes no time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let node = Node::up().await;
        let api = TowerToHyperService::new(node.router());
        while !said.is_done() {
            let asked = Asked::draw(&mut said);
            let before = node.has().await;
            let (told, is_json) = (format!("{asked:?}"), asked.is_json());
            let answering = api.call(asked.request());
            let answer = tokio::time::timeout(END, answering).await.unwrap().unwrap();
            if look(&told, is_json, answer).await {
                node.settle().await;
                assert_eq!(node.has().await, before, "{told} was refused");
            }
        }
    });
}

/// Whether it is a refusal.
async fn look(asked: &str, is_json: bool, answer: Response) -> bool {
    let (head, body) = answer.into_parts();
    let status = head.status;
    assert!(KNOWN.contains(&status), "{asked} is answered with {status}");
    let body = listen(body).await;
    let shown = String::from_utf8_lossy(&body);
    if status.is_client_error() || status.is_server_error() {
        let kind = head.headers.get(header::CONTENT_TYPE);
        assert_eq!(kind.unwrap(), "application/json", "{asked}: {shown}");
        let failure: Failure = serde_json::from_slice(&body).unwrap();
        assert!(!failure.message.is_empty(), "{asked}: {shown}");
        return true;
    }
    if status == StatusCode::OK && is_json {
        // What goes on comes in lines.
        for line in body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let read = serde_json::from_slice::<serde_json::Value>(line);
            assert!(read.is_ok(), "{asked}: {shown}");
        }
    }
    false
}

async fn listen(body: Body) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Ok(Some(piece)) = tokio::time::timeout(LISTENED, pieces.next()).await {
        heard.extend_from_slice(&piece.unwrap());
    }
    heard
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn whatever_the_agent_is_asked_it_answers_and_a_refusal_changes_nothing() {
        hold(seeds("agent_api"), 100, super::requests);
    }
}
