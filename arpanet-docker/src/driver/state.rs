//! What the driver has promised the engine, kept in a file: engines replay nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::{AppAddr, AppNet, EndpointId, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// By the engine's id.
    pub(super) networks: BTreeMap<String, Network>,
    /// Given out, with a container or without.
    pub(super) addresses: BTreeMap<Ipv4Addr, Given>,
    pub(super) endpoints: BTreeMap<EndpointId, Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) net: AppNet,
    /// Kept free of containers: `--aux-address`.
    #[serde(default)]
    pub(super) aux: BTreeSet<Ipv4Addr>,
    #[serde(default)]
    pub(super) internal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) addr: AppAddr,
    /// When, in seconds since 1970.
    pub(super) since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// The engine's id of its network.
    pub(super) network: String,
    pub(super) addr: AppAddr,
    /// The Ethernet address that was asked for.
    #[serde(default)]
    pub(super) mac: Option<[u8; 6]>,
    /// The engine's name of the container's namespace, while it is joined.
    #[serde(default)]
    pub(super) sandbox: Option<String>,
}

impl State {
    /// Whether an endpoint or a network stands behind an address.
    fn is_used(&self, ip: Ipv4Addr) -> bool {
        self.endpoints
            .values()
            .any(|endpoint| endpoint.addr.ip() == ip)
            || self.networks.values().any(|net| net.aux.contains(&ip))
    }

    /// Addresses behind which nothing has stood since before this time, in seconds since 1970.
    pub(super) fn idle(&self, before: u64) -> Vec<AppAddr> {
        self.addresses
            .values()
            .filter(|given| given.since <= before && !self.is_used(given.addr.ip()))
            .map(|given| given.addr)
            .collect()
    }

    /// Why this host can't give out an address that it has given out already; nothing where it may be a repeated request.
    pub(super) fn refuses(&self, ip: Ipv4Addr, now: u64) -> Option<String> {
        if let Some((id, _)) = self
            .endpoints
            .iter()
            .find(|(_, endpoint)| endpoint.addr.ip() == ip)
        {
            let id = id.as_str().get(..12).unwrap_or(id.as_str());
            return Some(format!(
                "{ip} is the address of endpoint {id} on this host already"
            ));
        }
        if self.networks.values().any(|net| net.aux.contains(&ip)) {
            return Some(format!("{ip} is kept free by the network's --aux-address"));
        }
        let given = self.addresses.get(&ip)?;
        (now.saturating_sub(given.since) < ASKED_AGAIN)
            .then(|| format!("{ip} was given to another container of this host a moment ago"))
    }

    /// Another network of this engine that this one shares addresses with.
    pub(super) fn overlapping(&self, net: AppNet, but: &str) -> Option<AppNet> {
        self.networks
            .iter()
            .filter(|(id, _)| *id != but)
            .map(|(_, other)| other.net)
            .find(|other| other.overlaps(net))
    }

    /// Whether another endpoint has brought a container its ways into the overlay.
    pub(super) fn is_connected(&self, sandbox: &str, but: &EndpointId) -> bool {
        self.endpoints
            .iter()
            .any(|(id, endpoint)| id != but && endpoint.sandbox.as_deref() == Some(sandbox))
    }
}

/// Within this time, in seconds, a second request for an address is somebody else's.
const ASKED_AGAIN: u64 = 10;

/// The state, and the file that it is kept in.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    state: Mutex<State>,
}

impl Kept {
    /// As an earlier process left it. A file that can't be read is as none: the engine tells the truth about its endpoints,
    /// and a power loss, which is what breaks files, ends them all.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what the network driver kept can't be read");
                State::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(failed(&path, "read", error)),
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, here and in the file, or neither.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.state();
        let mut changed = state.clone();
        let answer = change(&mut changed);
        if changed != *state {
            let write =
                || -> io::Result<()> { replace(&self.path, &serde_json::to_vec(&changed)?) };
            write().map_err(|error| failed(&self.path, "written", error))?;
            *state = changed;
        }
        Ok(answer)
    }
}

fn failed(path: &Path, verb: &str, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{} can't be {verb}", path.display())).with_source(source)
}

/// The whole file or none of it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(addr: &str, since: u64) -> (Ipv4Addr, Given) {
        let addr: AppAddr = addr.parse().unwrap();
        (addr.ip(), Given { addr, since })
    }

    fn endpoint(addr: &str, sandbox: Option<&str>) -> Endpoint {
        Endpoint {
            network: "n1".to_owned(),
            addr: addr.parse().unwrap(),
            mac: None,
            sandbox: sandbox.map(str::to_owned),
        }
    }

    fn some() -> State {
        let network = Network {
            net: "10.1.0.0/16".parse().unwrap(),
            aux: ["10.1.0.9".parse().unwrap()].into(),
            internal: false,
        };
        State {
            networks: [("n1".to_owned(), network)].into(),
            addresses: [
                given("10.1.0.5/16", 100),
                given("10.1.0.6/16", 100),
                given("10.1.0.9/16", 100),
            ]
            .into(),
            endpoints: [("e1".parse().unwrap(), endpoint("10.1.0.5/16", Some("s1")))].into(),
        }
    }

    #[test]
    fn addresses_without_a_container_are_idle_after_a_while() {
        let idle = |before| some().idle(before);
        assert!(idle(99).is_empty());
        assert_eq!(idle(100), ["10.1.0.6/16".parse().unwrap()]);
    }

    #[test]
    fn an_address_is_given_once_and_again_to_who_asks_again() {
        let refuses = |ip: &str, now| some().refuses(ip.parse().unwrap(), now);
        assert!(refuses("10.1.0.5", 500).unwrap().contains("e1"));
        assert!(refuses("10.1.0.9", 500).unwrap().contains("aux"));
        assert!(refuses("10.1.0.6", 105).is_some());
        assert!(refuses("10.1.0.6", 110).is_none());
        assert!(refuses("10.1.0.7", 100).is_none());
    }

    #[test]
    fn the_ways_into_the_overlay_are_brought_by_one_endpoint_of_a_container() {
        let state = some();
        let (one, two) = ("e1".parse().unwrap(), "e2".parse().unwrap());
        assert!(state.is_connected("s1", &two));
        assert!(!state.is_connected("s1", &one));
        assert!(!state.is_connected("s2", &two));
    }

    #[test]
    fn what_is_kept_is_found_again_and_what_is_broken_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("driver/state.json");
        let kept = Kept::open(path.clone()).unwrap();
        kept.change(|state| *state = some()).unwrap();
        assert_eq!(*Kept::open(path.clone()).unwrap().state(), some());
        fs::write(&path, b"{").unwrap();
        assert_eq!(*Kept::open(path).unwrap().state(), State::default());
    }

    #[test]
    fn what_can_not_be_kept_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let kept = Kept {
            path: file.join("state.json"),
            state: Mutex::default(),
        };
        assert!(kept.change(|state| *state = some()).is_err());
        assert_eq!(*kept.state(), State::default());
    }
}
