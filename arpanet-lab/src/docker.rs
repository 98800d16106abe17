//! A docker engine in namespaces of its own: how it starts, when it answers, and what it leaves.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};

use crate::image::{self, IMAGE};
use crate::process::ProcessId;

/// Where Debian's packages put the engine and its client.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The engine's socket, as seen in its namespaces.
pub(crate) const SOCKET: &str = "/run/docker.sock";

/// The file with the engine's process, as seen in its namespaces.
pub(crate) const PID_FILE: &str = "/run/docker.pid";

/// How long an engine may take to answer: some seconds on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the kernel shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The command line of an engine, and of all that it starts, in this control group.
pub(crate) fn command_line(group: &str, data: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = ["env", &format!("PATH={PATH}"), "dockerd", "--data-root"]
        .map(OsString::from)
        .to_vec();
    line.push(data.into());
    line.extend(
        [
            "--exec-root",
            "/run/docker",
            "--pidfile",
            PID_FILE,
            "--host",
            &format!("unix://{SOCKET}"),
            "--cgroup-parent",
            &format!("/{group}"),
        ]
        .map(OsString::from),
    );
    line
}

/// A control group's name, alone on this machine for this folder.
pub(crate) fn group(folder: &Path, name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("arpanet2-{:016x}-{name}", hasher.finish())
}

/// Removes a control group that has no process any more, in every hierarchy. One that is gone is fine.
pub(crate) fn remove_group(group: &str) {
    let Ok(hierarchies) = std::fs::read_dir(CGROUPS) else {
        return;
    };
    let roots = std::iter::once(PathBuf::from(CGROUPS))
        .chain(hierarchies.flatten().map(|entry| entry.path()));
    for root in roots {
        let root = root.join(group);
        if root.is_dir()
            && let Err(error) = remove_below(&root)
        {
            tracing::warn!(group, %error, "a control group can't be removed");
        }
    }
}

fn remove_below(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

/// A path in the namespaces of a process, as seen from here.
fn seen(init: ProcessId, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", init.pid()))
}

/// The engine's socket in the namespaces of this process.
pub(crate) fn socket(init: ProcessId) -> PathBuf {
    seen(init, SOCKET)
}

/// The engine in the namespaces of this process, while it runs.
pub(crate) fn process(init: ProcessId) -> Option<ProcessId> {
    let file = std::fs::read_to_string(seen(init, PID_FILE)).ok()?;
    // Its number in there, which may have become another's since.
    let engine = init.inside(file.trim().parse().ok()?)?;
    ["dockerd", "podman"]
        .contains(&engine.name()?.as_str())
        .then_some(engine)
}

/// The last thing that an engine said.
pub(crate) fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it says nothing").to_owned()
}

/// Waits until the engine in the namespaces of this process answers. `ended` says why it won't.
pub(crate) async fn wait(init: ProcessId, mut ended: impl FnMut() -> Option<String>) -> Result<()> {
    let began = tokio::time::Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(10));
    while !answers(init) {
        if let Some(why) = ended() {
            let message = format!("the engine does not start: {why}");
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_hint("install Debian's package docker.io, or podman for Podman's, as root"));
        }
        if began.elapsed() > START_LIMIT {
            let message = format!("the engine does not answer in {START_LIMIT:?}");
            return Err(Error::new(ErrorKind::Timeout, message));
        }
        again.tick().await;
    }
    Ok(())
}

/// Whether it answers a ping of its API.
fn answers(init: ProcessId) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut engine = UnixStream::connect(socket(init))?;
        engine.set_read_timeout(Some(Duration::from_secs(1)))?;
        engine.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut status = [0; 12];
        engine.read_exact(&mut status)?;
        Ok(status.ends_with(b"200"))
    };
    ping().unwrap_or(false)
}

/// Gives the engine in the namespaces of this process the lab's image.
pub(crate) fn import(init: ProcessId) -> Result<()> {
    let failed = |source: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "docker import can't be run").with_source(source)
    };
    let mut client = Command::new("docker")
        .env("PATH", PATH)
        .env_remove("DOCKER_CONTEXT")
        .arg("--host")
        .arg(format!("unix://{}", socket(init).display()))
        .args(["import", "--change", "CMD [\"sh\"]", "-", IMAGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = client.stdin.take().map_or(Ok(()), image::write);
    let output = client.wait_with_output().map_err(failed)?;
    written?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let message = format!("docker import failed: {told}");
    Err(Error::new(ErrorKind::Unavailable, message))
}
