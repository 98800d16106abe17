//! Talking to the agent on its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::paths::Paths;

/// A client of this host's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    http: Client,
    socket: PathBuf,
}

/// Told when nobody answers on the socket. The layers between say nothing that helps; the system's reason decides.
fn no_agent(socket: &Path, error: &reqwest::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut reason = None;
    while let Some(error) = cause {
        reason = error
            .downcast_ref::<io::Error>()
            .map(io::Error::kind)
            .or(reason);
        cause = error.source();
    }
    match reason {
        Some(io::ErrorKind::PermissionDenied) => Error::new(
            ErrorKind::PermissionDenied,
            "only root can talk to the agent of this host",
        )
        .with_hint("try it with sudo"),
        Some(io::ErrorKind::NotFound) => not_running(format!("there is no {}", socket.display())),
        _ => not_running(format!("nobody answers at {}", socket.display())),
    }
}

fn not_running(why: String) -> Error {
    Error::new(ErrorKind::Unavailable, "the agent is not running on this host")
        .with_hint("start it with arpanet2 boot, server or client; a node that is a member already comes back with arpanet2 start")
        .with_source(why)
}

impl Agent {
    /// A client; whether an agent is there shows at the first call.
    pub(crate) fn new(paths: &Paths) -> Result<Self> {
        Client::builder()
            .unix_socket(paths.socket())
            .build()
            .map(|http| Self {
                http,
                socket: paths.socket(),
            })
            .map_err(|source| {
                Error::new(ErrorKind::Internal, "no client for the agent's socket")
                    .with_source(source)
            })
    }

    /// A request; the host in the address means nothing on a socket.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://agent{path}"))
    }

    /// Sends a request and checks the answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                no_agent(&self.socket, &error)
            } else {
                Error::new(ErrorKind::Unavailable, "the agent broke off").with_source(error)
            }
        })?;
        if response.status().is_success() || response.status().as_u16() == 101 {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => failure.into(),
            Err(_) => Error::new(ErrorKind::Internal, format!("the agent answered {status}"))
                .with_hint("are the agent and this command of one version?"),
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        response.json().await.map_err(|source| {
            Error::new(ErrorKind::Incompatible, "the agent's answer can't be read")
                .with_hint("are the agent and this command of one version?")
                .with_source(source)
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// Whether an agent answers.
    pub(crate) async fn is_running(&self) -> bool {
        let request = self
            .request(Method::GET, "/v1/ping")
            .timeout(Duration::from_secs(2));
        self.send(request).await.is_ok()
    }
}
