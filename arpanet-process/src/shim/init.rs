//! The first process in a container's namespaces: it makes the mounts, starts the command, and reaps.
//!
//! It ends with the shim's end of its control connection, and everything in the container ends with it: so a shim that
//! is killed leaves nothing running.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use arpanet_core::Result;
use arpanet_core::runtime::ContainerSpec;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin};

use super::order::{Order, Report};
use super::{child, user};
use crate::error::system;
use crate::folder::Folder;
use crate::mounts::{self, Keeper};
use crate::wire::Refusal;

/// How often the files are looked after where the kernel can't tell of changes.
const LOOK: u16 = 2_000_u16;

/// Everyone but this process, within the container.
const ALL: Pid = Pid::from_raw(-1);

pub(super) fn run(folder: &Folder) -> Result<()> {
    let control =
        take_control().map_err(|error| system("there is no control connection", error))?;
    let outcome = Init::prepare(folder, control);
    let broken = |error| system("the control connection is broken", error);
    match outcome {
        Ok(init) => init.run().map_err(broken),
        Err((mut control, error)) => {
            say(&mut control, &Report::Refused(Refusal::from(&error))).map_err(broken)
        }
    }
}

/// The control connection is passed as the standard input, which the command must not get.
fn take_control() -> io::Result<UnixStream> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}

struct Init {
    control: UnixStream,
    signals: SignalFd,
    spec: ContainerSpec,
    keeper: Keeper,
    command: Option<Pid>,
}

impl Init {
    fn prepare(
        folder: &Folder,
        control: UnixStream,
    ) -> std::result::Result<Self, (UnixStream, arpanet_core::Error)> {
        let made = folder.record().and_then(|record| {
            mounts::make(folder, &record.spec)?;
            let mut wanted = SigSet::empty();
            wanted.add(Signal::SIGCHLD);
            let signals = wanted
                .thread_block()
                .and_then(|()| {
                    SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                })
                .map_err(|error| system("signals can't be received", error))?;
            umask(Mode::from_bits_truncate(0o022));
            Ok((record.spec, signals))
        });
        match made {
            Ok((spec, signals)) => Ok(Self {
                control,
                signals,
                spec,
                keeper: Keeper::new(folder),
                command: None,
            }),
            Err(error) => Err((control, error)),
        }
    }

    fn run(mut self) -> io::Result<()> {
        self.say(&Report::Ready)?;
        let mut orders = BufReader::new(self.control.try_clone()?);
        loop {
            let mut ready = vec![
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let mut limit = PollTimeout::NONE;
            match self.keeper.changes() {
                Some(changes) => ready.push(PollFd::new(changes, PollFlags::POLLIN)),
                None => limit = PollTimeout::from(LOOK),
            }
            match poll(&mut ready, limit) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
            let (ordered, signalled) = (is_ready(&ready[0]), is_ready(&ready[1]));
            if ready.get(2).is_none_or(is_ready) {
                self.keeper.restore();
            }
            if signalled {
                while self.signals.read_signal()?.is_some() {}
                self.reap()?;
            }
            if ordered {
                // Orders are single lines that come whole, one answered before the next but for Terminate.
                loop {
                    let mut line = String::new();
                    if orders.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    self.obey(serde_json::from_str(&line)?)?;
                    if orders.buffer().is_empty() {
                        break;
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Start => match self.start() {
                Ok(pid) => {
                    self.command = Some(pid);
                    self.say(&Report::Started)
                }
                Err((code, message)) => self.say(&Report::Failed { code, message }),
            },
            Order::Terminate => {
                if let Some(command) = self.command {
                    // Not reaped yet, so the number is its own.
                    let _ = kill(command, Signal::SIGTERM);
                }
                Ok(())
            }
        }
    }

    fn start(&self) -> std::result::Result<Pid, (i32, String)> {
        let credentials =
            user::credentials(&self.spec).map_err(|refusal| (126, refusal.message))?;
        let environment =
            user::environment(&self.spec, credentials.as_ref(), &Default::default(), false);
        let workdir = self.spec.workdir.as_deref().unwrap_or("/");
        let argv = &self.spec.command;
        child::contained(argv, &environment, Path::new(workdir), credentials, false)
            .and_then(|mut command| command.spawn())
            .map(|child| Pid::from_raw(child.id().cast_signed()))
            .map_err(|error| user::cannot_start(argv, &error))
    }

    /// Takes the exit codes of all that ended: the command's children become this process's when their parents end.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let status = match waitpid(ALL, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Err(Errno::EINTR) => continue,
                status => status?,
            };
            let code = match status {
                WaitStatus::Exited(_, code) => code,
                WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
                _ => continue,
            };
            if status.pid() == self.command {
                self.command = None;
                end_all();
                self.say(&Report::Ended { code })?;
            }
        }
    }

    fn say(&mut self, report: &Report) -> io::Result<()> {
        say(&mut self.control, report)
    }
}

/// Nothing that the command started outlives it.
fn end_all() {
    loop {
        // Again at each turn, for what was just being started.
        let _ = kill(ALL, Signal::SIGKILL);
        if waitpid(ALL, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

fn say(control: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    control.write_all(&line)
}
