//! The process that owns the plugin's socket, and outlives the agent.
//!
//! An engine waits 45 s for a plugin that is not there: with each `docker rm`, each `docker network rm`, and its own start.
//! So the socket is not the agent's. A small process keeps it, which knows nothing and needs nothing:
//!
//! - What says what the driver is, it answers itself.
//! - All else it hands to the agent, at a socket of the agent's own.
//! - Where no agent is, what ends something (`Leave`, `DeleteEndpoint`, `ReleaseAddress`, `DeleteNetwork`) is written to a
//!   journal and succeeds: the agent does it first of all when it is back. A container can always be removed.
//! - What begins something waits for the agent for a while, and is refused then with what to do. A host that was rebooted
//!   has its `--restart=always` containers back so: the engine asks for them once, while the agent still comes up, and does
//!   not answer others until it is through. So an agent must be able to answer here before it is answered by the engine;
//!   and where none comes, an engine's start is held up once after a reboot, and by seconds from then on.
//!
//! It holds no state, so any version of it serves any version of the agent. A newer one takes the socket over by a rename,
//! and then ends the older one; an engine that asks meanwhile finds one or the other, and asks again where an answer is cut short.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::client::{self, Reply};
use super::journal::{Ended, Journal};
use super::{Answer, always, encode, protocol, refusal, server};

/// How long a request that ends something may keep a living agent busy, before it is put off.
const ENDING: Duration = Duration::from_secs(10);
/// How long what begins something waits for an agent that may only be restarting.
const RESTART: Duration = Duration::from_secs(5);
/// How often an agent that is not there is looked for.
const LOOKING: Duration = Duration::from_millis(50);

/// The version of the keepers that this program starts.
pub const KEEPER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The keeper's own methods, for the agent.
const HELLO: &str = "Arpanet.Hello";
const END: &str = "Arpanet.End";

/// Where a keeper keeps what.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeeperConfig {
    /// Where the engine looks for the plugin.
    pub socket: PathBuf,
    /// Where the agent answers.
    pub agent: PathBuf,
    /// What waits for the agent.
    pub journal: PathBuf,
    /// How long after the keeper's own start an agent may take to come up: what begins something waits for it until then.
    /// Later, it waits no longer than a restart takes, 5 s, or than this where that is less.
    pub patience: Duration,
    /// What it answers to [`hello`]: [`KEEPER_VERSION`] unless given.
    pub version: String,
}

impl KeeperConfig {
    /// With these files, and 40 s of patience: longer than an agent takes after a reboot, shorter than an engine's own.
    #[must_use]
    pub fn new(
        socket: impl Into<PathBuf>,
        agent: impl Into<PathBuf>,
        journal: impl Into<PathBuf>,
    ) -> Self {
        Self {
            socket: socket.into(),
            agent: agent.into(),
            journal: journal.into(),
            patience: Duration::from_secs(40),
            version: KEEPER_VERSION.to_owned(),
        }
    }

    /// With this version: one that tells builds apart, say.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// With this patience.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// A keeper, without its socket.
#[derive(Debug)]
pub(super) struct Keeper {
    config: KeeperConfig,
    began: Instant,
    end: Notify,
}

/// Keeps the socket until [`end`] tells it not to. `ready` is called once the socket is there.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when the socket can't be made.
pub async fn keep(config: KeeperConfig, ready: impl FnOnce()) -> Result<()> {
    // Connected while it still can be: whoever was there before is told to end when nobody finds it any more.
    let older = client::connect(&config.socket).await.ok();
    let listener = server::listen(&config.socket)?;
    let keeper = Arc::new(Keeper {
        config,
        began: Instant::now(),
        end: Notify::new(),
    });
    ready();
    if let Some(older) = older {
        tokio::spawn(async move {
            // One that is gone already is as good.
            let _ = timeout(ENDING, older.post(END, b"{}")).await;
        });
    }
    let answering = server::serve(listener, {
        let keeper = Arc::clone(&keeper);
        move |method, body| {
            let keeper = Arc::clone(&keeper);
            async move { keeper.answer(&method, &body).await }
        }
    });
    tokio::select! {
        () = answering => Ok(()),
        () = keeper.end.notified() => Ok(()),
    }
}

/// The version of the keeper at a socket; `None` where there is none.
pub async fn hello(socket: &Path) -> Option<String> {
    let hello = timeout(ENDING, client::post(socket, HELLO, b"{}")).await;
    let reply = hello.ok()?.ok().filter(|reply| reply.known)?;
    serde_json::from_slice(&reply.body).ok()
}

/// Ends the keeper at a socket, and removes the socket; from then on the engine has no driver. Does nothing where there is
/// none.
///
/// # Errors
/// [`ErrorKind::Internal`] when the socket can't be removed.
pub async fn end(socket: &Path) -> Result<()> {
    let _ = timeout(ENDING, client::post(socket, END, b"{}")).await;
    let removed = std::fs::remove_file(socket);
    // Where nothing else is in its folder, that is of the keeper too. An engine does without.
    if let Some(folder) = socket.parent() {
        let _ = std::fs::remove_dir(folder);
    }
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::Internal,
            format!("{} can't be removed", socket.display()),
        )
        .with_source(source)),
        _ => Ok(()),
    }
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ending,
    Beginning,
}

fn kind(method: &str) -> Option<Kind> {
    Some(match method {
        "NetworkDriver.Leave"
        | "NetworkDriver.DeleteEndpoint"
        | "NetworkDriver.DeleteNetwork"
        | "IpamDriver.ReleaseAddress" => Kind::Ending,
        "NetworkDriver.CreateNetwork"
        | "NetworkDriver.CreateEndpoint"
        | "NetworkDriver.EndpointOperInfo"
        | "NetworkDriver.Join"
        | "IpamDriver.RequestPool"
        | "IpamDriver.RequestAddress" => Kind::Beginning,
        _ => return None,
    })
}

impl Keeper {
    async fn answer(&self, method: &str, body: &[u8]) -> Answer {
        if let Some(answer) = always(method) {
            return answer;
        }
        match method {
            HELLO => return encode(&self.config.version).into(),
            END => {
                self.end.notify_one();
                return encode(&protocol::Empty {}).into();
            }
            _ => {}
        }
        match kind(method) {
            Some(Kind::Ending) => self.finish(method, body).await,
            Some(Kind::Beginning) => self.begin(method, body).await,
            None => Answer::unknown(method),
        }
    }

    async fn finish(&self, method: &str, body: &[u8]) -> Answer {
        let asked = timeout(ENDING, client::post(&self.config.agent, method, body)).await;
        if let Ok(Ok(reply)) = asked {
            return reply.into();
        }
        match self.put_off(method, body).await {
            Ok(answer) => answer,
            Err(error) => refusal(&error),
        }
    }

    async fn put_off(&self, method: &str, body: &[u8]) -> Result<Answer> {
        let mut journal = Journal::lock(&self.config.journal).await?;
        // One that came meanwhile has read the journal already, or will.
        if let Ok(agent) = client::connect(&self.config.agent).await {
            drop(journal);
            if let Ok(Ok(reply)) = timeout(ENDING, agent.post(method, body)).await {
                return Ok(reply.into());
            }
            journal = Journal::lock(&self.config.journal).await?;
        }
        journal.append(&Ended {
            method: method.to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
        })?;
        Ok(encode(&protocol::Empty {}).into())
    }

    async fn begin(&self, method: &str, body: &[u8]) -> Answer {
        let patience = self.config.patience;
        let until = (self.began + patience).max(Instant::now() + RESTART.min(patience));
        loop {
            if let Ok(reply) = client::post(&self.config.agent, method, body).await {
                return reply.into();
            }
            if Instant::now() > until {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "the arpanet2 agent of this host is not running, and its networks need it",
                );
                return refusal(&error.with_hint("start it with: arpanet2 start"));
            }
            sleep(LOOKING).await;
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            known: reply.known,
            body: reply.body,
        }
    }
}
