//! What a client is told by us and not by the engine.

use serde_json::json;

/// An answer as the engine's own: docker shows the message.
pub(super) fn answer(status: &str, message: &str) -> Vec<u8> {
    let body = json!({ "message": message }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
