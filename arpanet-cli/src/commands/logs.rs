//! `arpanet2 logs NAME`

use std::io::Write;

use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use clap::Args;
use futures_util::TryStreamExt;
use reqwest::Method;
use tokio_util::io::StreamReader;

use super::Context;
use crate::agent::frames::{self, Kind};
use crate::agent::streams::LogQuery;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// And what comes
    #[arg(short, long)]
    follow: bool,
    /// Only what was written in the last seconds
    #[arg(long, value_name = "SECONDS")]
    since: Option<u64>,
    /// The container
    name: ContainerName,
}

pub(crate) async fn run(context: &Context, args: &LogsArgs) -> Result<()> {
    let agent = context.agent()?;
    let query = LogQuery {
        tail: args.tail,
        follow: args.follow,
        since: args.since,
    };
    let request = agent
        .request(Method::GET, &format!("/v1/containers/{}/logs", args.name))
        .query(&query);
    let body = agent
        .send(request)
        .await?
        .bytes_stream()
        .map_err(std::io::Error::other);
    let mut body = StreamReader::new(body);
    while let Some((kind, payload)) = frames::read(&mut body).await? {
        write(kind, &payload)?;
    }
    Ok(())
}

/// Writes a piece of a container's output to the stream it came from.
pub(super) fn write(kind: Kind, payload: &[u8]) -> Result<()> {
    let outcome = match kind {
        Kind::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(payload).and_then(|()| out.flush())
        }
        Kind::Stderr => std::io::stderr().lock().write_all(payload),
        _ => Ok(()),
    };
    outcome.map_err(|source| {
        Error::new(ErrorKind::Internal, "the output can't be written").with_source(source)
    })
}
