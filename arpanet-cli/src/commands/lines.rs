//! Answers of the agent that go on, line by line.

use arpanet_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;

/// The lines of an answer.
pub(super) struct Lines(BufReader<StreamReader<BoxStream<'static, std::io::Result<Bytes>>, Bytes>>);

pub(super) fn of(response: Response) -> Lines {
    let body = response.bytes_stream().map_err(std::io::Error::other);
    Lines(BufReader::new(StreamReader::new(body.boxed())))
}

impl Lines {
    /// The next line; `None` at the end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.map_err(|source| {
            Error::new(ErrorKind::Unavailable, "the agent broke off").with_source(source)
        })?;
        if read == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).map_err(|source| {
            Error::new(ErrorKind::Incompatible, "the agent's answer can't be read")
                .with_hint("are the agent and this command of one version?")
                .with_source(source)
        })
    }
}
