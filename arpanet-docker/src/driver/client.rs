//! Asking who answers at a socket.

use std::io;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::protocol::CONTENT_TYPE;

/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) known: bool,
    pub(super) body: Vec<u8>,
}

/// Somebody who has accepted, or will.
#[derive(Debug)]
pub(super) struct Connected(UnixStream);

pub(super) async fn connect(socket: &Path) -> io::Result<Connected> {
    UnixStream::connect(socket).await.map(Connected)
}

/// Connects and asks one thing.
pub(super) async fn post(socket: &Path, method: &str, body: &[u8]) -> io::Result<Reply> {
    connect(socket).await?.post(method, body).await
}

impl Connected {
    pub(super) async fn post(self, method: &str, body: &[u8]) -> io::Result<Reply> {
        let request = Request::post(format!("/{method}"))
            .header(header::HOST, "arpanet")
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(Body::from(body.to_vec()))
            .map_err(io::Error::other)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.0))
            .await
            .map_err(io::Error::other)?;
        let answering = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            let status = answer.status();
            let body = to_bytes(Body::new(answer.into_body()), LONGEST)
                .await
                .map_err(io::Error::other)?;
            match status {
                StatusCode::OK | StatusCode::NOT_FOUND => Ok(Reply {
                    known: status == StatusCode::OK,
                    body: body.to_vec(),
                }),
                status => Err(io::Error::other(status.to_string())),
            }
        };
        let connection = async {
            let _ = connection.await;
            // Its end is seen by who waits for the answer.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answering => answer,
            () = connection => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}
