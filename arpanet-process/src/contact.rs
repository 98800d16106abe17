//! Reaching a container's shim.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use nix::fcntl::Flock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout};

use crate::config::ProcessConfig;
use crate::error::{at_file, own, system};
use crate::folder::Folder;
use crate::identity::Identity;
use crate::wire::{Answer, Cause, Frame, Refusal, Request, receive, send};

/// How long a shim may take to begin. It makes namespaces, which takes milliseconds; a busy machine takes longer.
const BEGINNING: Duration = Duration::from_secs(30);

/// How long a shim may take to end when told to, before it is killed.
const ENDING: Duration = Duration::from_secs(5);

/// Between two looks at something that can't be awaited.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a shim for a container, and waits until the container's namespaces are there. Whether it was this one that made
/// them: another may have begun at the same moment, for an agent that was killed.
pub(crate) async fn begin(config: &ProcessConfig, folder: &Folder, id: &str) -> Result<bool> {
    let shim = &config.shim;
    let failed = |error| at_file("can't be started as a shim", shim.path(), error);
    let mut child = tokio::process::Command::new(shim.path())
        .args(shim.args())
        .arg("serve")
        .arg(folder.path())
        .arg(id)
        .arg(config.log_limit.to_string())
        .args(shim.args())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(folder.complaints()?)
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take();
    // Reaps it, whenever that is.
    tokio::spawn(async move { child.wait().await });
    let mut told = Vec::new();
    if let Some(mut stdout) = stdout {
        timeout(BEGINNING, stdout.read_to_end(&mut told))
            .await
            .map_err(|_| own(ErrorKind::Timeout, "the shim does not begin"))?
            .map_err(failed)?;
    }
    let outcome: std::result::Result<(), Refusal> =
        serde_json::from_slice(&told).map_err(|_| {
            let path = folder.path().join("shim.log");
            let why = std::fs::read_to_string(path).unwrap_or_default();
            let why = why.lines().last().unwrap_or("it says nothing");
            let message = format!("the shim {} ended at once: {why}", shim.path().display());
            own(ErrorKind::Internal, message)
        })?;
    match outcome {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.cause == Cause::Taken => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}

/// One request on a connection of its own; `None` where there is no shim, or none any more.
pub(crate) async fn ask(
    folder: &Folder,
    request: &Request,
    limit: Duration,
) -> Result<Option<Answer>> {
    let opened = open::<Answer>(folder, request, limit).await?;
    Ok(opened.map(|(answer, _)| answer))
}

/// Asks, and reads the first message of what comes.
pub(crate) async fn open<T: DeserializeOwned>(
    folder: &Folder,
    request: &Request,
    limit: Duration,
) -> Result<Option<(T, UnixStream)>> {
    timeout(limit, first(folder, request)).await.map_err(|_| {
        let folder = folder.path().display();
        let message = format!("the shim of {folder} does not answer within {limit:?}");
        own(ErrorKind::Timeout, message)
    })?
}

async fn first<T: DeserializeOwned>(
    folder: &Folder,
    request: &Request,
) -> Result<Option<(T, UnixStream)>> {
    let Some(mut stream) = folder.connect()? else {
        return Ok(None);
    };
    if put(&mut stream, request).await.is_err() {
        return Ok(None);
    }
    match receive(&mut stream).await {
        Ok(Some(frame)) => {
            let message = frame
                .parse()
                .map_err(|error| system("the shim's answer can't be read", error))?;
            Ok(Some((message, stream)))
        }
        // It ended before it could answer.
        Ok(None) | Err(_) => Ok(None),
    }
}

/// Sends a request whose answers are all alike.
pub(crate) async fn subscribe(folder: &Folder, request: &Request) -> Result<Option<OwnedReadHalf>> {
    let Some(mut stream) = folder.connect()? else {
        return Ok(None);
    };
    if put(&mut stream, request).await.is_err() {
        return Ok(None);
    }
    let (from, to) = stream.into_split();
    // The shim takes the end of this direction for the end of the reader.
    to.forget();
    Ok(Some(from))
}

async fn put(stream: &mut UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    send(stream, &Frame::message(message)?).await
}

/// Tells the shim to end all, and waits until nobody looks after the container any more. What it answers keeps new shims
/// off as long as it is held.
pub(crate) async fn end(folder: &Folder) -> Result<Option<Flock<File>>> {
    match ask(folder, &Request::Kill, ENDING).await {
        Ok(_) => until_gone(folder, ENDING).await,
        // It does not listen.
        Err(_) => until_gone(folder, Duration::ZERO).await,
    }
}

/// Waits until no shim looks after the container; one that does not go within the patience is ended by force.
async fn until_gone(folder: &Folder, patience: Duration) -> Result<Option<Flock<File>>> {
    let due = Instant::now() + patience;
    let last = due + ENDING;
    loop {
        match folder.claim(true) {
            Ok(Ok(lock)) => return Ok(lock),
            Ok(Err(shim)) if Instant::now() >= due => shim.kill(),
            // On a full disk the file may not be made that would keep a shim off.
            Err(error) if error.kind() == ErrorKind::Exhausted => return Ok(None),
            Ok(Err(_)) | Err(_) => {}
        }
        if Instant::now() >= last {
            let message = format!("the shim of {} does not end", folder.path().display());
            return Err(own(ErrorKind::Timeout, message));
        }
        sleep(LOOK).await;
    }
}

/// Whether no shim looks after the container. One that was just killed is given time to go, and one that just begins
/// time to listen.
pub(crate) async fn is_gone(folder: &Folder) -> bool {
    let due = Instant::now() + ENDING;
    while Instant::now() < due {
        if matches!(folder.shim(), Ok(None)) {
            return true;
        }
        if matches!(folder.connect(), Ok(Some(_))) {
            return false;
        }
        sleep(LOOK).await;
    }
    false
}

/// Waits until a process is gone that ends by itself, and ends by force one that does not.
pub(crate) async fn until_dead(process: &Identity) {
    let due = Instant::now() + ENDING;
    let last = due + ENDING;
    while process.is_alive() && Instant::now() < last {
        if Instant::now() >= due {
            process.kill();
        }
        sleep(LOOK).await;
    }
}
