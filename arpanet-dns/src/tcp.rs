//! Questions by stream: for answers that fit no datagram.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::answering::{Answered, Shared};
use crate::quick::Scratch;
use crate::udp::source;
use crate::upstream::By;

/// Connections at once on one socket.
const CONNECTIONS: usize = 128;
/// How long a connection may say nothing, or not take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers what comes in on a socket until it is aborted; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // With no seat left, others wait in the kernel's queue.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let _seat = seat;
                    if let Err(error) = converse(stream, source(peer.ip()), &shared).await {
                        tracing::trace!(%error, %peer, "a DNS connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a DNS connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(
    mut stream: TcpStream,
    from: Option<std::net::Ipv4Addr>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut message = Vec::new();
    let mut scratch = Scratch::default();
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            message.resize(usize::from(length), 0);
            stream.read_exact(&mut message).await
        };
        timeout(PATIENCE, read).await??;
        let answer = match shared.answer(&message, from, By::Stream, &mut scratch) {
            Answered::Now => std::mem::take(&mut scratch.answer),
            Answered::Never => return Ok(()),
            Answered::Later { query, whom, .. } => {
                shared.elsewhere(&message, &query, By::Stream, whom).await
            }
        };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        let mut framed = Vec::with_capacity(2 + answer.len());
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}
