//! Processes that a shim starts: each from a thread of its own, which enters other namespaces first.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, setgid, setgroups, setsid, setuid};
use tokio::sync::oneshot;

use super::user::Credentials;

/// A process that was started here. Its number is not used any more once it is reaped.
#[derive(Debug, Clone)]
pub(super) struct Process(Arc<Mutex<Option<Pid>>>);

impl Process {
    fn living(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.living().map(Pid::as_raw)
    }

    /// Ends it at once. One that has ended stays ended.
    pub(super) fn kill(&self) {
        if let Some(pid) = *self.living() {
            // It may end at this very moment.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Ends it and all that it started and that did not move away, at once.
    pub(super) fn kill_session(&self) {
        if let Some(pid) = *self.living() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// A process that was just started, with the near ends of its streams.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) process: Process,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    /// Its exit code, once it is reaped.
    pub(super) ended: oneshot::Receiver<i32>,
}

/// Starts a command from a new thread, which `enter`s other namespaces before. No other thread changes its own.
pub(super) fn spawn(
    mut command: Command,
    enter: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Spawned> {
    let (tell, told) = mpsc::channel();
    let (tell_end, ended) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let mut child = match enter().and_then(|()| command.spawn()) {
            Ok(child) => child,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        // The far ends of its streams: nothing may be left of them here.
        drop(command);
        let pid = Pid::from_raw(child.id().cast_signed());
        let process = Process(Arc::new(Mutex::new(Some(pid))));
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let _ = tell.send(Ok((process.clone(), streams)));
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR)
        {
        }
        let mut living = process.living();
        *living = None;
        let code = child.wait().map_or(crate::status::KILLED, exit_code);
        drop(living);
        let _ = tell_end.send(code);
    })?;
    let (process, (stdin, stdout, stderr)) = told
        .recv()
        .map_err(|_| io::Error::other("the thread that starts the process is gone"))??;
    Ok(Spawned {
        process,
        stdin,
        stdout,
        stderr,
        ended,
    })
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(crate::status::KILLED)
}

/// A command of a container: in a session of its own, as its user, on the terminal that is its standard input.
#[expect(
    unsafe_code,
    reason = "what happens between fork and exec has no safe interface in the standard library"
)]
pub(super) fn contained(
    argv: &[String],
    environment: &BTreeMap<String, String>,
    workdir: &Path,
    credentials: Option<Credentials>,
    terminal: bool,
) -> io::Result<Command> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is empty"))?;
    if !workdir.is_dir() {
        let message = format!("there is no directory {}", workdir.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(workdir);
    let become_it = move || {
        setsid()?;
        for signal in Signal::iterator() {
            // What the agent ignores, as under nohup, its containers do not. SIGKILL and SIGSTOP can't be set.
            // SAFETY: the default action runs no code of this process.
            let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        }
        if terminal {
            // SAFETY: the request takes a number, no pointer.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if let Some(credentials) = &credentials {
            setgroups(&credentials.groups)?;
            setgid(credentials.group)?;
            setuid(credentials.user)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, and neither allocates nor locks.
    unsafe { command.pre_exec(become_it) };
    Ok(command)
}
