//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::creation;
use super::head::{self, Parsed};
use super::requests::Requests;
use super::server::Serving;
use super::{ContainerDns, DockerApiConfig};
use crate::DockerConfig;

/// What clients of the docker API send: where requests end, and what creates a container.
pub fn docker_requests(sent: &[u8]) {
    if let Some((cut, bytes)) = sent.split_first() {
        requests(bytes, usize::from(*cut));
        creation(bytes, cut % 2 == 0);
    }
}

/// A client's bytes on their way to the engine: where a request ends does not depend on how they were cut.
fn requests(bytes: &[u8], cut: usize) {
    if let Parsed::Head(head) = head::parse(bytes) {
        let told = &bytes[..head.length];
        for length in [None, Some(7)] {
            let again = head::reframed(told, length);
            let Parsed::Head(new) = head::parse(&again) else {
                panic!("a head that was framed anew is none");
            };
            assert_eq!((new.length, new.purpose), (again.len(), head.purpose));
        }
    }
    let pieces = cut.max(1);
    let [whole, pieces] = [bytes.len().max(1), pieces].map(|cut| forwarded(bytes, cut));
    assert_eq!(whole, pieces);
}

/// What an engine gets of a client's bytes that come in pieces.
fn forwarded(bytes: &[u8], cut: usize) -> Vec<u8> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    let engine = DockerConfig::default().socket("/nonexistent");
    let dns = ContainerDns::default().attached([Ipv4Addr::new(169, 254, 1, 1)]);
    let serving = Serving::new(DockerApiConfig::new(&engine), dns);
    let mut got = Vec::new();
    let client = Pieces { bytes, cut };
    // Whatever came before a client broke off has been handed on.
    let _ = RUNTIME
        .with(|runtime| runtime.block_on(Requests::new(client, &mut got, &serving).forward()));
    got
}

/// Bytes of which only so many come at once.
struct Pieces<'a> {
    bytes: &'a [u8],
    cut: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.cut.min(into.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        into.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// What a client sends to create a container: nothing but its DNS changes.
fn creation(bytes: &[u8], on_overlay: bool) {
    let _ = creation::is_detached(bytes);
    let Some(body) = creation::read(bytes) else {
        return;
    };
    let _ = creation::network(&body);
    let dns = ContainerDns::default();
    if let Some(changed) = creation::with_dns(body.clone(), on_overlay, &dns) {
        let mut changed = creation::read(&changed).unwrap();
        let mut body = body;
        for body in [&mut body, &mut changed] {
            body.retain(|key, _| !key.eq_ignore_ascii_case("HostConfig"));
        }
        assert_eq!(body, changed);
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn any_bytes_of_a_client_end_where_they_end() {
        hold(seeds("docker_requests"), 2_000, super::docker_requests);
    }
}
