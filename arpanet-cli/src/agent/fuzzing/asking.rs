//! What may be asked of the agent's API.

use arpanet_core::conformance::bytes::Draw;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde_json::{Value, json};

use super::super::streams::EXEC_HEADER;

/// A request. Its address is one of the API's with names drawn into it, or any.
#[derive(Debug)]
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

const METHODS: [&Method; 5] = [
    &Method::GET,
    &Method::POST,
    &Method::DELETE,
    &Method::PUT,
    &Method::PATCH,
];

/// All routes but `why`, which sends packets.
const PATHS: [&str; 32] = [
    "/v1/ping",
    "/v1/status",
    "/v1/nodes",
    "/v1/nodes/{}",
    "/v1/nodes/{}/drain",
    "/v1/key",
    "/v1/password",
    "/v1/services",
    "/v1/summary",
    "/v1/resolve?name={}",
    "/v1/instances",
    "/v1/instances/{}",
    "/v1/networks",
    "/v1/networks/{}",
    "/v1/containers",
    "/v1/containers",
    "/v1/containers/{}",
    "/v1/planes/{}",
    "/v1/containers/{}/addresses",
    "/v1/containers/{}/addresses/{}",
    "/v1/containers/{}/stop",
    "/v1/containers/{}/logs?tail={}&follow={}&since={}",
    "/v1/containers/{}/exec",
    "/v1/images/pull",
    "/v1/kv?prefix={}",
    "/v1/kv/entry?key={}",
    "/v1/kv/entry?key={}&expect={}",
    "/v1/kv/watch?prefix={}",
    "/v1/kv/lock?key={}",
    "/v1/end",
    "/metrics",
    "/v1/{}",
];

const NAMES: [&str; 20] = [
    "web",
    "w1",
    "0.1",
    "0.2",
    "0.3",
    "docker",
    "discovery",
    "10.1.0.5",
    "10.1.0.5/16",
    "10.1.0.0/16",
    "red",
    "a/b",
    "true",
    "0",
    "7",
    "18446744073709551615",
    "by-hand",
    "..",
    "%ff",
    "",
];

/// One of the names that mean something here, or any.
fn name(said: &mut Draw<'_>) -> String {
    match said.byte() {
        known @ ..=199 => NAMES[usize::from(known) % NAMES.len()].to_owned(),
        _ => said.text().to_owned(),
    }
}

impl Asked {
    pub(super) fn draw(said: &mut Draw<'_>) -> Self {
        let method = said.one_of(&METHODS).clone();
        let mut parts = said.one_of(&PATHS).split("{}");
        let mut uri = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            for byte in name(said).bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte) {
                    uri.push(byte.into());
                } else {
                    uri.push_str(&format!("%{byte:02X}"));
                }
            }
            uri.push_str(part);
        }
        let mut headers = Vec::new();
        if said.byte() < 240 {
            headers.push((
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ));
        }
        if uri.ends_with("/exec") {
            let told = match said.byte() % 4 {
                0 => said.piece().to_vec(),
                _ => {
                    json!({ "command": [name(said)], "terminal": said.coin().then_some((80, 24)) })
                        .to_string()
                        .into()
                }
            };
            if let Ok(told) = HeaderValue::from_bytes(&told) {
                headers.push((HeaderName::from_static(EXEC_HEADER), told));
            }
        }
        Self {
            method,
            uri: uri.parse().unwrap_or_else(|_| Uri::from_static("/")),
            headers,
            body: body(said),
        }
    }

    /// Whether what is answered is JSON: it is not where it is a value, frames, or for somebody else's program.
    pub(super) fn is_json(&self) -> bool {
        let path = self.uri.path();
        let is_value = path == "/v1/kv/entry" && self.method == Method::GET;
        !is_value && path != "/metrics" && !path.ends_with("/logs")
    }

    pub(super) fn request(self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        request.headers_mut().extend(self.headers);
        request
    }
}

fn body(said: &mut Draw<'_>) -> Vec<u8> {
    let value = match said.byte() % 12 {
        0 => return Vec::new(),
        1 => return said.piece().to_vec(),
        2 => return b"[".repeat(usize::from(said.byte()) * 16),
        3 => json!({ "password": name(said) }),
        4 => json!({
            "service": name(said),
            "ip": said.coin().then(|| name(said)),
            "port": said.number(),
            "id": said.coin().then(|| name(said)),
            "tags": many(said),
        }),
        5 => json!({ "name": name(said), "net": said.coin().then(|| name(said)) }),
        6 => container(said),
        7 => json!(name(said)),
        8 => json!({ "image": name(said), "policy": said.one_of(&["missing", "always", "never"]) }),
        9 => json!(said.one_of(&["silent", "leave", "reset"])),
        10 => json!(said.number()),
        _ => Value::Null,
    };
    value.to_string().into_bytes()
}

fn many(said: &mut Draw<'_>) -> Vec<String> {
    (0..said.byte() % 4).map(|_| name(said)).collect()
}

fn container(said: &mut Draw<'_>) -> Value {
    let check = json!({
        "probe": said.one_of(&["http :80/", "tcp :80", "exec true", "x"]),
        "interval": { "secs": said.number(), "nanos": 0 },
    });
    let mut spec = json!({ "name": said.coin().then(|| name(said)) });
    for (key, value) in [
        ("command", json!(many(said))),
        ("image", json!(name(said))),
        ("nets", json!(many(said))),
        (
            "service",
            json!({ "name": name(said), "port": said.number() & 0xFFFF, "tags": many(said) }),
        ),
        ("env", json!({ name(said): name(said) })),
        ("labels", json!({ name(said): name(said) })),
        ("checks", json!([check])),
        (
            "restart",
            json!(said.one_of(&["no", "always", "on-failure"])),
        ),
    ] {
        if said.coin() {
            spec[key] = value;
        }
    }
    spec
}
