//! A registry in the test's own process, on the loopback of somebody else's namespace, where engines take plain HTTP. It has
//! every image but those whose names begin with `nonexistent`: busybox, and two layers that no other image has.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_netlink::Namespace;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a layer of noise is, in bytes.
const NOISE: usize = 3 << 20;
/// The pieces that a layer comes in, in bytes.
const PIECE: usize = 64 << 10;

const BOUND: Duration = Duration::from_secs(60);

/// It ends with this value.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shelf {
    /// Who may come in, as `user:password`.
    reader: Mutex<Option<String>>,
    /// Whether layers stop after their first half.
    held: watch::Sender<bool>,
    /// How many layers are on their way to somebody.
    open: watch::Sender<usize>,
    /// Busybox as a layer.
    base: Bytes,
}

impl Registry {
    /// Serves in this namespace.
    pub async fn serve(namespace: &Namespace) -> Self {
        let listener = namespace
            .run(|| TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let shelf = Arc::new(Shelf {
            reader: Mutex::new(None),
            held: watch::channel(false).0,
            open: watch::channel(0).0,
            base: base(),
        });
        let answering = Arc::clone(&shelf);
        let answer = move |method: Method, uri: Uri, headers: HeaderMap| {
            let shelf = Arc::clone(&answering);
            async move { shelf.answer(&method, uri.path(), &headers) }
        };
        let server = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(answer))
                .await
                .unwrap();
        });
        Self {
            address,
            shelf,
            server,
        }
    }

    /// The full name of an image.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Lets only this user in from now on.
    pub fn admit_only(&self, user: &str, password: &str) {
        *self.shelf.reader.lock().unwrap() = Some(format!("{user}:{password}"));
    }

    /// Stops every layer after its first half, until it is released.
    pub fn hold(&self, held: bool) {
        self.shelf.held.send_replace(held);
    }

    /// Waits until nobody is in the middle of a layer.
    pub async fn idle(&self) {
        let mut open = self.shelf.open.subscribe();
        let idle = open.wait_for(|open| *open == 0);
        tokio::time::timeout(BOUND, idle).await.unwrap().unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Answer = Response<Body>;

impl Shelf {
    /// The registry's API, as far as a pull needs it (the OCI distribution specification, section "Pull").
    fn answer(self: Arc<Self>, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        if !self.admits(headers) {
            let answer = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who asks?");
            let mut answer = answer;
            let challenge = "Basic realm=\"test\"".parse().unwrap();
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            return answer;
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ["v2", name @ .., kind, wanted] = parts.as_slice() else {
            return Response::new(Body::from("{}"));
        };
        let name = name.join("/");
        if name.starts_with("nonexistent") {
            let words = "manifest unknown";
            return refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", words);
        }
        let image = Image::new(&name, &self.base);
        if *kind == "manifests" {
            return whole(method, MANIFEST, image.manifest());
        }
        match image.blob(wanted) {
            Some(blob) if *method == Method::GET && blob.len() > PIECE => self.pieces(blob),
            Some(blob) => whole(method, "application/octet-stream", blob),
            None => refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown"),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(reader) = self.reader.lock().unwrap().clone() else {
            return true;
        };
        let wanted = format!("Basic {}", BASE64_STANDARD.encode(reader));
        let shown = headers.get(header::AUTHORIZATION);
        shown.is_some_and(|shown| shown.as_bytes() == wanted.as_bytes())
    }

    /// A blob that comes piece by piece, and stops in the middle while it is held.
    fn pieces(self: Arc<Self>, blob: Bytes) -> Answer {
        let length = blob.len();
        self.open.send_modify(|open| *open += 1);
        let open = Open(self);
        let body = stream::unfold((open, blob), move |(open, mut blob)| async move {
            if blob.is_empty() {
                return None;
            }
            if blob.len() <= length / 2 {
                let mut held = open.0.held.subscribe();
                held.wait_for(|held| !held).await.unwrap();
            }
            let piece = blob.split_to(PIECE.min(blob.len()));
            Some((Ok::<_, std::io::Error>(piece), (open, blob)))
        });
        let answer = Response::builder()
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, length);
        answer.body(Body::from_stream(body)).unwrap()
    }
}

/// Counts a layer on its way.
struct Open(Arc<Shelf>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn whole(method: &Method, kind: &str, content: Bytes) -> Answer {
    let answer = Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, content.len())
        .header("Docker-Content-Digest", digest(&content));
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(content)
    };
    answer.body(body).unwrap()
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// What an image is made of, by its name alone.
struct Image {
    layers: Vec<Bytes>,
    config: Bytes,
}

impl Image {
    fn new(name: &str, base: &Bytes) -> Self {
        let own = (1..=2).map(|layer| noise(name, layer));
        let layers: Vec<Bytes> = std::iter::once(base.clone()).chain(own).collect();
        let digests: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let config = config.to_string().into();
        Self { layers, config }
    }

    fn manifest(&self) -> Bytes {
        let described = |kind: &str, content: &Bytes| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(content),
                "size": content.len(),
            })
        };
        let layers = self.layers.iter();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described("config.v1+json", &self.config),
            "layers": layers.map(|layer| described("layer.v1.tar", layer)).collect::<Vec<_>>(),
        });
        manifest.to_string().into()
    }

    fn blob(self, wanted: &str) -> Option<Bytes> {
        let mut all = self.layers.into_iter().chain([self.config]);
        all.find(|blob| digest(blob) == wanted)
    }
}

/// As registries call this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn header_of(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size as u64);
    header
}

/// Debian's busybox as `/bin/sh` and all else that the tests run.
fn base() -> Bytes {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = header_of(tar::EntryType::Regular, busybox.len());
    layer
        .append_data(&mut header, "bin/busybox", busybox.as_slice())
        .unwrap();
    for applet in ["sh", "sleep", "cat", "echo", "httpd"] {
        let mut header = header_of(tar::EntryType::Symlink, 0);
        let path = format!("bin/{applet}");
        layer.append_link(&mut header, path, "busybox").unwrap();
    }
    layer.into_inner().unwrap().into()
}

/// A layer that no other image has, and that no engine can make smaller.
fn noise(name: &str, number: u8) -> Bytes {
    let mut state = Sha256::digest(format!("{name}/{number}"))
        .iter()
        .fold(1_u64, |state, byte| state.rotate_left(8) ^ u64::from(*byte));
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..NOISE / 8).flat_map(step).collect();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = header_of(tar::EntryType::Regular, noise.len());
    layer
        .append_data(&mut header, format!("noise-{number}"), noise.as_slice())
        .unwrap();
    layer.into_inner().unwrap().into()
}
