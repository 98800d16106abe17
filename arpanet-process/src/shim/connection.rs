//! One agent's connection to a shim.

use std::io;
use std::sync::Arc;

use arpanet_core::runtime::{ContainerSpec, ContainerState, ExecSpec};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::launch::Namespaces;
use super::session;
use super::supervisor::Wish;
use crate::status::Status;
use crate::wire::{Answer, Cause, Frame, Refusal, Request, receive, send};

/// What a connection has to do with.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) orders: mpsc::Sender<Wish>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) growth: watch::Receiver<u64>,
    pub(super) namespaces: Namespaces,
    pub(super) spec: Arc<ContainerSpec>,
}

/// Answers one connection. An agent that is gone needs no answer.
pub(super) async fn answer(stream: UnixStream, desk: Desk) {
    let _ = Connection::new(stream, desk).serve().await;
}

struct Connection {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    desk: Desk,
}

impl Connection {
    fn new(stream: UnixStream, desk: Desk) -> Self {
        let (from, to) = stream.into_split();
        Self { from, to, desk }
    }

    async fn serve(mut self) -> io::Result<()> {
        let Some(frame) = receive(&mut self.from).await? else {
            return Ok(());
        };
        match frame.parse()? {
            Request::Start => {
                let refusal = self.start().await.err();
                self.reply(refusal).await
            }
            Request::Stop { grace } => {
                if self.state() != ContainerState::Created {
                    self.end(Wish::Stop(grace)).await;
                }
                self.reply(None).await
            }
            Request::Kill => {
                self.end(Wish::Kill).await;
                self.reply(None).await
            }
            Request::Follow => self.follow().await,
            Request::Growth => self.grow().await,
            Request::Exec(spec) => self.exec(&spec).await,
        }
    }

    fn state(&self) -> ContainerState {
        self.desk.status.borrow().state
    }

    async fn reply(&mut self, refusal: Option<Refusal>) -> io::Result<()> {
        let status = self.desk.status.borrow().clone();
        send(&mut self.to, &Frame::message(&Answer { status, refusal })?).await
    }

    async fn start(&self) -> Result<(), Refusal> {
        let (tell, told) = oneshot::channel();
        let gone = || Refusal::new(Cause::Unavailable, "the container has ended");
        let ordered = self.desk.orders.send(Wish::Start(tell)).await;
        ordered.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn end(&mut self, wish: Wish) {
        // Where nobody takes the order the container has ended.
        let _ = self.desk.orders.send(wish).await;
        let ended = |status: &Status| status.exited().is_some();
        let _ = self.desk.status.wait_for(ended).await;
    }

    async fn exec(mut self, spec: &ExecSpec) -> io::Result<()> {
        let session = if self.state() == ContainerState::Running {
            session::start(spec, &self.desk)
        } else {
            let message = "the container does not run";
            Err(Refusal::new(Cause::Unavailable, message))
        };
        match session {
            Ok(session) => {
                // Where nobody hears it, the session finds the agent gone, and ends.
                let _ = self.reply(None).await;
                session.run(self.from, self.to).await;
                Ok(())
            }
            Err(refusal) => self.reply(Some(refusal)).await,
        }
    }

    async fn follow(mut self) -> io::Result<()> {
        loop {
            let status = self.desk.status.borrow_and_update().clone();
            let ended = status.exited().is_some();
            send(&mut self.to, &Frame::message(&status)?).await?;
            if ended || !self.until(Changing::Status).await {
                return Ok(());
            }
        }
    }

    async fn grow(mut self) -> io::Result<()> {
        while self.until(Changing::Growth).await {
            send(&mut self.to, &Frame::Grown).await?;
        }
        // The last words.
        send(&mut self.to, &Frame::Grown).await
    }

    /// Whether there was a change, before the agent or the supervisor was gone.
    async fn until(&mut self, what: Changing) -> bool {
        let changing = async {
            match what {
                Changing::Status => self.desk.status.changed().await,
                Changing::Growth => self.desk.growth.changed().await,
            }
        };
        let mut nothing = [0];
        tokio::select! {
            changed = changing => changed.is_ok(),
            _ = self.from.read(&mut nothing) => false,
        }
    }
}

#[derive(Clone, Copy)]
enum Changing {
    Status,
    Growth,
}
