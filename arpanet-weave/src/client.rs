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
        read_report(&self.at, &body)
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

/// A report of the router that is there.
pub(crate) fn read_report(at: &str, body: &str) -> Result<Report> {
    let report: Report = serde_json::from_str(body).map_err(|cause| unreadable(at, cause))?;
    if report.router.protocol != "weave" {
        let cause = format!("it speaks the protocol {:?}", report.router.protocol);
        return Err(unreadable(at, cause));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::error::is_nobody;

    const REPORT: &str = include_str!("../tests/recordings/three-peers/report.json");

    /// Answers one request so, and tells it.
    fn server(answer: String) -> (Client, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            while !asked.contains("\r\n\r\n")
                || (asked.starts_with("POST") && !asked.contains("peer="))
            {
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap();
                asked.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        (Client::new(&at, Duration::from_secs(5)).unwrap(), serving)
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn a_recorded_report_is_read_over_tcp() {
        let (client, serving) = server(ok(REPORT));
        let router = client.report().await.unwrap().router;
        assert_eq!((router.peers.len(), router.unicast_routes.len()), (3, 3));
        // It takes all 64 bits, and an empty list is null.
        assert_eq!(router.peers[0].uid, 15_142_124_886_176_697_629);
        assert!(router.targets.is_empty());
        let asked = serving.join().unwrap().to_lowercase();
        assert!(asked.starts_with("get /report http/1.1"), "{asked}");
        assert!(asked.contains("accept: application/json"), "{asked}");
        // Nobody is there any more.
        assert!(is_nobody(&client.report().await.unwrap_err()));
    }

    #[tokio::test]
    async fn peers_are_told_by_ip_in_one_request() {
        let (client, serving) = server(ok(""));
        let peers = [
            "192.0.2.1:6783".parse().unwrap(),
            "[2001:db8::1]:7000".parse().unwrap(),
        ];
        client.connect(&peers).await.unwrap();
        let asked = serving.join().unwrap();
        assert!(asked.starts_with("POST /connect HTTP/1.1"), "{asked}");
        let form = "peer=192.0.2.1%3A6783&peer=[2001%3Adb8%3A%3A1]%3A7000";
        assert!(asked.ends_with(form), "{asked}");
    }

    #[tokio::test]
    async fn half_an_answer_garbage_and_another_program_are_told_apart() {
        let half = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{{",
            REPORT.len()
        );
        let other = REPORT.replace("\"Protocol\": \"weave\"", "\"Protocol\": \"other\"");
        for (answer, kind) in [
            (half, ErrorKind::Unavailable),
            (ok("{\"Ready\": tru"), ErrorKind::Incompatible),
            (ok(&other), ErrorKind::Incompatible),
            (ok("hello"), ErrorKind::Incompatible),
        ] {
            let (client, serving) = server(answer);
            let error = client.report().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!is_nobody(&error), "{error}");
            serving.join().unwrap();
        }
    }
}
