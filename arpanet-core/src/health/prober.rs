//! Asking over the network.

use std::fmt;
use std::net::SocketAddrV4;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Result};

/// What a container answered to a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The beginning of the body, at most [`HttpAnswer::BODY`] bytes: what a user is told of a failure.
    pub body: Bytes,
}

impl HttpAnswer {
    /// How many bytes of a body are read: 4 KiB.
    pub const BODY: usize = 4 << 10;

    /// An answer; of a longer body the beginning.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let mut body: Bytes = body.into();
        body.truncate(Self::BODY);
        Self { status, body }
    }
}

/// Asks containers of this host over the network, from the address of the router, 169.254.1.1.
///
/// The contract, for every implementation:
/// - A question goes to this host's own container at that address, whatever the overlay is like.
/// - Dropping a call's future ends its connection.
/// - No call need limit its time: whoever asks drops the call when it has waited long enough.
/// - Calls do not wait for one another.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Prober: fmt::Debug + Send + Sync + 'static {
    /// Its name: `router`, `memory`.
    fn name(&self) -> &'static str;

    /// Makes a TCP connection, and closes it.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it is refused or there is no way there.
    async fn connect(&self, to: SocketAddrV4) -> Result<()> {
        let _ = to;
        Err(Error::unsupported(self.name(), "ask over tcp"))
    }

    /// Gets a path over HTTP/1.1. Redirects are answers like others. The answer is there once its head is, and as much of the
    /// body as comes soon.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when there is no connection, or something else than HTTP comes back.
    async fn get(&self, to: SocketAddrV4, path: &str) -> Result<HttpAnswer> {
        let _ = (to, path);
        Err(Error::unsupported(self.name(), "ask over http"))
    }
}
