//! From the client to the engine.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::chunked::Chunked;
use super::creation;
use super::head::{self, Body, Head, Parsed, Purpose};
use super::network;
use super::server::Serving;

/// How much is read at once.
pub(super) const PIECE: usize = 128 << 10;

/// A body that says what to create or to run is not longer; one that is goes by unread.
const LONGEST_BODY: u64 = 4 << 20;

/// Which side is gone.
#[derive(Debug)]
pub(super) enum Broken {
    Client(io::Error),
    Engine,
}

/// What comes from the client, on its way to the engine.
pub(super) struct Requests<'a, R, W> {
    client: R,
    engine: W,
    serving: &'a Serving,
    buffer: BytesMut,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Requests<'a, R, W> {
    pub(super) fn new(client: R, engine: W, serving: &'a Serving) -> Self {
        Self {
            client,
            engine,
            serving,
            buffer: BytesMut::with_capacity(PIECE),
        }
    }

    /// Hands everything on, until the client has nothing more to say; then the engine is told so.
    pub(super) async fn forward(mut self) -> Result<(), Broken> {
        while let Some(head) = self.head().await? {
            let goes_on = match head.purpose {
                Purpose::Other => self.pass(head).await?,
                Purpose::Creation | Purpose::Exec => self.look_into(head).await?,
                Purpose::Upgrade => false,
            };
            if !goes_on {
                break;
            }
        }
        // No request follows that could be understood: an upgraded stream, or the end.
        loop {
            self.write_buffer().await?;
            if !self.fill().await? {
                return self.engine.shutdown().await.map_err(|_| Broken::Engine);
            }
        }
    }

    /// The next head, which stays in the buffer. `None` where there is none.
    async fn head(&mut self) -> Result<Option<Head>, Broken> {
        loop {
            match head::parse(&self.buffer) {
                Parsed::Head(head) => return Ok(Some(head)),
                Parsed::Foreign => return Ok(None),
                Parsed::Partial if self.fill().await? => {}
                Parsed::Partial => return Ok(None),
            }
        }
    }

    /// Hands a request on as it is. Answers whether another may follow.
    async fn pass(&mut self, head: Head) -> Result<bool, Broken> {
        match head.body {
            Body::Sized(length) => {
                let mut left = length.saturating_add(head.length as u64);
                loop {
                    let here = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(self.buffer.len());
                    self.write_first(here).await?;
                    left -= here as u64;
                    if left == 0 {
                        return Ok(true);
                    }
                    if !self.fill().await? {
                        return Ok(false);
                    }
                }
            }
            Body::Chunked => {
                self.write_first(head.length).await?;
                self.pass_chunks(Chunked::new()).await
            }
        }
    }

    /// Hands on what is left of a body in chunks.
    async fn pass_chunks(&mut self, mut body: Chunked) -> Result<bool, Broken> {
        loop {
            let Ok(here) = body.take(&self.buffer, |_| ()) else {
                return Ok(false);
            };
            self.write_first(here).await?;
            if body.is_done() {
                return Ok(true);
            }
            if !self.fill().await? {
                return Ok(false);
            }
        }
    }

    /// Hands on a request whose body is read first. A client that waits for the engine's word before it sends the body
    /// gets it: then the head goes ahead, and the body follows in one chunk, whatever its length will be.
    async fn look_into(&mut self, head: Head) -> Result<bool, Broken> {
        let chunked = head.body == Body::Chunked;
        if matches!(head.body, Body::Sized(length) if length > LONGEST_BODY) {
            return self.pass(head).await;
        }
        let ahead = chunked || head.expects;
        let old = self.buffer.split_to(head.length);
        if ahead && !chunked {
            let reframed = head::reframed(&old, None);
            self.write(&reframed).await?;
        } else if ahead {
            self.write(&old).await?;
        }
        let Some((body, raw)) = self.body(head.body).await? else {
            if chunked {
                return self.pass_chunks(Chunked::new()).await;
            }
            if !ahead {
                self.write(&old).await?;
            }
            return Ok(false);
        };
        let (changed, goes_on) = match head.purpose {
            Purpose::Creation => (self.with_dns(&body).await, true),
            _ => (None, creation::is_detached(&body)),
        };
        let message = match (changed, ahead) {
            (Some(new), false) => [head::reframed(&old, Some(new.len())), new].concat(),
            (None, false) => [old, raw].concat(),
            (None, true) if chunked => raw.to_vec(),
            (changed, true) => in_one_chunk(&changed.unwrap_or(body)),
        };
        self.write(&message).await?;
        Ok(goes_on)
    }

    /// The body of a creation with the cluster's DNS; `None` where it stays as it is.
    async fn with_dns(&self, body: &[u8]) -> Option<Vec<u8>> {
        let body = creation::read(body)?;
        let on_overlay = match creation::network(&body) {
            Some(name) => network::is_on_overlay(&self.serving.config.engine, name).await,
            None => false,
        };
        creation::with_dns(body, on_overlay, &self.serving.dns())
    }

    /// Reads a body whole: its data, and the bytes that it came in. `None` where it is too long, ends early, or is none:
    /// then what was read stays in the buffer.
    async fn body(&mut self, framing: Body) -> Result<Option<(Vec<u8>, BytesMut)>, Broken> {
        let (mut chunks, mut data, mut seen) = (Chunked::new(), Vec::new(), 0);
        loop {
            let end = match framing {
                Body::Sized(length) => usize::try_from(length)
                    .ok()
                    .filter(|end| *end <= self.buffer.len()),
                Body::Chunked => {
                    let new = &self.buffer[seen..];
                    match chunks.take(new, |part| data.extend_from_slice(part)) {
                        Ok(taken) => seen += taken,
                        Err(_) => return Ok(None),
                    }
                    chunks.is_done().then_some(seen)
                }
            };
            if let Some(end) = end {
                let raw = self.buffer.split_to(end);
                if framing != Body::Chunked {
                    data = raw.to_vec();
                }
                return Ok(Some((data, raw)));
            }
            if self.buffer.len() as u64 > 2 * LONGEST_BODY || !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads more. Answers whether there was any.
    async fn fill(&mut self) -> Result<bool, Broken> {
        self.buffer.reserve(PIECE);
        let read = self.client.read_buf(&mut self.buffer).await;
        read.map(|count| count > 0).map_err(Broken::Client)
    }

    async fn write_buffer(&mut self) -> Result<(), Broken> {
        self.write_first(self.buffer.len()).await
    }

    async fn write_first(&mut self, count: usize) -> Result<(), Broken> {
        let written = self.engine.write_all(&self.buffer[..count]).await;
        self.buffer.advance(count);
        written.map_err(|_| Broken::Engine)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.engine
            .write_all(bytes)
            .await
            .map_err(|_| Broken::Engine)
    }
}

fn in_one_chunk(body: &[u8]) -> Vec<u8> {
    if body.is_empty() {
        return b"0\r\n\r\n".to_vec();
    }
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DockerConfig;
    use crate::api::{ContainerDns, DockerApiConfig};

    /// The sum of head and body would be a small number again, and what follows be taken for another request.
    #[tokio::test]
    async fn a_body_of_any_length_ends_where_its_head_says() {
        let config = DockerApiConfig::new(&DockerConfig::default());
        let serving = Serving::new(config, ContainerDns::default());
        let head = format!(
            "POST /build HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            u64::MAX
        );
        let sent = [head.as_bytes(), &[b'x'; 1_000]].concat();
        let mut got = Vec::new();
        let requests = Requests::new(&sent[..], &mut got, &serving);
        requests.forward().await.unwrap();
        assert_eq!(got, sent);
    }
}
