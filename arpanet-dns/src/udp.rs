//! Questions by datagram.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;

use crate::answering::{Answered, Shared};
use crate::batch::Batch;
use crate::quick::Scratch;
use crate::upstream::{By, fit};

/// Batches that are answered before others get their turn.
const BATCHES: usize = 4;

/// Answers what comes in on a socket until it is aborted.
pub(crate) async fn serve(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut batch = Batch::new();
    let mut scratch = Scratch::default();
    loop {
        if let Err(error) = socket.readable().await {
            tracing::error!(%error, "a DNS socket failed");
            return;
        }
        for _ in 0..BATCHES {
            match batch.receive(&socket) {
                Ok(()) => answer(&socket, &shared, &mut batch, &mut scratch),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An earlier answer could not be delivered.
                Err(error) => tracing::trace!(%error, "receiving"),
            }
        }
    }
}

fn answer(socket: &Arc<UdpSocket>, shared: &Arc<Shared>, batch: &mut Batch, scratch: &mut Scratch) {
    for number in 0..batch.len() {
        let (message, from) = batch.question(number);
        match shared.answer(message, source(from.ip()), By::Datagram, scratch) {
            Answered::Now => batch.answer(&mut scratch.answer, from),
            Answered::Never => {}
            Answered::Later { query, limit, whom } => {
                let question = message.to_vec();
                let socket = Arc::clone(socket);
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    let answer = shared
                        .elsewhere(&question, &query, By::Datagram, whom)
                        .await;
                    send(&socket, &fit(answer, limit), from);
                });
            }
        }
    }
    batch.send(socket);
}

/// A full socket buffer loses the datagram, as every network may: whoever asked asks again.
fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.try_send_to(bytes, to) {
        tracing::trace!(%error, %to, "answering");
    }
}

/// The overlay address of whoever asks.
pub(crate) fn source(ip: IpAddr) -> Option<std::net::Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}
