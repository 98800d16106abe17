//! Checks of containers: what tells whether one should get traffic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::addr::serde_through_string;
use crate::{Error, ErrorKind, Result};

/// What is asked of a container to tell whether it should get traffic: `http:/PATH`, `http:PORT/PATH`, `tcp`, `tcp:PORT`
/// or `cmd:COMMAND`. Without a port it is the service's.
///
/// ```
/// use arpanet_core::runtime::Probe;
/// assert_eq!("http:8080/health".parse::<Probe>()?.to_string(), "http:8080/health");
/// assert!("https:/health".parse::<Probe>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// An HTTP GET of this path: any answer from 200 to 399 is good.
    Http {
        /// The port; `None` is the service's.
        port: Option<u16>,
        /// The path, beginning with `/`, with its query.
        path: String,
    },
    /// A TCP connection can be made.
    Tcp {
        /// The port; `None` is the service's.
        port: Option<u16>,
    },
    /// A shell command in the container: exit code 0 is good.
    Command {
        /// The command, as `sh -c` reads it.
        command: String,
    },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { port: None, path } => write!(f, "http:{path}"),
            Self::Http {
                port: Some(port),
                path,
            } => write!(f, "http:{port}{path}"),
            Self::Tcp { port: None } => f.write_str("tcp"),
            Self::Tcp { port: Some(port) } => write!(f, "tcp:{port}"),
            Self::Command { command } => write!(f, "cmd:{command}"),
        }
    }
}

impl FromStr for Probe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fn port(text: &str) -> Option<u16> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port| digits && *port != 0)
        }
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        let probe = match (kind, rest) {
            ("http", rest) => {
                let rest = rest.unwrap_or("/");
                let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
                let path = if path.is_empty() { "/" } else { path };
                let path = path.to_owned();
                match (at, plain) {
                    ("", true) if !rest.is_empty() => Some(Self::Http { port: None, path }),
                    (at, true) => port(at).map(|port| Self::Http {
                        port: Some(port),
                        path,
                    }),
                    _ => None,
                }
            }
            ("tcp", None) => Some(Self::Tcp { port: None }),
            ("tcp", Some(at)) => port(at).map(|port| Self::Tcp { port: Some(port) }),
            ("cmd", Some(command)) if !command.trim().is_empty() => Some(Self::Command {
                command: command.to_owned(),
            }),
            _ => None,
        };
        probe.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{text:?} is no check of a container"),
            )
            .with_hint(
                "a check is http:/PATH, http:PORT/PATH, tcp, tcp:PORT or cmd:COMMAND, as in http:/health",
            )
        })
    }
}

serde_through_string!(Probe);

/// A check of a container: an instance that fails it leaves DNS, and comes back when it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// How often; the agent's default where there is none.
    #[serde(default)]
    pub interval: Option<Duration>,
    /// How long an answer may take; the agent's default where there is none.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

impl Check {
    /// A check at the agent's default pace.
    #[must_use]
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: None,
            timeout: None,
        }
    }

    /// This often.
    #[must_use]
    pub const fn every(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// With this long for an answer.
    #[must_use]
    pub const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// What the engine's own check of a container says, as docker's HEALTHCHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineHealth {
    /// It has not passed yet, and is given time.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}
