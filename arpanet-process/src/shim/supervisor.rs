//! What happens to a container: the orders it gets, the reports of its first process, and the time.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arpanet_core::runtime::{ContainerSpec, ContainerState, OutputStream, RestartPolicy};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::launch::Init;
use super::order::{Order, Report};
use crate::folder::Folder;
use crate::log::Writer;
use crate::status::{KILLED, Status};
use crate::wire::{Cause, Refusal};

/// The first wait before a restart; each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A command that ran this long starts the waits anew.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// How long the first process may take to end after the command did.
const ENDING: Duration = Duration::from_secs(5);

/// How long output is read on after the end: all writers are dead, but for a descriptor that was passed out.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How often a final status is written again that the disk had no room for.
const AGAIN: Duration = Duration::from_secs(1);

/// What a connection asks for.
#[derive(Debug)]
pub(super) enum Wish {
    Start(oneshot::Sender<Result<(), Refusal>>),
    Stop(Duration),
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for the start.
    Ready,
    Starting,
    Running,
    /// Ended, and is started again then.
    Resting(Instant),
    Ending,
}

#[derive(Debug)]
pub(super) struct Supervisor {
    folder: Folder,
    spec: ContainerSpec,
    init: Init,
    status: watch::Sender<Status>,
    wishes: mpsc::Receiver<Wish>,
    pumps: Vec<JoinHandle<()>>,
    phase: Phase,
    /// To end for good, whatever the restart policy says.
    stopping: bool,
    /// Removed: nothing of it needs to be kept.
    removing: bool,
    kill_at: Option<Instant>,
    code: Option<i32>,
    refusal: Option<Refusal>,
    starters: Vec<oneshot::Sender<Result<(), Refusal>>>,
    started: Instant,
    wait: Duration,
}

impl Supervisor {
    pub(super) fn new(
        folder: Folder,
        spec: ContainerSpec,
        mut init: Init,
        status: watch::Sender<Status>,
        wishes: mpsc::Receiver<Wish>,
        log: Arc<Mutex<Writer>>,
        growth: watch::Sender<u64>,
    ) -> Self {
        let growth = Arc::new(growth);
        let streams = [
            (init.stdout.take(), OutputStream::Stdout),
            (init.stderr.take(), OutputStream::Stderr),
        ];
        let pumps = streams
            .into_iter()
            .filter_map(|(from, stream)| {
                let pump = pump(from?, stream, Arc::clone(&log), Arc::clone(&growth));
                Some(tokio::spawn(pump))
            })
            .collect();
        Self {
            folder,
            spec,
            init,
            status,
            wishes,
            pumps,
            phase: Phase::Ready,
            stopping: false,
            removing: false,
            kill_at: None,
            code: None,
            refusal: None,
            starters: Vec::new(),
            started: Instant::now(),
            wait: FIRST_WAIT,
        }
    }

    /// Until the container has ended, and that is written down.
    pub(super) async fn run(mut self) {
        loop {
            let restart = match self.phase {
                Phase::Resting(until) => Some(until),
                _ => None,
            };
            let due = restart.into_iter().chain(self.kill_at).min();
            let time = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(wish) = self.wishes.recv() => self.grant(wish).await,
                Some(report) = self.init.reports.recv() => self.note(report).await,
                code = &mut self.init.ended => {
                    self.code.get_or_insert(code.unwrap_or(KILLED));
                    break;
                }
                () = time => self.time_has_come().await,
            }
        }
        self.finish().await;
    }

    async fn grant(&mut self, wish: Wish) {
        match (wish, self.phase) {
            (Wish::Start(starter), Phase::Ready) => {
                let next = self.next(ContainerState::Running);
                if let Err(error) = self.folder.write_status(&next) {
                    let _ = starter.send(Err(Refusal::from(&error)));
                    return;
                }
                // What comes next has to be later than what is written.
                self.status.send_if_modified(|status| {
                    status.sequence = next.sequence;
                    false
                });
                self.starters.push(starter);
                self.start().await;
            }
            (Wish::Start(starter), Phase::Starting) => self.starters.push(starter),
            (Wish::Start(starter), Phase::Running | Phase::Resting(_)) => {
                let _ = starter.send(Ok(()));
            }
            (Wish::Start(starter), Phase::Ending) => {
                let refusal = Refusal::new(Cause::Unavailable, "the container is ending");
                let _ = starter.send(Err(refusal));
            }
            (Wish::Stop(_), Phase::Ready) => {}
            (Wish::Stop(grace), Phase::Starting | Phase::Running) => {
                let first = !std::mem::replace(&mut self.stopping, true);
                if first {
                    self.order(Order::Terminate).await;
                }
                self.kill_within(grace);
            }
            (Wish::Stop(_), Phase::Resting(_)) => {
                self.stopping = true;
                self.end();
            }
            (Wish::Stop(_), Phase::Ending) => {}
            (Wish::Kill, _) => {
                self.stopping = true;
                self.removing = true;
                self.init.process.kill();
            }
        }
    }

    async fn note(&mut self, report: Report) {
        match report {
            Report::Started => {
                self.phase = Phase::Running;
                self.started = Instant::now();
                self.publish(self.next(ContainerState::Running));
                self.answer_starters(&Ok(()));
            }
            Report::Failed { code, message } if !self.starters.is_empty() => {
                self.code = Some(code);
                self.refusal = Some(Refusal::new(Cause::InvalidInput, message));
                self.end();
            }
            Report::Failed { code, .. } | Report::Ended { code } => {
                self.code = Some(code);
                if self.stopping || !restarts(self.spec.restart, code) {
                    self.end();
                    return;
                }
                if self.started.elapsed() >= GOOD_RUN {
                    self.wait = FIRST_WAIT;
                }
                self.phase = Phase::Resting(Instant::now() + self.wait);
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
            }
            // Heard before this began.
            Report::Ready | Report::Refused(_) => {}
        }
    }

    async fn time_has_come(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|due| due <= now) {
            self.kill_at = None;
            self.init.process.kill();
        }
        if matches!(self.phase, Phase::Resting(until) if until <= now) {
            self.start().await;
        }
    }

    async fn start(&mut self) {
        self.phase = Phase::Starting;
        self.order(Order::Start).await;
    }

    async fn order(&mut self, order: Order) {
        if let Some(control) = &mut self.init.control {
            // Where this fails the process is gone, and its end is told by itself.
            let _ = control.send(order).await;
        }
    }

    /// Lets the first process go, and all that is left with it.
    fn end(&mut self) {
        self.phase = Phase::Ending;
        self.init.control = None;
        self.kill_within(ENDING);
    }

    fn kill_within(&mut self, grace: Duration) {
        // One beyond all time is none.
        let due = Instant::now().checked_add(grace);
        self.kill_at = self.kill_at.into_iter().chain(due).min();
    }

    fn next(&self, state: ContainerState) -> Status {
        let init = match state {
            ContainerState::Exited { .. } => None,
            _ => Some(self.init.identity.clone()),
        };
        self.status.borrow().next(state, init)
    }

    /// Tells it where it is a change: a restart is none.
    fn publish(&self, status: Status) {
        self.status.send_if_modified(|current| {
            let changed = current.state != status.state;
            if changed {
                *current = status;
            }
            changed
        });
    }

    fn answer_starters(&mut self, answer: &Result<(), Refusal>) {
        for starter in self.starters.drain(..) {
            let _ = starter.send(answer.clone());
        }
    }

    async fn finish(mut self) {
        for pump in &mut self.pumps {
            if timeout(LAST_OUTPUT, &mut *pump).await.is_err() {
                pump.abort();
            }
        }
        let code = self.code.unwrap_or(KILLED);
        let last = self.next(ContainerState::Exited { code });
        self.publish(last.clone());
        let refusal = self.refusal.take().unwrap_or_else(|| {
            Refusal::new(Cause::Unavailable, "the container was ended before it ran")
        });
        self.answer_starters(&Err(refusal));
        // An exit code that is not written down is kept by staying.
        while let Err(error) = self.folder.write_status(&last) {
            let _ = writeln!(
                std::io::stderr(),
                "the exit code {code} is not kept: {error}"
            );
            if self.removing || !self.folder.path().exists() {
                return;
            }
            let again = Instant::now() + AGAIN;
            loop {
                tokio::select! {
                    wish = self.wishes.recv() => match wish {
                        Some(Wish::Kill) | None => return,
                        Some(wish) => self.grant(wish).await,
                    },
                    () = sleep_until(again) => break,
                }
            }
        }
    }
}

const fn restarts(policy: RestartPolicy, code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        _ => false,
    }
}

/// Writes a stream to the log until it ends.
async fn pump(
    mut from: pipe::Receiver,
    stream: OutputStream,
    log: Arc<Mutex<Writer>>,
    growth: Arc<watch::Sender<u64>>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        log.lock().unwrap_or_else(PoisonError::into_inner).append(
            stream,
            &bytes[..length],
            SystemTime::now(),
        );
        growth.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_decides_by_the_exit_code() {
        assert!(!restarts(RestartPolicy::No, 1));
        assert!(!restarts(RestartPolicy::OnFailure, 0));
        assert!(restarts(RestartPolicy::OnFailure, 137));
        assert!(restarts(RestartPolicy::Always, 0));
    }
}
