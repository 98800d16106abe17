//! The router's HTTP API.
//!
//! What is asked for here is all that is asked of it. `/metrics` is not: without weave's own address allocator, which arpanet2
//! has no use for, that request ends the router. Peers are told by ip: for a name the router would ask DNS, for 10 s.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use reqwest::{Method, StatusCode};

use crate::error::{answered, own, unanswered, unreadable};
use crate::report::Report;

/// The largest answer that is read, in bytes: a report of a thousand routers has some 10 MB.
const LARGEST: usize = 64 << 20;

/// The way to a router. Each request has a connection of its own, so one that is restarted is found again.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// In front of each path.
    base: String,
    /// What the router is called in messages.
    pub(crate) at: Arc<str>,
    limit: Duration,
}

impl Client {
    pub(crate) fn new(at: &str, limit: Duration) -> Result<Self> {
        let bad = || {
            own(
                ErrorKind::InvalidInput,
                format!("{at:?} is no place of a weave router's HTTP API"),
            )
            .with_hint("give it as IP:PORT or as the path of a unix socket")
        };
        let builder = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base) = if at.starts_with('/') {
            let builder = builder.unix_socket(Path::new(at));
            (builder, "http://localhost".to_owned())
        } else {
            let at: SocketAddr = at.parse().map_err(|cause| bad().with_source(cause))?;
            (builder, format!("http://{at}"))
        };
        Ok(Self {
            http: builder.build().map_err(|cause| bad().with_source(cause))?,
            base,
            at: at.into(),
            limit,
        })
    }

    /// Whether it takes part yet. Until then it answers 503.
    pub(crate) async fn is_ready(&self) -> Result<bool> {
        let (status, body) = self.exchange(Method::GET, "/status", None).await?;
        match status {
            StatusCode::OK => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            status => Err(answered(&self.at, status, &body)),
        }
    }

    /// What it says of itself.
    pub(crate) async fn report(&self) -> Result<Report> {
        let (status, body) = self.exchange(Method::GET, "/report", None).await?;
        if status != StatusCode::OK {
            return Err(answered(&self.at, status, &body));
        }
        let report: Report =
            serde_json::from_str(&body).map_err(|cause| unreadable(&self.at, cause))?;
        if report.router.protocol != "weave" {
            let cause = format!("it speaks the protocol {:?}", report.router.protocol);
            return Err(unreadable(&self.at, cause));
        }
        Ok(report)
    }

    /// Has it connect to these, and keep trying. Those that it is told again are tried at once.
    pub(crate) async fn connect(&self, peers: &[SocketAddr]) -> Result<()> {
        self.tell("/connect", peers).await
    }

    /// Has it try no more to connect to these. A connection that stands is not ended.
    pub(crate) async fn forget(&self, peers: &[SocketAddr]) -> Result<()> {
        self.tell("/forget", peers).await
    }

    async fn tell(&self, path: &str, peers: &[SocketAddr]) -> Result<()> {
        if peers.is_empty() {
            return Ok(());
        }
        let form = peers
            .iter()
            .map(|peer| format!("peer={}", peer.to_string().replace(':', "%3A")))
            .collect::<Vec<_>>()
            .join("&");
        let (status, body) = self.exchange(Method::POST, path, Some(form)).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(answered(&self.at, status, &body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        form: Option<String>,
    ) -> Result<(StatusCode, String)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            // A report is else wanted in a template of Go's.
            .header("Accept", "application/json")
            .timeout(self.limit);
        if let Some(form) = form {
            request = request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form);
        }
        let failed = |failure| unanswered(&self.at, failure);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(unreadable(&self.at, "the answer has no end"));
            }
        }
        let body = String::from_utf8(body).map_err(|cause| unreadable(&self.at, cause))?;
        Ok((status, body))
    }
}
