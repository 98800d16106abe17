//! Runs an [`Engine`] over a transport: the clock, the datagrams, and the callers that wait.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::{Engine, Event, Outcome, Ticket};

/// Datagrams that are taken in before others get a turn.
const BATCH: usize = 64;

/// What a driver tells its owner, in order.
#[derive(Debug)]
pub(crate) enum News {
    /// Something happened in the engine.
    Event(Event),
    /// The transport is closed: nothing will happen any more.
    Lost,
}

/// What is told the news. It must not block and not call the driver.
pub(crate) type Sink = Box<dyn FnMut(News) + Send>;

type Received = Result<(Bytes, SocketAddr)>;
type Receiving<'a> = Pin<Box<dyn Future<Output = Received> + Send + 'a>>;

/// A running engine. Dropping it stops it without a word.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    begin: Instant,
    woken: Notify,
}

struct Inner {
    engine: Engine,
    waiting: HashMap<Ticket, oneshot::Sender<Outcome>>,
    /// `None` once it is closed.
    sink: Option<Sink>,
    /// Ends when all is sent.
    finishing: bool,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Makes an engine at the driver's time zero and runs it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn spawn(
        transport: Arc<dyn Datagrams>,
        sink: Sink,
        make: impl FnOnce(Duration) -> Result<Engine>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                engine: make(Duration::ZERO)?,
                waiting: HashMap::new(),
                sink: Some(sink),
                finishing: false,
            }),
            begin: Instant::now(),
            woken: Notify::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared), transport));
        Ok(Self {
            shared,
            task: Mutex::new(Some(task)),
        })
    }

    /// Calls the engine.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) once it is stopped or its transport is closed.
    pub(crate) fn call<R>(&self, act: impl FnOnce(&mut Engine, Duration) -> R) -> Result<R> {
        let mut inner = self.shared.lock();
        if inner.sink.is_none() {
            return Err(closed());
        }
        let result = act(&mut inner.engine, self.shared.now());
        inner.tell();
        drop(inner);
        self.shared.woken.notify_one();
        Ok(result)
    }

    /// Calls the engine and waits until what was started has ended. Dropping the future only ends the waiting.
    ///
    /// # Errors
    /// Those of `act`, and as [`call`](Self::call).
    pub(crate) async fn settle(
        &self,
        act: impl FnOnce(&mut Engine, Duration) -> Result<Ticket>,
    ) -> Result<Outcome> {
        let ended = {
            let mut inner = self.shared.lock();
            if inner.sink.is_none() {
                return Err(closed());
            }
            let ticket = act(&mut inner.engine, self.shared.now())?;
            let (sender, receiver) = oneshot::channel();
            inner.waiting.retain(|_, waiting| !waiting.is_closed());
            inner.waiting.insert(ticket, sender);
            inner.tell();
            receiver
        };
        self.shared.woken.notify_one();
        ended.await.map_err(|_| closed())
    }

    /// Waits until everything that the engine wants sent is handed to the transport, and stops. A second call does
    /// nothing.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.shared.lock().finishing = true;
        self.shared.woken.notify_one();
        let task = self.take_task();
        if let Some(mut task) = task
            && tokio::time::timeout(limit, &mut task).await.is_err()
        {
            task.abort();
        }
        self.shared.lock().close();
    }

    /// Stops without a word: when it returns, the transport is no longer used. A second call does nothing.
    pub(crate) async fn stop(&self) {
        let task = self.take_task();
        self.shared.lock().close();
        if let Some(task) = task {
            task.abort();
            // What it ended with is of no interest.
            let _ = task.await;
        }
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.take()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = self.take_task() {
            task.abort();
        }
        self.shared.lock().close();
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "gossip does not run any more")
}

impl Shared {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// No code panics halfway through a change of what the lock guards.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, datagram: &[u8], from: SocketAddr) {
        let mut inner = self.lock();
        inner.engine.handle_datagram(self.now(), from, datagram);
        inner.tell();
    }

    /// Does what is due. When the next is, and whether this goes on.
    fn advance(&self) -> (Option<Duration>, bool) {
        let mut inner = self.lock();
        let now = self.now();
        if inner.engine.next_deadline().is_some_and(|due| due <= now) {
            inner.engine.handle_timer(now);
        }
        inner.tell();
        (inner.engine.next_deadline(), !inner.finishing)
    }

    fn lose_transport(&self, error: &Error) {
        let mut inner = self.lock();
        if let Some(sink) = &mut inner.sink {
            tracing::warn!(%error, "gossip has lost its transport");
            sink(News::Lost);
        }
        inner.close();
    }
}

impl Inner {
    /// Hands on what has happened.
    fn tell(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Settled { ticket, outcome } => {
                    if let Some(waiting) = self.waiting.remove(&ticket) {
                        // Whoever has stopped waiting misses nothing.
                        let _ = waiting.send(outcome);
                    }
                }
                event => {
                    if let Some(sink) = &mut self.sink {
                        sink(News::Event(event));
                    }
                }
            }
        }
    }

    fn close(&mut self) {
        self.sink = None;
        self.waiting.clear();
    }
}

async fn run(shared: Arc<Shared>, transport: Arc<dyn Datagrams>) {
    let mut receiving = transport.recv();
    loop {
        let (due, goes_on) = shared.advance();
        send_all(&shared, &*transport).await;
        if !goes_on {
            return;
        }
        let received = tokio::select! {
            biased;
            received = &mut receiving => received,
            () = shared.woken.notified() => continue,
            () = wait_until(shared.begin, due) => continue,
        };
        if let Err(error) = take_batch(&shared, &*transport, &mut receiving, received).await {
            return shared.lose_transport(&error);
        }
    }
}

/// Takes in one datagram and those that are there already.
async fn take_batch<'a>(
    shared: &Shared,
    transport: &'a dyn Datagrams,
    receiving: &mut Receiving<'a>,
    first: Received,
) -> Result<()> {
    let mut received = first;
    for _ in 0..BATCH {
        let (datagram, from) = received?;
        shared.take_in(&datagram, from);
        *receiving = transport.recv();
        match poll_once(receiving).await {
            Some(next) => received = next,
            None => return Ok(()),
        }
    }
    // The last one's future is done, so it can't wait for another turn.
    let (datagram, from) = received?;
    shared.take_in(&datagram, from);
    *receiving = transport.recv();
    Ok(())
}

/// Polls once; `None` when it would wait.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

async fn send_all(shared: &Shared, transport: &dyn Datagrams) {
    loop {
        let transmit = shared.lock().engine.poll_transmit();
        let Some(transmit) = transmit else {
            return;
        };
        if let Err(error) = transport.send(&transmit.datagram, transmit.to).await {
            // As if it had got lost on the way.
            tracing::trace!(%error, to = %transmit.to, "a datagram was not sent");
        }
    }
}

async fn wait_until(begin: Instant, due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep_until(begin + due).await,
        None => std::future::pending().await,
    }
}
