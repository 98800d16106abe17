//! A route netlink connection into one namespace, and the exchange that everything else is built on.

use std::io;
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::{Instant, sleep};

use crate::Namespace;
use crate::error::{own, system};

/// How often a dump is taken again that a change interrupted.
const DUMP_ATTEMPTS: usize = 8;
/// How long another dump may be in the way.
const IN_THE_WAY: Duration = Duration::from_secs(10);
/// How long to wait until it is tried again.
const PAUSE: Duration = Duration::from_millis(1);

/// The links, addresses, routes and rules of one network namespace.
///
/// Every verb is idempotent: adding what is there and removing what is not succeeds. Dropping a future leaves the
/// request either made or not made. Clones share one connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Netlink {
    namespace: Namespace,
    connection: ConnectionHandle<RouteNetlinkMessage>,
}

impl Namespace {
    /// Opens a connection inside the namespace. Needs a tokio runtime, on which the connection then runs.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] without CAP_SYS_ADMIN in the namespace.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn handle(&self) -> Result<Netlink> {
        let runtime = tokio::runtime::Handle::current();
        let socket = self
            .run(|| {
                let _context = runtime.enter();
                TokioSocket::new(NETLINK_ROUTE)
            })?
            .map_err(|error| system("open", "no netlink socket can be opened", error))?;
        let (mut worker, connection, _): (proto::Connection<_, TokioSocket>, _, _) =
            proto::from_socket_with_codec(socket);
        // Otherwise a request that was carried out and a connection that broke look the same.
        worker.set_forward_ack(true);
        worker.set_forward_done(true);
        tokio::spawn(worker);
        Ok(Netlink {
            namespace: self.clone(),
            connection,
        })
    }
}

impl Netlink {
    /// The namespace that this connection works in.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sends a request and waits until the kernel has carried it out.
    pub(crate) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags).await.map(drop)
    }

    /// Everything of one kind. Taken again if a change came in between.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let deadline = Instant::now() + IN_THE_WAY;
        let mut attempts = 0;
        while attempts < DUMP_ATTEMPTS {
            match self.exchange(message.clone(), NLM_F_DUMP).await {
                Ok((entries, false)) => return Ok(entries),
                Ok((_, true)) => attempts += 1,
                // One at a time on a socket, and somebody else's may not be read to its end yet, also if nobody waits for it
                // any more.
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    return Err(system("list", format!("the {what} can't be read"), error));
                }
            }
        }
        let message = format!("the {what} change faster than they can be read");
        Err(own("list", ErrorKind::Unavailable, message))
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
        what: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let answer = self.exchange(message, NLM_F_ACK).await;
        let (entries, _) =
            answer.map_err(|error| system("read", format!("the {what} can't be read"), error))?;
        Ok(entries)
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        let ended = || io::Error::other("the netlink connection has ended");
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self
            .connection
            .request(request, SocketAddr::new(0, 0))
            .map_err(|_| ended())?;
        let (mut entries, mut interrupted, mut complete) = (Vec::new(), false, false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.abs()));
                }
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => complete = true,
                NetlinkPayload::InnerMessage(entry) => entries.push(entry),
                _ => {}
            }
        }
        if complete {
            Ok((entries, interrupted))
        } else {
            Err(ended())
        }
    }
}
