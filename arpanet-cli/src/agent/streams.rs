//! Logs and exec: bodies and upgraded connections of frames.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use arpanet_core::runtime::{
    Exec, ExecInput, ExecOutput, ExecSpec, LogOptions, Output, OutputStream,
};
use arpanet_core::{ContainerName, Error, ErrorKind};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::api::{ApiError, Context};
use super::frames::{self, Kind};

/// The protocol that exec upgrades to.
pub(crate) const UPGRADE: &str = "arpanet2-frames";

/// The header that carries an [`ExecSpec`].
pub(crate) const EXEC_HEADER: &str = "arpanet2-exec";

/// Which part of the logs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LogQuery {
    pub(crate) tail: Option<usize>,
    #[serde(default)]
    pub(crate) follow: bool,
    /// Seconds back from now.
    pub(crate) since: Option<u64>,
}

fn frame(output: &Output) -> Bytes {
    let kind = match output.stream {
        OutputStream::Stderr => Kind::Stderr,
        _ => Kind::Stdout,
    };
    frames::encode(kind, &output.bytes)
}

pub(super) async fn logs(
    State(context): State<Context>,
    Path(name): Path<ContainerName>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let mut options = LogOptions::all();
    options.tail = query.tail;
    options.follow = query.follow;
    options.since = query
        .since
        .and_then(|seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds)));
    let output = context.cluster.runtime()?.logs(&name, options).await?;
    let frames = stream::unfold(output, async |mut output| {
        let piece = output.recv().await?;
        Some((Ok::<_, Infallible>(frame(&piece)), output))
    });
    Ok(Body::from_stream(Box::pin(frames)).into_response())
}

pub(super) async fn exec(
    State(context): State<Context>,
    Path(name): Path<ContainerName>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let spec: ExecSpec = request
        .headers()
        .get(EXEC_HEADER)
        .and_then(|value| serde_json::from_slice(value.as_bytes()).ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the header {EXEC_HEADER} is missing or can't be read"),
            )
        })?;
    let exec = context.cluster.runtime()?.exec(&name, &spec).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(TokioIo::new(stream));
                carry(exec, reader, writer).await;
            }
            // Dropping the command ends it.
            Err(error) => tracing::debug!(%error, "a client went away before its command began"),
        }
    });
    Ok((
        StatusCode::SWITCHING_PROTOCOLS,
        [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)],
    )
        .into_response())
}

/// Carries both directions until the command ends or the client goes away.
async fn carry(
    exec: Exec,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) {
    let Exec {
        input, mut output, ..
    } = exec;
    let upstream = async {
        let mut input = Some(input);
        while let Ok(Some((kind, payload))) = frames::read(&mut reader).await {
            let message = match (kind, &payload[..]) {
                (Kind::Stdin, []) => {
                    input = None;
                    continue;
                }
                (Kind::Stdin, _) => ExecInput::Data(payload),
                (Kind::Resize, [a, b, c, d]) => {
                    ExecInput::Resize(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
                }
                _ => continue,
            };
            if let Some(input) = &input {
                // A command that reads no more is no reason to stop its output.
                let _ = input.send(message).await;
            }
        }
    };
    let downstream = async {
        while let Some(message) = output.recv().await {
            let frame = match message {
                ExecOutput::Output(output) => frame(&output),
                ExecOutput::Exited(code) => frames::encode(Kind::Exit, &code.to_be_bytes()),
                _ => continue,
            };
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::select! {
        () = downstream => {}
        () = upstream => {}
    }
}
