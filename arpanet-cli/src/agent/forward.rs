//! A port of this host's loopback that leads to a part of the node.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{Transport, holder_of_port};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

use super::datagrams;

/// Between two tries to take a connection while this process has no files left.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands on every connection as it is, both ways, until each side has ended; or every datagram, and what is answered to it.
#[derive(Debug)]
pub(crate) struct Forward {
    transport: Transport,
    from: SocketAddr,
    to: SocketAddr,
    task: Mutex<Option<AbortHandle>>,
}

impl Forward {
    /// From an address of this host to another. Nothing listens yet.
    pub(crate) fn new(transport: Transport, from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            transport,
            from,
            to,
            task: Mutex::default(),
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens from now on. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] names who has the port.
    pub(crate) async fn start(&self) -> Result<()> {
        if self.task().is_some() {
            return Ok(());
        }
        let (from, to) = (self.from, self.to);
        let task = match self.transport {
            Transport::Udp => UdpSocket::bind(from)
                .await
                .map(|socket| tokio::spawn(datagrams::serve(socket, to))),
            _ => TcpListener::bind(from)
                .await
                .map(|listener| tokio::spawn(serve(listener, to))),
        };
        let task = task.map_err(|source| {
            let holder = holder_of_port(self.transport, from.port());
            let message = match holder {
                Some(holder) => format!("{} {from} is in use by {holder}", self.transport),
                None => format!("nothing can listen on {} {from}", self.transport),
            };
            Error::new(ErrorKind::Conflict, message).with_source(source)
        })?;
        *self.task() = Some(task.abort_handle());
        Ok(())
    }

    /// Listens no more, and ends what is under way. A second call does nothing.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream, to));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    // Out of files, as a rule, until some end.
                    if connections.join_next().await.is_none() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut from: TcpStream, to: SocketAddr) {
    let carried = async {
        let mut to = TcpStream::connect(to).await?;
        copy_bidirectional(&mut from, &mut to).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, %to, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn carries_both_ways_with_the_end_of_each_and_stops() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward = Forward::new(Transport::Tcp, free().await, server.local_addr().unwrap());
        forward.start().await.unwrap();
        forward.start().await.unwrap();
        let mut client = TcpStream::connect(forward.from).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut heard = Vec::new();
        served.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        served.write_all(b"answer").await.unwrap();
        drop(served);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");

        let other = Forward::new(Transport::Tcp, forward.from, forward.to);
        let refused = other.start().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let port = forward.from.port().to_string();
        assert!(refused.to_string().contains(&port), "{refused}");
        forward.stop();
        forward.stop();
        let again = async {
            while other.start().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), again)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_port_for_datagrams_is_another_than_one_for_connections() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let from = free().await;
        let _taken = TcpListener::bind(from).await.unwrap();
        let forward = Forward::new(Transport::Udp, from, server.local_addr().unwrap());
        forward.start().await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"question", from).await.unwrap();
        let mut heard = [0; 64];
        let (length, _) = server.recv_from(&mut heard).await.unwrap();
        assert_eq!(&heard[..length], b"question");
        let other = Forward::new(Transport::Udp, from, forward.to);
        let refused = other.start().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("udp"), "{refused}");
    }
}
