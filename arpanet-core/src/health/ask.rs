//! One question to one container, and what its answer says.

use std::error::Error as StdError;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::prober::{HttpAnswer, Prober};
use crate::runtime::{Exec, ExecOutput, ExecSpec, Probe};
use crate::{ContainerName, Error, ErrorKind, Result, Runtime};

/// How much of what a command writes is kept for whoever asks why.
const WRITTEN: usize = 1 << 10;

/// How long a reason may be, in characters.
const REASON: usize = 200;

/// What is asked, of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) container: ContainerName,
    pub(crate) ip: Ipv4Addr,
    /// The service's port, 0 where it has none.
    pub(crate) port: u16,
    pub(crate) probe: Probe,
    pub(crate) timeout: Duration,
}

impl Question {
    /// Asks once: a pass, or why it is none, in a short line.
    pub(crate) async fn ask(
        self,
        prober: Option<Arc<dyn Prober>>,
        runtime: Option<Arc<dyn Runtime>>,
    ) -> Result<(), String> {
        let answered = timeout(self.timeout, self.answer(prober, runtime)).await;
        let why = match answered {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        let what: String = shorten(&self.probe.to_string(), REASON / 2);
        Err(format!("{what}: {why}"))
    }

    async fn answer(
        &self,
        prober: Option<Arc<dyn Prober>>,
        runtime: Option<Arc<dyn Runtime>>,
    ) -> Result<()> {
        match &self.probe {
            Probe::Http { port, path } => {
                let answer = prober_of(prober)?.get(self.at(*port)?, path).await?;
                judge_status(&answer)
            }
            Probe::Tcp { port } => prober_of(prober)?.connect(self.at(*port)?).await,
            Probe::Command { command } => {
                let runtime = runtime.ok_or_else(|| unable("this node has no runtime"))?;
                let spec = ExecSpec::new(["sh", "-c", command]);
                judge_command(runtime.exec(&self.container, &spec).await?).await
            }
        }
    }

    fn at(&self, port: Option<u16>) -> Result<SocketAddrV4> {
        match port.unwrap_or(self.port) {
            0 => Err(Error::new(ErrorKind::InvalidInput, "no port is known")),
            port => Ok(SocketAddrV4::new(self.ip, port)),
        }
    }
}

fn unable(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn prober_of(prober: Option<Arc<dyn Prober>>) -> Result<Arc<dyn Prober>> {
    prober.ok_or_else(|| unable("this node has nothing to ask containers with over the network"))
}

fn judge_status(answer: &HttpAnswer) -> Result<()> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let said = first_line(&answer.body);
    let message = match said.as_str() {
        "" => format!("status {}", answer.status),
        said => format!("status {}: {said}", answer.status),
    };
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// Waits for a command's end. It has no input, and all of its output is taken, so that it is kept from nothing.
async fn judge_command(exec: Exec) -> Result<()> {
    // The end of the input; the output's end is kept, so that dropping this call kills it.
    let Exec { input, mut output } = exec;
    drop(input);
    let mut written = Vec::new();
    while let Some(piece) = output.recv().await {
        match piece {
            ExecOutput::Output(piece) => {
                let room = WRITTEN.saturating_sub(written.len());
                written.extend(piece.bytes.iter().take(room));
            }
            ExecOutput::Exited(0) => return Ok(()),
            ExecOutput::Exited(code) => {
                let message = match first_line(&written).as_str() {
                    "" => format!("exit code {code}"),
                    said => format!("exit code {code}: {said}"),
                };
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }
    let message = "the command ended, and its exit code is not known";
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// The first line that says something, fit for a terminal.
fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    shorten(line.unwrap_or_default(), REASON)
}

fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    shorten(&text, REASON)
}

/// Without control characters, and at most this many others.
fn shorten(text: &str, limit: usize) -> String {
    let mut plain = text.chars().map(|letter| match letter {
        letter if letter.is_control() => ' ',
        letter => letter,
    });
    let mut short: String = plain.by_ref().take(limit).collect();
    if plain.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::runtime::{Output, OutputStream};

    #[test]
    fn only_2xx_passes_and_the_reason_says_what_came() {
        for status in [200, 204, 299] {
            judge_status(&HttpAnswer::new(status, "")).unwrap();
        }
        for (status, body, told) in [
            (301, "", "status 301"),
            (404, "\n\nnothing here\nat all", "status 404: nothing here"),
            (503, "no\u{1b}[31m database", "status 503: no [31m database"),
        ] {
            let error = judge_status(&HttpAnswer::new(status, body)).unwrap_err();
            assert_eq!(error.to_string(), told);
        }
        let long = judge_status(&HttpAnswer::new(500, "x".repeat(10_000))).unwrap_err();
        assert!(long.to_string().chars().count() < 250, "{long}");
    }

    #[tokio::test]
    async fn a_command_passes_by_its_exit_code_and_its_output_is_bounded() {
        for (code, told) in [(0, None), (3, Some("exit code 3: gone"))] {
            let (input, _commands) = mpsc::channel(1);
            let (results, output) = mpsc::channel(1);
            let talking = tokio::spawn(async move {
                let piece = |text: &str| {
                    let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
                    ExecOutput::Output(Output::new(OutputStream::Stdout, bytes))
                };
                results.send(piece("\ngone\n")).await.unwrap();
                for _ in 0..1_000 {
                    results.send(piece(&"x".repeat(10_000))).await.unwrap();
                }
                results.send(ExecOutput::Exited(code)).await.unwrap();
            });
            let judged = judge_command(Exec::new(input, output)).await;
            talking.await.unwrap();
            let judged = judged.err().map(|error| error.to_string());
            assert_eq!(judged.as_deref(), told);
        }
    }

    #[test]
    fn a_reason_has_its_causes() {
        let inner = std::io::Error::other("connection refused");
        let error = Error::new(ErrorKind::Unavailable, "10.1.0.5:80 can't be reached");
        let error = error.with_source(inner);
        assert_eq!(
            reason(&error),
            "10.1.0.5:80 can't be reached: connection refused"
        );
    }
}
