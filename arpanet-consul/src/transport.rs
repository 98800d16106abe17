//! One request and its answer.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::blocking::pause;
use crate::client::part;
use crate::config::{ConsulConfig, ms};
use crate::error::{Failure, answered, own, unanswered, unreadable};
use crate::tls;

/// How long a server may take that knows a leader.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The largest answer that is read, in bytes: all entries under a prefix are one.
const LARGEST: usize = 256 << 20;

/// So many requests are made at a time. Consul closes the door to who has 200 connections
/// (`limits.http_max_conns_per_client`), and then also to the sign of life.
const SIDE_BY_SIDE: usize = 64;

/// A request. Its path has every part encoded already.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// What the wait of a blocking query adds to the time that an answer may take.
    pub(crate) wait: Duration,
    /// Does not wait for its turn: what waits for long itself, and what may not wait at all.
    pub(crate) at_once: bool,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: Bytes::new(),
            wait: Duration::ZERO,
            at_once: false,
        }
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self {
            method: Method::PUT,
            ..Self::get(path)
        }
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path)
        }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(path)
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// An answer with a good status, or 404.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response {
    pub(crate) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.parse().ok()
    }

    /// Of what the answer shows.
    pub(crate) fn index(&self) -> u64 {
        self.number("x-consul-index").unwrap_or(0)
    }

    /// Whether who answered knew of a leader; true where it does not say.
    pub(crate) fn has_leader(&self) -> bool {
        self.headers
            .get("x-consul-knownleader")
            .is_none_or(|known| known != "false")
    }
}

/// How an agent is reached.
#[derive(Clone)]
enum Route {
    Unix(PathBuf),
    Tcp(String, u16),
    Tls(String, u16, TlsConnector, ServerName<'static>),
    /// Each request is answered with the next of these, and the rest with nothing.
    #[cfg(any(test, fuzzing))]
    Said(Arc<std::sync::Mutex<std::collections::VecDeque<Vec<u8>>>>),
}

/// The way to an agent. Each request has a connection of its own, so an agent that is restarted is found again, and a request
/// that is dropped is gone with its connection.
#[derive(Clone)]
pub(crate) struct Transport {
    route: Route,
    host: HeaderValue,
    token: Option<HeaderValue>,
    /// What the agent is called in messages.
    pub(crate) at: Arc<str>,
    limit: Duration,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.at)
    }
}

impl Transport {
    pub(crate) fn new(config: &ConsulConfig) -> Result<Self> {
        let token = match &config.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(token.expose())
                    .map_err(|_| own(ErrorKind::InvalidInput, "the ACL token can't be one"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let bad_address = || bad_address(&config.address);
        let (route, host) = match config.address.split_once(':').ok_or_else(bad_address)? {
            ("unix", path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if !path.starts_with('/') {
                    return Err(bad_address());
                }
                (Route::Unix(path.into()), "localhost".to_owned())
            }
            ("http", rest) => {
                let (host, port) = origin(rest, 8500).ok_or_else(bad_address)?;
                let at = format!("{host}:{port}");
                (Route::Tcp(host, port), at)
            }
            ("https", rest) => {
                let (host, port) = origin(rest, 8501).ok_or_else(bad_address)?;
                let at = format!("{host}:{port}");
                let name = config
                    .tls
                    .server_name
                    .clone()
                    .unwrap_or_else(|| host.clone());
                let name =
                    ServerName::try_from(name).map_err(|cause| bad_address().with_source(cause))?;
                (
                    Route::Tls(host, port, tls::connector(&config.tls)?, name),
                    at,
                )
            }
            _ => return Err(bad_address()),
        };
        Ok(Self {
            route,
            host: HeaderValue::from_str(&host).map_err(|cause| bad_address().with_source(cause))?,
            token,
            at: config.address.as_str().into(),
            limit: ms(config.request_ms),
            turns: Arc::new(Semaphore::new(SIDE_BY_SIDE)),
        })
    }

    pub(crate) async fn send(&self, request: Request) -> Result<Response> {
        self.send_or(request, None).await
    }

    /// A request that does no harm when it is made twice, and when it arrives late: it is made again while there is time.
    ///
    /// A server whose leader was just cut off waits for the answer of that one, also when it knows the next already; another
    /// request goes to that.
    pub(crate) async fn send_again(&self, request: Request) -> Result<Response> {
        let end = Instant::now() + self.limit;
        let mut failures = 0;
        loop {
            let attempt = tokio::time::timeout_at(
                end.min(Instant::now() + ATTEMPT),
                self.send(request.clone()),
            );
            let error = match attempt.await {
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(answer) => return answer,
                Err(_) => self.no_answer().await,
            };
            failures += 1;
            let again = Instant::now() + pause(failures, rand::random());
            if again >= end {
                return Err(error);
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// Why there may be no answer: consul holds requests back for a while when it has no leader.
    async fn no_answer(&self) -> Error {
        let asked = self.exchange(Request::get("/v1/status/leader"));
        match tokio::time::timeout(ATTEMPT, asked).await {
            Ok(Ok(response)) if response.body.trim_ascii() == b"\"\"" => answered(
                &self.at,
                StatusCode::INTERNAL_SERVER_ERROR,
                "No cluster leader",
            ),
            _ => unanswered(&self.at, Failure::TooLong),
        }
    }

    /// An answer with this status is one to read, too.
    pub(crate) async fn send_or(
        &self,
        request: Request,
        or: Option<StatusCode>,
    ) -> Result<Response> {
        let _turn = if request.at_once {
            None
        } else {
            self.turns.acquire().await.ok()
        };
        let limit = self.limit + request.wait;
        let exchange = tokio::time::timeout(limit, self.exchange(request));
        let response = match exchange.await {
            Ok(answer) => answer.map_err(|failure| unanswered(&self.at, failure))?,
            Err(_) => return Err(self.no_answer().await),
        };
        let status = response.status;
        let is_answer = status.is_success() || Some(status) == or;
        // A 404 that says what is missing is an error of its own; one without a word is an empty answer.
        if is_answer || (response.is_missing() && response.body.is_empty()) {
            return Ok(response);
        }
        let body = String::from_utf8_lossy(&response.body);
        Err(answered(&self.at, status, &body))
    }

    async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        let tcp = async |host: &String, port: u16| {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match &self.route {
            Route::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(Failure::Connect)?;
                self.exchange_over(stream, request).await
            }
            Route::Tcp(host, port) => {
                let stream = tcp(host, *port).await.map_err(Failure::Connect)?;
                self.exchange_over(stream, request).await
            }
            Route::Tls(host, port, connector, name) => {
                let stream = tcp(host, *port).await.map_err(Failure::Connect)?;
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(Failure::Connect)?;
                self.exchange_over(stream, request).await
            }
            #[cfg(any(test, fuzzing))]
            Route::Said(answers) => {
                let next = answers.lock().ok().and_then(|mut said| said.pop_front());
                let nobody = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                let answer = next.ok_or_else(|| Failure::Connect(nobody()))?;
                let stream = tokio::io::join(std::io::Cursor::new(answer), tokio::io::sink());
                self.exchange_over(stream, request).await
            }
        }
    }

    /// One that is answered so, whatever it asks.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn told(mut self, answers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let answers = answers.into_iter().collect();
        self.route = Route::Said(Arc::new(std::sync::Mutex::new(answers)));
        self
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        request: Request,
    ) -> Result<Response, Failure> {
        let stream = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let request = self.request(request)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| match error.downcast() {
                Ok(error) => Failure::Http(*error),
                Err(_) => Failure::TooLarge,
            })?;
            let body = body.to_bytes();
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            answer = &mut exchange => answer,
            // It ends first when the other side closes with its answer, which is all here then.
            ended = &mut connection => {
                ended?;
                exchange.await
            }
        }
    }

    fn request(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let mut path = request.path;
        for (number, (name, value)) in request.query.iter().enumerate() {
            path.push(if number == 0 { '?' } else { '&' });
            path.push_str(name);
            path.push('=');
            path.push_str(&part(value));
        }
        let mut built = hyper::Request::builder()
            .method(request.method)
            .uri(path)
            .header(HOST, self.host.clone());
        if let Some(token) = &self.token {
            built = built.header("X-Consul-Token", token.clone());
        }
        Ok(built.body(Full::new(request.body))?)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, response: &Response) -> Result<T> {
        serde_json::from_slice(&response.body).map_err(|cause| unreadable(&self.at, cause))
    }

    /// An answer that must be there.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let response = self.done(request).await?;
        self.read(&response)
    }

    /// A request that must be met.
    pub(crate) async fn done(&self, request: Request) -> Result<Response> {
        let response = self.send(request).await?;
        self.there(response)
    }

    /// What must be there.
    pub(crate) fn there(&self, response: Response) -> Result<Response> {
        if response.is_missing() {
            return Err(answered(&self.at, response.status, ""));
        }
        Ok(response)
    }
}

/// Host and port of `//HOST[:PORT][/]`.
fn origin(rest: &str, usual: u16) -> Option<(String, u16)> {
    let rest = rest.strip_prefix("//")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, usual),
    };
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    is_host.then(|| (host.to_owned(), port))
}

fn bad_address(address: &str) -> Error {
    own(
        ErrorKind::InvalidInput,
        format!("{address:?} is no address of consul"),
    )
    .with_hint("say http://IP:PORT, https://IP:PORT or unix:/PATH")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsConfig;

    fn refused(address: &str) -> String {
        let config = ConsulConfig::default().address(address);
        let error = Transport::new(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in [
            "",
            "127.0.0.1:8500",
            "ftp://127.0.0.1",
            "http://",
            "http://a/b",
            "http://u@a",
            "unix:rel",
        ] {
            refused(address);
        }
        assert!(refused("https://127.0.0.1:8501").contains("tls.ca"));
        for address in ["http://127.0.0.1:8500/", "unix:/run/consul.sock"] {
            assert!(Transport::new(&ConsulConfig::default().address(address)).is_ok());
        }
    }

    #[test]
    fn a_certificate_that_can_not_be_read_is_named() {
        let config = ConsulConfig::default()
            .address("https://127.0.0.1:8501")
            .tls(TlsConfig::default().ca("/nonexistent/ca.pem"));
        let error = Transport::new(&config).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"));
    }
}
