//! The runtime in the simulated world.

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::containers::{KILLED, Program, StopPlan, not_running};
use super::network::HostIndex;
use super::state::{Seat, Shared, State};
use crate::runtime::{
    Container, ContainerSpec, ContainerState, Exec, ExecInput, ExecOutput, ExecSpec, LogOptions,
    Output, OutputStream, Pull, PullReporter, PullRequest, Resolver, Runtime, RuntimeCapabilities,
};
use crate::watch::Watch;
use crate::{ContainerName, Error, ErrorKind, Result};

const BACKEND: &str = "memory";

/// The command that prints the name servers.
const SERVERS: &str = "servers";

/// How many pieces of output wait for a slow reader.
const BACKLOG: usize = 64;

/// [`Runtime`] of one host of a [`World`](super::World). Containers outlive the agent, not the power.
///
/// Nothing is executed. A few commands are simulated: `exit CODE`, `print TEXT`, `print-both OUT ERR`, `lines COUNT`,
/// `env NAME`, `ignore-term` (prints `ready`), and in exec `cat` and `servers` (prints the name servers it asks); one whose path
/// begins with `/nonexistent` can't be started. Every other command, and every image, runs until it is stopped; but
/// `sh -c LINE` in exec, which is how checks run commands, ends with 0 at once, or as the container
/// [ails](super::World::set_ailment).
///
/// Every host reaches one registry. It has every image but those whose names begin with `nonexistent`, and gives those that
/// begin with `private/` to the user `reader` with the password `secret` only.
#[derive(Debug, Clone)]
pub struct MemoryRuntime {
    seat: Seat,
    capabilities: RuntimeCapabilities,
}

impl MemoryRuntime {
    pub(super) const fn new(seat: Seat) -> Self {
        Self {
            seat,
            capabilities: RuntimeCapabilities::all(),
        }
    }

    /// The same, with less that it can do.
    #[must_use]
    pub const fn with_capabilities(mut self, capabilities: RuntimeCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    pub(super) fn act<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut State, HostIndex) -> Result<R>,
    ) -> Result<R> {
        let at_engine = |state: &mut State, host: HostIndex| {
            if state.hosts[host].engine.away {
                let message = "the container engine is away";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            state.faltering(|state| act(state, host))
        };
        self.seat
            .enter(at_engine)
            .map_err(|error| error.operation(operation).backend(BACKEND))
    }
}

#[async_trait]
impl Runtime for MemoryRuntime {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        self.capabilities
    }

    async fn pull(&self, request: &PullRequest) -> Result<Pull> {
        if !self.capabilities.images {
            return Err(Error::unsupported(BACKEND, "pull images"));
        }
        if request.image.is_empty() {
            let message = "an image has a name";
            return Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND));
        }
        let (runtime, request, busy) = (self.clone(), request.clone(), self.seat.busy());
        Ok(Pull::spawn(async move |reporter| {
            let _busy = busy;
            let pulled = runtime.fetch(&request, &reporter).await;
            pulled.map_err(|error| error.operation("pull").backend(BACKEND))
        }))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let _busy = self.seat.busy();
        if spec.image.is_some() && !self.capabilities.images {
            let message = "this runtime has no images";
            return Err(Error::new(ErrorKind::InvalidInput, message).backend(BACKEND));
        }
        tokio::task::yield_now().await;
        let held = self.act("create", |state, host| {
            Ok(state.hosts[host].engine.holds(spec.name.as_ref()))
        })?;
        if let Some(image) = spec.image.as_ref().filter(|_| !held) {
            let request = PullRequest::new(image).policy(spec.pull);
            let pulled = self.fetch(&request, &PullReporter::default()).await;
            pulled.map_err(|error| error.operation("create").backend(BACKEND))?;
        }
        self.act("create", |state, host| {
            let now = state.wall_clock(Instant::now());
            let at = &mut state.hosts[host];
            let (container, made) = at.engine.create(host, &mut at.router, spec, now)?;
            state.activity += u64::from(made);
            Ok(container)
        })
    }

    async fn start(&self, name: &ContainerName) -> Result<()> {
        let _busy = self.seat.busy();
        tokio::task::yield_now().await;
        self.act("start", |state, host| {
            let now = state.wall_clock(Instant::now());
            let at = &mut state.hosts[host];
            let started = at.engine.start(host, &mut at.router, name, now)?;
            state.activity += u64::from(started);
            Ok(())
        })
    }

    async fn stop(&self, name: &ContainerName) -> Result<i32> {
        let plan = self.act("stop", |state, host| {
            state.hosts[host].engine.stopping(name)
        })?;
        let (grace, code) = match plan {
            StopPlan::Ended(code) => return Ok(code),
            StopPlan::After(grace, code) => (grace, code),
        };
        tokio::time::sleep(grace).await;
        self.act("stop", |state, host| {
            let at = &mut state.hosts[host];
            if at.engine.end(&mut at.router, name, code) {
                state.activity += 1;
                return Ok(code);
            }
            // Ended by somebody else meanwhile, or removed.
            match at.engine.get(name)?.container.state {
                ContainerState::Exited { code } => Ok(code),
                _ => Ok(KILLED),
            }
        })
    }

    async fn remove(&self, name: &ContainerName) -> Result<()> {
        let _busy = self.seat.busy();
        tokio::task::yield_now().await;
        self.act("remove", |state, host| {
            let at = &mut state.hosts[host];
            if at.engine.remove(&mut at.router, name) {
                state.activity += 1;
            }
            Ok(())
        })
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Container> {
        self.act("inspect", |state, host| {
            Ok(state.hosts[host].engine.get(name)?.container.clone())
        })
    }

    async fn list(&self) -> Result<Vec<Container>> {
        self.act("list containers", |state, host| {
            let all = state.hosts[host].engine.containers.values();
            Ok(all.map(|simulated| simulated.container.clone()).collect())
        })
    }

    async fn watch(&self) -> Result<Watch<ContainerName, Container>> {
        // Also of one that is away: it begins without.
        let watch = self
            .seat
            .enter(|state, host| Ok(state.hosts[host].engine.hub().watch()));
        watch.map_err(|error| error.operation("watch containers").backend(BACKEND))
    }

    async fn logs(
        &self,
        name: &ContainerName,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>> {
        let (id, skip) = self.act("read logs", |state, host| {
            let simulated = state.hosts[host].engine.get(name)?;
            let tail = options.tail.unwrap_or(usize::MAX);
            let skip = simulated.written.len().saturating_sub(tail);
            Ok((simulated.container.id.clone(), skip))
        })?;
        let (to, from) = mpsc::channel(BACKLOG);
        let reader = Reader {
            seat: self.seat.clone(),
            name: name.clone(),
            id,
        };
        tokio::spawn(reader.run(skip, options, to));
        Ok(from)
    }

    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        if !self.capabilities.exec {
            return Err(Error::unsupported(BACKEND, "run commands in containers"));
        }
        let program = self.act("exec", |state, host| {
            let simulated = state.hosts[host].engine.get(name)?;
            if simulated.container.state != ContainerState::Running {
                return Err(not_running(name));
            }
            if spec.command == [SERVERS] {
                let lines = simulated.servers().iter().map(|ip| format!("{ip}\n"));
                return Ok(Program::Print(lines.collect(), String::new(), 0));
            }
            let mut env = simulated.container.spec.env.clone();
            env.0.extend(spec.env.0.clone());
            simulated.exec(&spec.command, &env)
        })?;
        let (input, commands) = mpsc::channel(BACKLOG);
        let (results, output) = mpsc::channel(BACKLOG);
        tokio::spawn(execute(program, commands, results));
        Ok(Exec::new(input, output))
    }

    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        if !self.capabilities.relabel {
            return Err(Error::unsupported(BACKEND, "change labels"));
        }
        let _busy = self.seat.busy();
        tokio::task::yield_now().await;
        self.act("set a label", |state, host| {
            let changed = state.hosts[host].engine.set_label(name, label, value)?;
            state.activity += u64::from(changed);
            Ok(())
        })
    }

    async fn set_resolver(&self, name: &ContainerName, resolver: Option<Resolver>) -> Result<bool> {
        if !self.capabilities.resolver {
            let what = "change whom containers ask for names";
            return Err(Error::unsupported(BACKEND, what));
        }
        let _busy = self.seat.busy();
        tokio::task::yield_now().await;
        self.act("set a resolver", |state, host| {
            let (asks, news) = state.hosts[host].engine.set_resolver(name, resolver)?;
            state.activity += u64::from(news);
            Ok(asks)
        })
    }

    async fn bridge_address(&self) -> Result<Option<Ipv4Addr>> {
        self.act("find the bridge", |_, _| Ok(None))
    }
}

/// Reads a container's output for somebody.
struct Reader {
    seat: Seat,
    name: ContainerName,
    id: String,
}

impl Reader {
    async fn run(self, mut position: usize, options: LogOptions, to: mpsc::Sender<Output>) {
        let shared: &Arc<Shared> = &self.seat.shared;
        loop {
            let changed = shared.changed.notified();
            let Some(written) = self.after(position) else {
                return;
            };
            position += written.len();
            for (at, output) in written {
                let wanted = options.since.is_none_or(|since| at >= since);
                if wanted && to.send(output).await.is_err() {
                    return;
                }
            }
            if !options.follow {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = to.closed() => return,
            }
        }
    }

    /// What was written since; `None` when the container is removed.
    fn after(&self, position: usize) -> Option<Vec<(std::time::SystemTime, Output)>> {
        self.seat
            .enter(|state, host| {
                let simulated = state.hosts[host].engine.get(&self.name)?;
                if simulated.container.id != self.id {
                    return Ok(None);
                }
                Ok(simulated.written.get(position..).map(<[_]>::to_vec))
            })
            .ok()
            .flatten()
    }
}

async fn execute(
    program: Program,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) {
    let piece = |stream, text: String| ExecOutput::Output(Output::new(stream, Bytes::from(text)));
    let code = match program {
        Program::Print(out, err, code) => {
            for (stream, text) in [(OutputStream::Stdout, out), (OutputStream::Stderr, err)] {
                if !text.is_empty() && output.send(piece(stream, text)).await.is_err() {
                    return;
                }
            }
            code
        }
        Program::Cat => {
            while let Some(command) = input.recv().await {
                if let ExecInput::Data(bytes) = command {
                    let echoed = ExecOutput::Output(Output::new(OutputStream::Stdout, bytes));
                    if output.send(echoed).await.is_err() {
                        return;
                    }
                }
            }
            0
        }
        Program::Forever | Program::IgnoreTerm => {
            // Until nobody holds an end of it any more.
            while input.recv().await.is_some() {}
            output.closed().await;
            return;
        }
    };
    // Nobody may be there to hear it.
    let _ = output.send(ExecOutput::Exited(code)).await;
}
