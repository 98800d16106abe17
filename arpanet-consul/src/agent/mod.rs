//! The life of this node's consul process.

mod access;
mod config;
mod election;
mod files;
mod keyring;
mod process;
mod program;
mod supervise;
mod turning;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::roster::Role;
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::access::AgentTls;
pub use self::config::ConsulAgentConfig;
use self::process::Process;
pub use self::program::find_program;
use self::supervise::Supervised;
use crate::client::Client;
use crate::config::ConsulConfig;
use crate::error::{CERTIFICATES, is_about_certificates, own};

/// How long a consul that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How long a node that leaves waits for consul's own leaving: a server waits up to 5 s until the leader has let it go.
const LEAVING: Duration = Duration::from_secs(8);

/// How long a first start may take until there is a leader.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at an agent that comes up.
const LOOKING: Duration = Duration::from_millis(20);

/// Starts a command where the node's discovery plane is: its network namespace is the caller's to enter.
pub type Spawn = Arc<dyn Fn(&mut Command) -> io::Result<Child> + Send + Sync>;

/// Connects to where the node's discovery plane is, and gives up after a moment.
pub type Connect = Arc<dyn Fn(SocketAddr) -> io::Result<TcpStream> + Send + Sync>;

/// The consul process of a node, at 10.253.A.B: started, watched, started again when it ends by itself, and found again by a
/// later process of ours, which it outlives.
///
/// Who is a server, and who is there to be joined, the roster says. The first server founds consul's cluster, exactly once: only
/// while the roster has no other server, and only where it has no data yet. All others join, by the API, so that a join takes no
/// longer than it needs.
pub struct ConsulAgent {
    config: ConsulAgentConfig,
    spawn: Spawn,
    connect: Option<Connect>,
    client: Client,
    /// Asks with the cluster's token, where there is one: the agent's own is good for its life only.
    cluster_client: Client,
    running: Mutex<Option<Running>>,
    state: watch::Sender<AgentState>,
}

/// How the consul process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AgentState {
    /// It is not to run.
    #[default]
    Stopped,
    /// It runs.
    Running {
        /// Its process id.
        pid: i32,
    },
    /// It ended by itself and is started again.
    Restarting,
}

#[derive(Debug)]
struct Running {
    membership: Membership,
    supervisor: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl std::fmt::Debug for ConsulAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsulAgent")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ConsulAgent {
    /// An agent that is not started.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names the setting that can't be used.
    pub fn new(config: ConsulAgentConfig, spawn: Spawn) -> Result<Self> {
        config.validate()?;
        let address = format!("unix:{}", config.socket.display());
        let mut asked = ConsulConfig::default().address(address);
        asked.token.clone_from(&config.token);
        let cluster_client = Client::new(&asked)?;
        asked.token = config.token.as_ref().map(access::agent_token);
        Ok(Self {
            client: Client::new(&asked)?,
            cluster_client,
            config,
            spawn,
            connect: None,
            running: Mutex::default(),
            state: watch::Sender::default(),
        })
    }

    /// With a way to the process by which the first server is asked to lead at once, instead of after a second or two.
    #[must_use]
    pub fn connecting(mut self, connect: Connect) -> Self {
        self.connect = Some(connect);
        self
    }

    /// The node whose process it is, while it is started.
    pub(crate) async fn node(&self) -> Option<NodeAddr> {
        let running = self.running.lock().await;
        running.as_ref().map(|running| running.membership.me.node)
    }

    /// How the process is, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<AgentState> {
        self.state.subscribe()
    }

    /// Starts the process, or finds it again, and keeps it running from then on. Returns when it answers and knows a leader.
    /// A second call does nothing.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when it ends by itself or finds no leader in time, with what it said last; it
    /// is left running in the latter case, so that another call finishes what this one began.
    pub async fn start(&self, membership: &Membership) -> Result<()> {
        self.launch(membership).await?;
        let end = Instant::now() + START_LIMIT;
        let servers = config::servers(membership);
        let mut joined = servers.is_empty();
        let mut trouble = None;
        // With certificates, raft's connections need them too.
        let stands = self.config.founding().exists() && self.config.tls.is_none();
        let mut connect = self.connect.clone().filter(|_| stands);
        loop {
            if let AgentState::Restarting = *self.state.borrow() {
                let error = own(ErrorKind::Unavailable, "consul ended by itself");
                return Err(self.with_last_words(error));
            }
            // Where the process runs and does not answer yet, this is refused at once.
            if !joined {
                match self.join(&servers).await {
                    Ok(()) => joined = true,
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => trouble = Some(error),
                }
            }
            match self.client.has_leader().await {
                Ok(true) if joined => break,
                Ok(_) if joined => {
                    trouble = None;
                    if let Some(connect) = connect.take() {
                        stand(connect, membership.me.node).await;
                    }
                }
                Ok(_) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => trouble = Some(error),
            }
            if Instant::now() >= end {
                let error = own(ErrorKind::Unavailable, "consul finds no leader").with_hint("most of consul's servers have to reach each other, and certificates, token and datacenter to be set alike on all nodes");
                let error = self.with_last_words(error);
                return Err(match trouble {
                    Some(trouble) => error.with_source(trouble),
                    None => error,
                });
            }
            tokio::time::sleep(LOOKING).await;
        }
        if self.config.founding().exists()
            && let Some(running) = self.running.lock().await.as_ref()
        {
            // As a later start will have it, which then finds the process to be what it wants.
            let founded = self.config.rendered(&running.membership, false)?;
            files::replace(&self.config.file(), &founded)?;
        }
        files::remove(&self.config.founding())
    }

    async fn launch(&self, membership: &Membership) -> Result<()> {
        let mut running = self.running.lock().await;
        if running
            .as_ref()
            .is_some_and(|running| running.membership.me == membership.me)
        {
            return Ok(());
        }
        let founds = self.founds(membership)?;
        files::folder(&self.config.folder)?;
        files::folder(&self.config.logs())?;
        let rendered = self.config.rendered(membership, founds)?;
        let is_current =
            !self.config.turning().exists() && files::is(&self.config.file(), &rendered);
        let process = match Process::kept(&self.config.process()) {
            Some(process) if is_current => process,
            kept => {
                if let Some(process) = kept {
                    // Before its configuration changes: one that is kept is one that has it.
                    process.end(GRACE).await;
                }
                files::replace(&self.config.file(), &rendered)?;
                files::remove(&self.config.turning())?;
                self.begin()?
            }
        };
        self.state
            .send_replace(AgentState::Running { pid: process.pid });
        let supervised = Supervised {
            config: self.config.clone(),
            spawn: Arc::clone(&self.spawn),
            client: self.client.clone(),
            servers: config::servers(membership),
            state: self.state.clone(),
        };
        *running = Some(Running {
            membership: membership.clone(),
            supervisor: tokio::spawn(supervised.keep_running(process)),
        });
        Ok(())
    }

    fn begin(&self) -> Result<Process> {
        supervise::begin(&self.config, &self.spawn)
    }

    /// Whether this start is the founding of consul's cluster, also when an earlier one was broken off.
    fn founds(&self, membership: &Membership) -> Result<bool> {
        let first = membership.me.role == Role::Boot && config::servers(membership).is_empty();
        let marker = self.config.founding();
        if first && !self.config.data().exists() {
            files::folder(&self.config.folder)?;
            files::touch(&marker)?;
        }
        Ok(first && marker.exists())
    }

    /// Has this node's agent meet these others, as after a cut. Those that it has met are met again.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when none of them answers.
    pub async fn join(&self, others: &[Ipv4Addr]) -> Result<()> {
        supervise::join(&self.client, others).await
    }

    /// Lets go of the process, which goes on: a later one of ours finds it. A second call does nothing.
    pub async fn release(&self) {
        self.running.lock().await.take();
        self.state.send_replace(AgentState::Stopped);
    }

    /// Ends the process; its data stays. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    pub async fn stop(&self) -> Result<()> {
        self.release().await;
        end(&self.config.folder).await
    }

    /// Takes this node out of consul's cluster, and ends the process; its data stays. A server that leaves is one less that
    /// has to agree. A second call does nothing.
    ///
    /// # Errors
    /// None of its own: where consul does not answer, or takes more than 8 s, the process is ended all the same.
    pub async fn leave(&self) -> Result<()> {
        self.release().await;
        if let Some(process) = Process::kept(&self.config.process()) {
            let left = async {
                self.client.leave().await?;
                process.ended().await;
                Ok::<_, Error>(())
            };
            match tokio::time::timeout(LEAVING, left).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "consul does not leave"),
                Err(_) => tracing::warn!("consul does not leave in time"),
            }
        }
        self.stop().await
    }

    fn with_last_words(&self, error: Error) -> Error {
        match files::last_words(&self.config) {
            Some(words) => {
                let error = match is_about_certificates(&words) {
                    true => error.with_hint(CERTIFICATES),
                    false => error,
                };
                error.with_source(format!("its last words: {words}"))
            }
            None => error,
        }
    }
}

/// Has the first server stand for election. Without that it does so later.
async fn stand(connect: Connect, me: NodeAddr) {
    let at = SocketAddr::from((me.discovery(), config::SERVER_PORT));
    let asked = tokio::task::spawn_blocking(move || election::stand(&connect, at));
    if let Ok(Err(error)) = asked.await {
        tracing::debug!(%error, "consul's first server takes its time");
    }
}

/// Other certificates, or another datacenter, will not be seen by another look.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unauthenticated | ErrorKind::Incompatible
    )
}

/// Ends the consul process that was started with this folder, by this process or an earlier one. A second call does nothing.
///
/// # Errors
/// [`Internal`](ErrorKind::Internal) when what is known of it can't be removed.
pub async fn end(folder: &Path) -> Result<()> {
    let file = config::process_file(folder);
    if let Some(process) = Process::kept(&file) {
        process.end(GRACE).await;
    }
    files::remove(&file)
}
