//! The agent: the process that is this host's node.

pub(crate) mod api;
mod bridge_dns;
pub(crate) mod by_hand;
pub(crate) mod consul;
mod consul_access;
mod datagrams;
mod dns;
mod docker_plane;
mod forward;
pub(crate) mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(crate) mod images;
mod kept;
pub(crate) mod keys;
pub(crate) mod kv;
pub(crate) mod launch;
pub(crate) mod lock;
mod log;
mod loopback;
mod metrics;
pub(crate) mod network_driver;
pub(crate) mod order;
pub(crate) mod overlay;
mod refusals;
pub(crate) mod stack;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod streams;
mod traces;
pub(crate) mod unit;
pub(crate) mod why;

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::time::Duration;

use arpanet_core::admission::{Password, Seed};
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::roster::Role;
use arpanet_core::{Cluster, Error, ErrorKind, Result};
use arpanet_join::Verifier;
use arpanet_netlink::Transport;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use self::api::Ending;
use self::order::{Me, Order, Report};
use self::stack::Stack;
use self::state::NodeState;
use self::traces::Traces;
use crate::commands::Context;
use crate::failure::Failure;
use crate::host;

/// How long tasks that block may keep the agent from its end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Runs the hidden command `agent`: an order on standard input, one report on standard output, then until its end.
pub(crate) fn main(context: &Context) -> Result<()> {
    // Away from the terminal of whoever started it. Fails only where it leads a session already.
    let _ = nix::unistd::setsid();
    let mut filter = tracing_subscriber::EnvFilter::try_from_env("ARPANET2_LOG")
        .unwrap_or_else(|_| "info".into());
    // It tells whole requests, with the values of environments in them.
    if let Ok(quiet) = "bollard=info".parse() {
        filter = filter.add_directive(quiet);
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // They would go to standard error, which is the same file on the same full disk, and end the agent.
        .log_internal_errors(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // A unit of systemd's: the journal bounds its size, and tells the time.
        subscriber
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    } else {
        let log = log::BoundedLog::new(context.paths.log());
        subscriber.with_writer(move || log.clone()).init();
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| {
            Error::new(ErrorKind::Internal, "no order on standard input").with_source(source)
        })?;
    let order = match text.trim() {
        "" => Order::Resume,
        text => serde_json::from_str(text).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, "the order can't be read").with_source(source)
        })?,
    };
    run(context, order, |report| {
        let mut out = std::io::stdout().lock();
        // Whoever started it may be gone.
        let _ = serde_json::to_writer(&mut out, &report)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out));
        let _ = out.flush();
    })
}

/// Comes up by the order, tells how that went, and serves until it is told to end.
pub(crate) fn run(context: &Context, order: Order, tell: impl Fn(Report)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::new(ErrorKind::Internal, "no threads").with_source(source))?;
    let mut held = None;
    let outcome = lock::acquire(&context.paths).and_then(|lock| {
        held = Some(lock);
        runtime.block_on(serve(context, order, &tell))
    });
    if let Err(error) = &outcome {
        tracing::error!(%error, "the agent ends");
        tell(Report::Failed(Failure::from(error)));
    }
    // Nothing that blocks is worth more waiting.
    runtime.shutdown_timeout(LAST_MOMENT);
    // To the last: whoever waits for the lock finds nothing of the agent any more.
    if let Some(lock) = held {
        lock.keep();
    }
    outcome
}

/// The order with what it needs looked up.
enum Plan {
    Boot(Password),
    Join {
        password: Password,
        role: Role,
        seed: Seed,
        replace: bool,
    },
    Resume(Box<NodeState>),
}

fn plan(context: &Context, order: Order) -> Result<(Me, Plan)> {
    let kept: Option<NodeState> = state::read(&context.paths.node())?;
    let (me, plan) = match order {
        Order::Resume => {
            let kept = kept.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "this host is no member of a cluster").with_hint(
                    "found one with arpanet2 boot, or join one with arpanet2 server or client",
                )
            })?;
            let info = &kept.membership.me;
            let me = Me {
                node: info.node,
                name: info.name.clone(),
                advertise: info.advertise,
                settings: kept.settings.clone(),
            };
            return Ok((me, Plan::Resume(Box::new(kept))));
        }
        Order::Boot { me, password } => (me, Plan::Boot(Password::new(password)?)),
        Order::Join {
            me,
            password,
            role,
            seed,
            endpoint,
            replace,
        } => (
            me,
            Plan::Join {
                password: Password::new(password)?,
                role,
                seed: Seed::new(seed, endpoint),
                replace,
            },
        ),
    };
    if let Some(kept) = kept {
        let info = &kept.membership.me;
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "this host is already node {} ({}) of the cluster {}",
                info.node, info.name, kept.membership.cluster
            ),
        )
        .with_hint("arpanet2 start brings it back; arpanet2 reset gives it up"));
    }
    Ok((me, plan))
}

async fn serve(context: &Context, order: Order, tell: &impl Fn(Report)) -> Result<()> {
    let paths = &context.paths;
    let (me, plan) = plan(context, order)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.state())
        .map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                format!("{} can't be made", paths.state().display()),
            )
            .with_source(source)
        })?;
    let verifier = match &plan {
        Plan::Resume(kept) => kept.verifier.clone(),
        _ => None,
    };
    let was_member = matches!(plan, Plan::Resume(_));
    let traces = Traces::of_agent(paths);
    match come_up(context, &me, plan, verifier, tell).await {
        Ok((stack, listener)) => attend(context, &me, stack, listener, tell).await,
        Err(error) => {
            let _ = std::fs::remove_file(paths.socket());
            if !was_member {
                traces.remove(paths);
            }
            Err(error)
        }
    }
}

/// Brings the node up. The socket is there before, so that its place is known to be free.
async fn come_up(
    context: &Context,
    me: &Me,
    plan: Plan,
    verifier: Option<Verifier>,
    tell: &impl Fn(Report),
) -> Result<(Stack, UnixListener)> {
    let listener = listen(context)?;
    // Needed last, when others are admitted; a port that is taken is told before anything is changed.
    host::require_free(Transport::Tcp, me.settings.port)?;
    let stack = Stack::build(context, me, !matches!(plan, Plan::Resume(_)), verifier).await?;
    let cluster = &stack.cluster;
    climb(cluster, plan, tell).await?;
    if let Err(error) = stack.by_hand.restore(cluster).await {
        // The node itself is well: it stays up, and says what it lacks.
        tracing::error!(%error, "not all that was changed by hand is as it was before");
    }
    Ok((stack, listener))
}

/// Brings the cluster logic up, and tells of its steps.
async fn climb(cluster: &Cluster, plan: Plan, tell: &impl Fn(Report)) -> Result<()> {
    let mut events = cluster.events();
    let up = async {
        match plan {
            Plan::Boot(password) => cluster.boot(&password).await,
            Plan::Join {
                password,
                role,
                seed,
                replace,
            } => cluster.join(&password, role, seed, replace).await,
            Plan::Resume(kept) => cluster.resume(kept.membership).await,
        }
    };
    tokio::pin!(up);
    loop {
        tokio::select! {
            // A step is told before how it went.
            biased;
            Ok(event) = events.recv() => {
                if let ClusterEvent::Step { what } = event {
                    tell(Report::Step(what));
                }
            }
            outcome = &mut up => return outcome,
        }
    }
}

/// Serves until it is told to end.
async fn attend(
    context: &Context,
    me: &Me,
    stack: Stack,
    listener: UnixListener,
    tell: &impl Fn(Report),
) -> Result<()> {
    let cluster = stack.cluster;
    let (endings, mut asked) = mpsc::channel(1);
    let api = api::router(api::Context {
        cluster: cluster.clone(),
        dns: stack.dns,
        by_hand: stack.by_hand,
        tunnel: stack.tunnel,
        networks: stack.networks,
        endings,
    });
    let server = tokio::spawn(async move { axum::serve(listener, api).await });
    tracing::info!(node = %me.node, "ready");
    notify(&[sd_notify::NotifyState::Ready]);
    tell(Report::Ready);
    let ending = wait_for_end(&mut asked).await?;
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!(?ending, "ending");
    let ended = match ending {
        Ending::Silent => cluster.stop().await,
        Ending::Leave => cluster.leave().await,
        Ending::Reset => cluster.resign().await,
    };
    server.abort();
    let _ = std::fs::remove_file(context.paths.socket());
    ended
}

/// Tells systemd, where it is what started the agent.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd can't be told how the agent is");
    }
}

/// The agent's socket, for root alone.
fn listen(context: &Context) -> Result<UnixListener> {
    let path = context.paths.socket();
    // The lock is ours: what is there was left by an agent that is gone.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map(|()| listener)
    });
    listener.map_err(|source| {
        Error::new(
            ErrorKind::Internal,
            format!("the socket {} can't be made", path.display()),
        )
        .with_source(source)
    })
}

/// A request to end, or a signal: SIGTERM and SIGINT end without a word, so that a restart costs the cluster nothing.
async fn wait_for_end(asked: &mut mpsc::Receiver<Ending>) -> Result<Ending> {
    let broken = |source| Error::new(ErrorKind::Internal, "no signals").with_source(source);
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    Ok(tokio::select! {
        Some(ending) = asked.recv() => ending,
        _ = terminate.recv() => Ending::Silent,
        _ = interrupt.recv() => Ending::Silent,
    })
}
