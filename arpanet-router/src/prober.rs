//! What asks this node's containers over the network: connections from the router, where every attached container
//! answers, and no route of the overlay or of the host is in the way.

use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use arpanet_core::addr::ROUTER_ADDRESS;
use arpanet_core::health::{HttpAnswer, Prober};
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long a body may take once the head is there: it is read only so that a failure has a reason.
const BODY: Duration = Duration::from_millis(500);

/// [`Prober`] from 169.254.1.1, in a router's namespace.
pub struct RouterProber {
    router: Box<dyn Fn() -> BoxFuture<'static, Result<Namespace>> + Send + Sync>,
}

impl fmt::Debug for RouterProber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterProber").finish_non_exhaustive()
    }
}

impl RouterProber {
    /// Asks from the namespace that `router` answers with, each time anew: there is none before an overlay is launched.
    pub fn new<F, A>(router: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Namespace>> + Send + 'static,
    {
        Self {
            router: Box::new(move || Box::pin(router())),
        }
    }

    async fn open(&self, to: SocketAddrV4) -> Result<TcpStream> {
        let router = (self.router)().await?;
        // A socket belongs to the namespace that it was made in.
        let made = router.run(|| {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((ROUTER_ADDRESS, 0)))?;
            Ok(socket)
        })?;
        let connected = match made {
            Ok(socket) => socket.connect(to.into()).await,
            Err(error) => Err(error),
        };
        connected.map_err(|source: io::Error| {
            let message = format!("{to} can't be reached");
            Error::new(ErrorKind::Unavailable, message).with_source(source)
        })
    }
}

#[async_trait]
impl Prober for RouterProber {
    fn name(&self) -> &'static str {
        "router"
    }

    async fn connect(&self, to: SocketAddrV4) -> Result<()> {
        self.open(to).await.map(drop)
    }

    async fn get(&self, to: SocketAddrV4, path: &str) -> Result<HttpAnswer> {
        get(self.open(to).await?, to, path).await
    }
}

fn no_http(to: SocketAddrV4, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let message = format!("{to} does not answer over http");
    Error::new(ErrorKind::Unavailable, message).with_source(source)
}

async fn get(stream: TcpStream, to: SocketAddrV4, path: &str) -> Result<HttpAnswer> {
    let request = Request::get(path)
        .header(header::HOST, to.to_string())
        .header(
            header::USER_AGENT,
            concat!("arpanet2/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|source| no_http(to, source))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| no_http(to, source))?;
    let answering = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|source| no_http(to, source))?;
        let status = answer.status().as_u16();
        let body = beginning(answer.into_body()).await;
        Ok(HttpAnswer::new(status, body))
    };
    let connection = async {
        let _ = connection.await;
        // Its end is seen by who waits for the answer.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answering => answer,
        () = connection => Err(no_http(to, io::Error::from(io::ErrorKind::ConnectionReset))),
    }
}

/// As much of a body as is told, and comes soon. One that breaks off is as good as one that ends.
async fn beginning(mut body: Incoming) -> Bytes {
    let mut read = BytesMut::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let piece = frame.into_data().unwrap_or_default();
            let room = HttpAnswer::BODY.saturating_sub(read.len());
            read.extend(piece.into_iter().take(room));
            if read.len() >= HttpAnswer::BODY {
                return;
            }
        }
    };
    // Whatever came until then.
    let _ = timeout(BODY, reading).await;
    read.freeze()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is read of a server that reads a whole request and answers this. And the request.
    async fn ask(path: &str, answer: &'static [u8], ends: bool) -> (Result<HttpAnswer>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let SocketAddr::V4(to) = listener.local_addr().unwrap() else {
            unreachable!("it was bound to one");
        };
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // Whoever asks may have seen enough.
            let _ = stream.write_all(answer).await;
            let stream = (!ends).then_some(stream);
            (String::from_utf8(request).unwrap(), stream)
        };
        let asking = async {
            let stream = TcpStream::connect(to).await.unwrap();
            get(stream, to, path).await
        };
        let (answered, (request, _stream)) = tokio::join!(asking, serving);
        (answered, request)
    }

    #[tokio::test]
    async fn one_request_one_answer_with_the_beginning_of_its_body() {
        let (answer, request) = ask(
            "/health?deep=1",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
            true,
        )
        .await;
        assert_eq!(answer.unwrap(), HttpAnswer::new(503, "no"));
        assert!(
            request.starts_with("GET /health?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{request}"
        );
        // As busybox's httpd answers.
        let (answer, _) = ask("/", b"HTTP/1.0 404 Not Found\r\n\r\ngone", true).await;
        assert_eq!(answer.unwrap(), HttpAnswer::new(404, "gone"));
    }

    #[tokio::test]
    async fn a_body_without_end_is_read_in_bounds() {
        static ENDLESS: [u8; 100_000] = {
            let mut bytes = [b'x'; 100_000];
            let head = b"HTTP/1.1 200 OK\r\n\r\n";
            let mut at = 0;
            while at < head.len() {
                bytes[at] = head[at];
                at += 1;
            }
            bytes
        };
        let (answer, _) = ask("/", &ENDLESS, false).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, HttpAnswer::BODY));
        // Promised, and never sent: the status stands.
        let promised = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwell";
        let (answer, _) = ask("/", promised, false).await;
        assert_eq!(answer.unwrap(), HttpAnswer::new(200, "well"));
    }

    #[tokio::test]
    async fn what_is_no_http_is_told_as_that() {
        for (bytes, ends) in [(&b"SSH-2.0-x\r\n\r\n"[..], false), (b"", true)] {
            let (answer, _) = ask("/", bytes, ends).await;
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("does not answer over http"));
        }
    }
}
