//! What can be set, with its meaning and a sensible range.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use arpanet_router::RouterConfig;
use serde::{Deserialize, Serialize};

use crate::RouterPassword;
use crate::error::own;

/// IPv4 needs as much (RFC 791).
pub(crate) const SMALLEST_MTU: u16 = 576;

/// What becomes of a weave router that runs already and that arpanet2 has not launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ForeignRouter {
    /// The launch is refused, and says what runs there.
    #[default]
    Refuse,
    /// It carries the overlay as it is. It is told of peers, and otherwise left as it is, also by `reset`. The others need
    /// its name, which is in this node's announcement.
    Use,
}

/// What a [`WeaveOverlay`](crate::WeaveOverlay) is made of. Durations are in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WeaveConfig {
    /// The router between host, overlay and containers.
    pub router: RouterConfig,
    /// The folder of the router that is launched: its database, its log, and what is known of its process. It is made, mode
    /// 0700, and removed by `reset`.
    pub folder: PathBuf,
    /// Where the router's HTTP API is, as `IP:PORT` or as the path of a unix socket. `127.0.0.1:6784` unless told; a path is
    /// out of reach for other users of the host. Whoever reaches it rules the router.
    #[serde(default = "http")]
    pub http: String,
    /// The program `weaver`, which is launched unless a router runs already. `None`: one has to run.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// The image whose own program is launched where there is an engine and no `binary`. That of the maintained fork unless told.
    #[serde(default = "image")]
    pub image: String,
    /// What becomes of a router that runs already.
    #[serde(default)]
    pub foreign: ForeignRouter,
    /// The routers' port on the underlay: TCP and UDP, and the next one for UDP too. 6783 unless told; the same on all nodes.
    #[serde(default = "port")]
    pub port: u16,
    /// The weave bridge. `weave` unless told.
    #[serde(default = "bridge")]
    pub bridge: String,
    /// The largest packet inside, in bytes: 576 to 65,411. `None`: the underlay's less 124, at most 1376,
    /// which is weave's own choice. All nodes have to have the same or larger.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Whether the router may use the kernel's Open vSwitch datapath, where there is one: several times as fast. Only the tools of
    /// Open vSwitch remove it, so `reset` then leaves a device `datapath` and says so. Off unless told.
    #[serde(default)]
    pub fast_datapath: bool,
    /// Whether routers encrypt what they send each other. All nodes alike.
    #[serde(default = "yes")]
    pub encryption: bool,
    /// The password of a weave network that was there before. `None`: derived from the cluster's key.
    #[serde(default)]
    pub password: Option<RouterPassword>,
    /// How long the router may take for one answer: 100 to 60,000.
    #[serde(default = "request_ms")]
    pub request_ms: u32,
    /// How long a router that is launched may take until it is ready: 1,000 to 120,000.
    #[serde(default = "launch_ms")]
    pub launch_ms: u32,
}

fn http() -> String {
    "127.0.0.1:6784".to_owned()
}

fn image() -> String {
    "rajchaudhuri/weave:2.9.0".to_owned()
}

const fn port() -> u16 {
    6783
}

fn bridge() -> String {
    "weave".to_owned()
}

const fn yes() -> bool {
    true
}

const fn request_ms() -> u32 {
    3_000
}

const fn launch_ms() -> u32 {
    20_000
}

impl WeaveConfig {
    /// The overlay with this router between host and containers, whose weave router lives in this folder.
    #[must_use]
    pub fn new(router: RouterConfig, folder: impl Into<PathBuf>) -> Self {
        Self {
            router,
            folder: folder.into(),
            http: http(),
            binary: None,
            image: image(),
            foreign: ForeignRouter::default(),
            port: port(),
            bridge: bridge(),
            mtu: None,
            fast_datapath: false,
            encryption: true,
            password: None,
            request_ms: request_ms(),
            launch_ms: launch_ms(),
        }
    }

    /// With the router's HTTP API elsewhere.
    #[must_use]
    pub fn http(mut self, at: impl Into<String>) -> Self {
        self.http = at.into();
        self
    }

    /// Launching this program where no router runs.
    #[must_use]
    pub fn binary(mut self, program: impl AsRef<Path>) -> Self {
        self.binary = Some(program.as_ref().to_owned());
        self
    }

    /// Launching this image's program where no router runs, there is no program and an engine is given.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }

    /// With a router that runs already treated so.
    #[must_use]
    pub const fn foreign(mut self, foreign: ForeignRouter) -> Self {
        self.foreign = foreign;
        self
    }

    /// With routers on another port of the underlay.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With another name for the weave bridge.
    #[must_use]
    pub fn bridge(mut self, bridge: impl Into<String>) -> Self {
        self.bridge = bridge.into();
        self
    }

    /// With packets of at most this size inside, in bytes.
    #[must_use]
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// With or without the kernel's Open vSwitch datapath.
    #[must_use]
    pub const fn fast_datapath(mut self, fast: bool) -> Self {
        self.fast_datapath = fast;
        self
    }

    /// With or without encryption between routers.
    #[must_use]
    pub const fn encryption(mut self, encryption: bool) -> Self {
        self.encryption = encryption;
        self
    }

    /// In a weave network that was there before, with this password.
    #[must_use]
    pub fn password(mut self, password: RouterPassword) -> Self {
        self.password = Some(password);
        self
    }

    /// With this long for an answer of the router, in milliseconds.
    #[must_use]
    pub const fn request_ms(mut self, limit: u32) -> Self {
        self.request_ms = limit;
        self
    }

    /// With this long for a router that is launched, in milliseconds.
    #[must_use]
    pub const fn launch_ms(mut self, limit: u32) -> Self {
        self.launch_ms = limit;
        self
    }

    /// Whether all is within the range that its documentation gives.
    pub(crate) fn check(&self) -> Result<()> {
        let ranges = [
            (
                "mtu",
                self.mtu.map_or(u32::from(SMALLEST_MTU), u32::from),
                SMALLEST_MTU.into(),
                65_411,
            ),
            ("request_ms", self.request_ms, 100, 60_000),
            ("launch_ms", self.launch_ms, 1_000, 120_000),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let message = format!("{name} is {value}, and has to be {least} to {most}");
                return Err(own(ErrorKind::InvalidInput, message));
            }
        }
        Ok(())
    }

    pub(crate) fn request_limit(&self) -> Duration {
        Duration::from_millis(self.request_ms.into())
    }

    pub(crate) fn launch_limit(&self) -> Duration {
        Duration::from_millis(self.launch_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_weave_has_it_and_what_is_unknown_is_refused() {
        let read = |text: &str| serde_json::from_str::<WeaveConfig>(text);
        let least = read(r#"{"router": {"ledger": "/l"}, "folder": "/f"}"#).unwrap();
        assert_eq!(least, WeaveConfig::new(RouterConfig::new("/l"), "/f"));
        assert_eq!((least.port, least.http.as_str()), (6783, "127.0.0.1:6784"));
        let foreign =
            read(r#"{"router": {"ledger": "/l"}, "folder": "/f", "foreign": "use"}"#).unwrap();
        assert_eq!(foreign.foreign, ForeignRouter::Use);
        assert!(read(r#"{"router": {"ledger": "/l"}, "folder": "/f", "pasword": "x"}"#).is_err());
    }

    #[test]
    fn a_password_does_not_show() {
        let config =
            WeaveConfig::new(RouterConfig::new("/l"), "/f").password(RouterPassword::new("Apples"));
        assert!(!format!("{config:?}").contains("Apples"));
    }
}
