//! Checks of containers: what tells whether one should get traffic.

use std::fmt;
use std::num::NonZeroU32;
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
    /// An HTTP GET of this path: any answer from 200 to 299 is good. Redirects are not followed.
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

/// A check of a container: an instance that fails it leaves DNS, and comes back when it passes. A new one gets no traffic
/// until it has passed.
///
/// It is asked at the container's lowest overlay address, from the router of its node (169.254.1.1), or in the container
/// itself: a check says nothing of the overlay, and an outage of the overlay makes no container unwell. In doubt, which is
/// before a container's first verdict and while answers contradict the last one, it is asked every second, if that is sooner.
///
/// ```
/// use arpanet_core::runtime::Check;
/// use std::time::Duration;
/// let check = Check::new("http:/health".parse()?).every(Duration::from_secs(2));
/// assert_eq!((check.interval(), check.timeout()), (Duration::from_secs(2), Check::TIMEOUT));
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// How often; [`INTERVAL`](Self::INTERVAL) where there is none.
    #[serde(default)]
    pub interval: Option<Duration>,
    /// How long an answer may take; [`TIMEOUT`](Self::TIMEOUT) where there is none.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// After how many passes in a row it passes; [`RISE`](Self::RISE) where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<NonZeroU32>,
    /// After how many failures in a row it fails; [`FALL`](Self::FALL) where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<NonZeroU32>,
    /// How long after the start failures are taken for the start's; [`START_PERIOD`](Self::START_PERIOD) where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Duration>,
}

impl Check {
    /// How often a check is asked unless it says otherwise: every 10 s.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// How long an answer may take unless it says otherwise: 3 s.
    pub const TIMEOUT: Duration = Duration::from_secs(3);
    /// After how many passes in a row a check passes unless it says otherwise: 1.
    pub const RISE: NonZeroU32 = NonZeroU32::MIN;
    /// After how many failures in a row a check fails unless it says otherwise: 3.
    pub const FALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
    /// How long a container may take to start unless its check says otherwise: 30 s.
    pub const START_PERIOD: Duration = Duration::from_secs(30);

    /// Nothing is asked more often, or given less time.
    const SHORTEST: Duration = Duration::from_millis(100);

    /// A check at the default pace.
    #[must_use]
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            start_period: None,
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

    /// Passing after this many passes in a row.
    #[must_use]
    pub const fn rising_after(mut self, passes: NonZeroU32) -> Self {
        self.rise = Some(passes);
        self
    }

    /// Failing after this many failures in a row.
    #[must_use]
    pub const fn falling_after(mut self, failures: NonZeroU32) -> Self {
        self.fall = Some(failures);
        self
    }

    /// With this long to start.
    #[must_use]
    pub const fn starting_within(mut self, period: Duration) -> Self {
        self.start_period = Some(period);
        self
    }

    /// How often it is asked: 100 ms at the least.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval.unwrap_or(Self::INTERVAL).max(Self::SHORTEST)
    }

    /// How long an answer may take: 100 ms at the least.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Self::TIMEOUT).max(Self::SHORTEST)
    }

    /// How many passes in a row make it pass.
    #[must_use]
    pub fn rise(&self) -> u32 {
        self.rise.unwrap_or(Self::RISE).get()
    }

    /// How many failures in a row make it fail.
    #[must_use]
    pub fn fall(&self) -> u32 {
        self.fall.unwrap_or(Self::FALL).get()
    }

    /// How long after the start failures do not count.
    #[must_use]
    pub fn start_period(&self) -> Duration {
        self.start_period.unwrap_or(Self::START_PERIOD)
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
