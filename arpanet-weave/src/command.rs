//! What a router is launched with.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use arpanet_core::Result;
use arpanet_core::admission::Membership;
use arpanet_core::runtime::HostProgram;
use arpanet_netlink::Namespace;

use crate::config::WeaveConfig;
use crate::error::system;
use crate::launcher::Weaver;
use crate::leftovers::{self, LOG};
use crate::password::fingerprint;
use crate::record::{Process, remove_file};
use crate::{PeerName, RouterPassword};

/// What a container of the router is called.
pub(crate) const CONTAINER: &str = "arpanet2-weaver";
/// Where it finds iptables.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a router is launched with.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: PeerName,
    arguments: Vec<OsString>,
    password: Option<RouterPassword>,
    pub(crate) fingerprint: String,
}

impl Wanted {
    /// `image` is what is launched where there is no program.
    pub(crate) fn new(
        config: &WeaveConfig,
        image: Option<&str>,
        membership: &Membership,
        host: Option<IpAddr>,
    ) -> Self {
        let name = PeerName::of(membership.me.node);
        let password = config.encryption.then(|| {
            let given = config.password.clone();
            given.unwrap_or_else(|| RouterPassword::of(membership))
        });
        let arguments = arguments(config, name, membership.me.name.as_str(), host);
        let program = config.binary.as_deref().map(Path::to_string_lossy);
        let program = program.or(image.map(Into::into));
        let texts: Vec<_> = arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        let secret = password.as_ref().map_or("", RouterPassword::expose);
        let parts = texts.iter().map(AsRef::as_ref);
        let fingerprint =
            fingerprint(parts.chain([program.as_deref().unwrap_or_default(), secret]));
        Self {
            name,
            arguments,
            password,
            fingerprint,
        }
    }

    pub(crate) const fn weaver(&self, is_new: bool) -> Weaver {
        Weaver {
            name: self.name,
            is_ours: true,
            is_new,
        }
    }

    /// The router as an engine has to run it.
    pub(crate) fn container(&self, config: &WeaveConfig) -> HostProgram {
        let arguments = self.arguments.iter();
        let mut program = HostProgram::new(CONTAINER, &config.image)
            .arguments(arguments.map(|argument| argument.to_string_lossy().into_owned()))
            .env("CHECKPOINT_DISABLE", "1")
            .folder(&config.folder)
            .workdir(&config.folder);
        if let Some(folder) = Path::new(&config.http)
            .parent()
            .filter(|at| at.is_absolute())
        {
            program = program.folder(folder);
        }
        if let Some(password) = &self.password {
            program = program.env("WEAVE_PASSWORD", password.expose());
        }
        program
    }

    /// Starts the router. It outlives this process.
    pub(crate) fn spawn(
        &self,
        program: &Path,
        folder: &Path,
        host: &Namespace,
    ) -> Result<Option<Process>> {
        let failed = |error| system(format!("{} can't be started", program.display()), error);
        remove_file(&folder.join(LOG))?;
        let log = OpenOptions::new()
            // Not over what was shortened meanwhile.
            .append(true)
            .create(true)
            .mode(0o600)
            .open(folder.join(LOG))
            .map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .current_dir(folder)
            // Nothing of this process's environment is for it: there may be a password.
            .env_clear()
            .env("PATH", PATH)
            // It would ask the internet for newer versions.
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // It outlives this process, and what ends this process's group.
            .process_group(0);
        if let Some(password) = &self.password {
            command.env("WEAVE_PASSWORD", password.expose());
        }
        let mut child = host.run(|| command.spawn())?.map_err(failed)?;
        let process = i32::try_from(child.id()).ok().and_then(Process::running);
        // Whoever starts a process has to wait for its end.
        let waiting = std::thread::Builder::new().name("arpanet-weave".to_owned());
        if let Err(error) = waiting.spawn(move || child.wait()) {
            tracing::warn!(%error, "nobody waits for the end of the weave router");
        }
        Ok(process)
    }
}

/// The router's arguments. No peers: where it was launched before it takes those from its database instead, and says nothing.
/// No status port: everybody may ask there, also for what ends the router. Without docker, addresses and DNS, which are
/// arpanet2's own.
fn arguments(
    config: &WeaveConfig,
    name: PeerName,
    nickname: &str,
    host: Option<IpAddr>,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        arguments.push(name.into());
        arguments.push(value.as_ref().to_owned());
    };
    if let Some(ip) = host {
        add("--host", &ip.to_string());
    }
    add("--port", &config.port.to_string());
    add("--name", &name.to_string());
    add("--nickname", &nickname);
    add("--weave-bridge", &config.bridge);
    add("--datapath", &leftovers::DATAPATH);
    add("--docker-api", &"");
    add("--db-prefix", &config.folder.join("weave"));
    add("--ipalloc-range", &"");
    add("--http-addr", &config.http);
    add("--status-addr", &"");
    if let Some(mtu) = config.mtu {
        add("--mtu", &mtu.to_string());
    }
    arguments.push("--no-dns".into());
    if !config.fast_datapath {
        arguments.push("--no-fastdp".into());
    }
    arguments
}

/// Whether the ip is on a link of this host.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use arpanet_core::admission::{ClusterKey, NodeInfo, Secret};
    use arpanet_core::roster::{ClusterId, Identity, Role, Roster};
    use arpanet_router::RouterConfig;

    use super::*;

    fn text(config: &WeaveConfig) -> Vec<String> {
        let name = PeerName::of("0.1".parse().unwrap());
        let arguments = arguments(config, name, "one", Some("127.0.0.1".parse().unwrap()));
        arguments
            .iter()
            .map(|argument| argument.to_str().unwrap().to_owned())
            .collect()
    }

    fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    }

    #[test]
    fn the_password_and_the_peers_are_no_arguments() {
        let config =
            WeaveConfig::new(RouterConfig::new("/l"), "/f").password(RouterPassword::new("Apples"));
        let arguments = text(&config);
        assert!(!arguments.iter().any(|argument| argument.contains("Apples")));
        assert_eq!(value(&arguments, "--name"), Some("06:a2:0a:ff:00:01"));
        assert_eq!(value(&arguments, "--host"), Some("127.0.0.1"));
        assert_eq!(value(&arguments, "--db-prefix"), Some("/f/weave"));
        for off in ["--docker-api", "--ipalloc-range", "--status-addr"] {
            assert_eq!(value(&arguments, off), Some(""), "{off}");
        }
        // Every word is an option or the value of one: what is left over would be a peer.
        let options = arguments
            .iter()
            .filter(|argument| argument.starts_with("--"));
        let flags = ["--no-dns", "--no-fastdp"];
        let flags = arguments
            .iter()
            .filter(|argument| flags.contains(&argument.as_str()))
            .count();
        assert_eq!(arguments.len(), options.count() * 2 - flags);
    }

    #[test]
    fn a_gateways_address_is_no_address_of_this_host() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn another_password_is_another_launch() {
        let config = WeaveConfig::new(RouterConfig::new("/l"), "/f");
        let print = |config: &WeaveConfig, key| {
            let me = NodeInfo::new("0.1".parse().unwrap(), "one".parse().unwrap(), Role::Boot);
            let membership = Membership::new(
                me,
                Identity::from_bytes([1; 32]),
                ClusterId::from_bytes([7; 16]),
                ClusterKey::new(1, Secret::from_bytes([key; 32])),
                Roster::default(),
            );
            Wanted::new(config, None, &membership, None).fingerprint
        };
        assert_eq!(print(&config, 9), print(&config, 9));
        assert_ne!(print(&config, 9), print(&config, 8));
        assert_ne!(print(&config, 9), print(&config.clone().port(7000), 9));
        let open = config.encryption(false);
        assert_eq!(print(&open, 9), print(&open, 8));
    }
}
