//! Asking the engine for a pull. By hand: what the engine takes credentials from is base64 of the URLs' alphabet, in which
//! bollard does not write it, so that some passwords would be as good as none.

use std::convert::Infallible;
use std::time::Duration;

use arpanet_core::runtime::{PullReporter, PullRequest, RegistryCredentials};
use arpanet_core::{Error, ErrorKind, Result};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use futures_util::StreamExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::refused::refusal;
use super::told::{Steps, Told};
use crate::client::Client;
use crate::error::{own, unreachable};

/// How long the engine may say nothing: while it looks for the registry, or verifies what came.
const SILENCE: Duration = Duration::from_secs(300);

/// The longest refusal that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// Pulls, and tells of every step. The engine gives it up when the future is dropped.
pub(super) async fn pull(
    client: &Client,
    request: &PullRequest,
    reporter: &PullReporter,
) -> Result<()> {
    let wanted = wanted(request)?;
    let stream = UnixStream::connect(client.socket())
        .await
        .map_err(|source| unreachable(client.socket(), source))?;
    let broken = |source| {
        let message = "the engine broke off the pull";
        own(ErrorKind::Unavailable, message).with_source(source)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let asking = async {
        let answer = in_time(sender.send_request(wanted))
            .await?
            .map_err(broken)?;
        follow(request, answer.map(Body::new), reporter).await
    };
    let connection = async {
        let _ = connection.await;
        // Its end is seen by who reads the answer.
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        outcome = asking => outcome,
        never = connection => match never {},
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(SILENCE, work).await.map_err(|_| {
        let message = format!("the engine has said nothing of the pull for {SILENCE:?}");
        own(ErrorKind::Timeout, message).with_hint("what has come stays: try again")
    })
}

async fn follow(
    request: &PullRequest,
    answer: Response<Body>,
    reporter: &PullReporter,
) -> Result<()> {
    let status = answer.status();
    if status != StatusCode::OK {
        let body = in_time(to_bytes(answer.into_body(), LONGEST)).await?;
        return Err(refusal(request, &words(&body.unwrap_or_default())));
    }
    let mut body = answer.into_body().into_data_stream();
    let mut steps = Steps::default();
    while let Some(piece) = in_time(body.next()).await? {
        let piece = piece.map_err(|source| {
            let message = "the engine broke off the pull";
            own(ErrorKind::Unavailable, message).with_source(source)
        })?;
        let told = steps.take(&piece).map_err(|source| {
            let message = "what the engine tells of the pull can't be read";
            own(ErrorKind::Incompatible, message).with_source(source)
        })?;
        for told in told {
            match told {
                Told::Layer(progress) => reporter.tell(progress),
                Told::Failed(words) => return Err(refusal(request, &words)),
            }
        }
    }
    Ok(())
}

/// What is said in a refusal.
fn words(body: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    serde_json::from_slice::<Refusal>(body).map_or_else(
        |_| String::from_utf8_lossy(body).into_owned(),
        |refusal| refusal.message,
    )
}

fn wanted(request: &PullRequest) -> Result<Request<Body>> {
    // Names of images have no character that a URL would have another meaning for; see `check_image`.
    let uri = format!("/images/create?fromImage={}", exact(&request.image));
    let mut wanted = Request::post(uri).header(header::HOST, "docker");
    if let Some(credentials) = &request.credentials {
        wanted = wanted.header("X-Registry-Auth", proof(credentials)?);
    }
    wanted.body(Body::empty()).map_err(unwritable)
}

fn unwritable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    own(ErrorKind::Internal, "the pull can't be asked for").with_source(source)
}

/// Without a tag docker would pull all that there are.
fn exact(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        return image.to_owned();
    }
    format!("{image}:latest")
}

/// Credentials as engines read them.
fn proof(credentials: &RegistryCredentials) -> Result<HeaderValue> {
    #[derive(Default, Serialize)]
    struct Proof<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        username: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        password: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        identitytoken: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        registrytoken: &'a str,
    }
    let mut proof = Proof::default();
    match credentials {
        RegistryCredentials::Password { username, password } => {
            (proof.username, proof.password) = (username, password);
        }
        RegistryCredentials::IdentityToken(token) => proof.identitytoken = token,
        RegistryCredentials::RegistryToken(token) => proof.registrytoken = token,
        _ => {
            let message = "the engine knows no such credentials";
            return Err(own(ErrorKind::Unsupported, message));
        }
    }
    let proof = serde_json::to_vec(&proof).map_err(unwritable)?;
    let mut value = HeaderValue::try_from(BASE64_URL_SAFE.encode(proof)).map_err(unwritable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, wanted) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("localhost:5000/web:2", "localhost:5000/web:2"),
            ("web@sha256:00", "web@sha256:00"),
        ] {
            assert_eq!(exact(image), wanted);
        }
    }

    #[test]
    fn credentials_are_in_the_alphabet_of_urls_and_shown_to_nobody() {
        for password in ["~~~", "???", ">>>", "ÿÿÿ"] {
            let credentials = RegistryCredentials::password("jane", password);
            let value = proof(&credentials).unwrap();
            let text = value.to_str().unwrap();
            assert!(!text.contains(['+', '/']), "{text}");
            let read = BASE64_URL_SAFE.decode(text).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
            assert_eq!(read["password"], password);
            let request = PullRequest::new("web").credentials(Some(credentials));
            let shown = format!("{:?}", wanted(&request).unwrap());
            assert!(!shown.contains(text), "{shown}");
        }
        let token = RegistryCredentials::IdentityToken("abc".to_owned());
        let read = BASE64_URL_SAFE.decode(proof(&token).unwrap()).unwrap();
        assert_eq!(read, br#"{"identitytoken":"abc"}"#);
    }

    #[test]
    fn a_refusal_is_said_in_any_form() {
        for (body, wanted) in [
            (r#"{"message":"manifest unknown"}"#, "manifest unknown"),
            (r#"{"cause":"x","message":"y","response":500}"#, "y"),
            ("Bad Gateway", "Bad Gateway"),
            ("", ""),
        ] {
            assert_eq!(words(&Bytes::from(body)), wanted);
        }
    }
}
