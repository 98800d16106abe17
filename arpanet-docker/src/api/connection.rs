//! One connection of a client.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::refusal;
use super::requests::{Broken, PIECE, Requests};
use super::server::Serving;

/// For so long it is read what a client sends after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// How often an engine with too many waiting callers is called again, and how long after.
const CALLS: u32 = 100;
const AGAIN: Duration = Duration::from_millis(20);

/// Serves a client that may be served, until either side is gone.
///
/// # Errors
/// The client broke off.
pub(super) async fn serve(client: TcpStream, serving: &Serving) -> io::Result<()> {
    // Whoever only looks whether the port is open does not bother the engine.
    client.readable().await?;
    match call(serving).await {
        Ok(engine) => between(client, engine, serving).await,
        Err(error) => {
            tracing::warn!(engine = %serving.config.engine.display(), %error, "the docker engine is away");
            let message = format!(
                "the docker engine of this node does not answer at {}: {error}",
                serving.config.engine.display()
            );
            let answer = refusal::answer("503 Service Unavailable", &message);
            refuse(client, &answer).await
        }
    }
}

/// Answers, and waits until the client has read it.
pub(super) async fn refuse(mut client: TcpStream, answer: &[u8]) -> io::Result<()> {
    client.write_all(answer).await?;
    client.shutdown().await?;
    linger(&mut client).await
}

/// Reads what a client still sends that was told everything: bytes that nobody reads would take the answer with them.
async fn linger(client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let reading = async {
        while client.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    timeout(LINGER, reading).await.unwrap_or(Ok(()))
}

async fn call(serving: &Serving) -> io::Result<UnixStream> {
    let mut calls = 0;
    loop {
        match UnixStream::connect(&serving.config.engine).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && calls < CALLS => {
                calls += 1;
                sleep(AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// Hands everything on both ways.
async fn between(mut client: TcpStream, engine: UnixStream, serving: &Serving) -> io::Result<()> {
    if hand_on(&mut client, engine, serving).await? == Last::Engine {
        linger(&mut client).await?;
    }
    Ok(())
}

/// Who had the last word.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    Client,
    Engine,
}

async fn hand_on(
    client: &mut TcpStream,
    mut engine: UnixStream,
    serving: &Serving,
) -> io::Result<Last> {
    let client_end = client.as_fd().try_clone_to_owned()?;
    let engine_end = engine.as_fd().try_clone_to_owned()?;
    let (from_client, mut to_client) = client.split();
    let (mut from_engine, to_engine) = engine.split();
    let requests = Requests::new(from_client, to_engine, serving).forward();
    let answers = copy(&mut from_engine, &mut to_client);
    let (client_gone, engine_gone) = (is_reset(client_end), is_closed(engine_end));
    tokio::pin!(requests, answers, client_gone, engine_gone);
    let (mut said, mut answered) = (false, false);
    while !(said && answered) {
        tokio::select! {
            outcome = &mut requests, if !said => match outcome {
                Ok(()) => said = true,
                // It may have answered before it went deaf.
                Err(Broken::Engine) if answered => break,
                Err(Broken::Engine) => {
                    let _ = (&mut answers).await;
                    break;
                }
                Err(Broken::Client(error)) => return Err(error),
            },
            outcome = &mut answers, if !answered => match outcome {
                Ok(()) => answered = true,
                Err(Broken::Engine) => break,
                Err(Broken::Client(error)) => return Err(error),
            },
            outcome = &mut engine_gone, if answered => {
                outcome?;
                break;
            }
            outcome = &mut client_gone => {
                outcome?;
                return Ok(Last::Client);
            }
        }
    }
    Ok(if said { Last::Client } else { Last::Engine })
}

/// Hands on until there is nothing more, and says so.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Broken> {
    let mut buffer = vec![0; PIECE];
    let outcome = loop {
        match from.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => to
                .write_all(&buffer[..count])
                .await
                .map_err(Broken::Client)?,
            Err(_) => break Err(Broken::Engine),
        }
    };
    to.shutdown().await.map_err(Broken::Client)?;
    outcome
}

/// Returns once the client has broken off. It is watched beside the streams: neither may be reading or writing.
async fn is_reset(client: OwnedFd) -> io::Result<()> {
    let client = TcpStream::from_std(client.into())?;
    client.ready(Interest::ERROR).await.map(drop)
}

/// Returns once the engine has closed its end, and not only has nothing more to say.
async fn is_closed(engine: OwnedFd) -> io::Result<()> {
    let engine = UnixStream::from_std(engine.into())?;
    while !engine.ready(Interest::WRITABLE).await?.is_write_closed() {
        // That it can be written is old news from now on.
        let _ = engine.try_io(Interest::WRITABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
    Ok(())
}
