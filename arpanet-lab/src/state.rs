//! What a lab is made of, kept in its folder so that any later process finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use arpanet_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::lab::Protocol;
use crate::process::ProcessId;

const FILE: &str = "lab.json";

/// The whole lab.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabState {
    pub(crate) switch: Option<ProcessId>,
    pub(crate) hosts: BTreeMap<String, HostState>,
    /// Whether each host has a docker engine.
    #[serde(default)]
    pub(crate) docker: bool,
    /// Pairs that can't reach each other, each in the order of its names.
    pub(crate) cuts: BTreeSet<(String, String)>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostState {
    pub(crate) ip: Ipv4Addr,
    /// Its first process; `None` while it has no power.
    pub(crate) init: Option<ProcessId>,
    /// Whether its cable is pulled.
    pub(crate) unplugged: bool,
    pub(crate) blocked: BTreeSet<Protocol>,
}

impl LabState {
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no lab, [`ErrorKind::Corrupt`] for a damaged file.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no lab in {}", folder.display()),
                )
                .with_hint("make one with lab up"));
            }
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{} can't be read", path.display()),
                )
                .with_source(error));
            }
        };
        serde_json::from_slice(&bytes).map_err(|source| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the state file {} is damaged", path.display()),
            )
            .with_source(source)
        })
    }

    /// Replaces the file whole.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let attempt = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.persist(folder.join(FILE))?;
            Ok(())
        };
        attempt().map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "the state of the lab in {} can't be written",
                    folder.display()
                ),
            )
            .with_source(source)
        })
    }

    pub(crate) fn host(&self, name: &str) -> Result<&HostState> {
        self.hosts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.hosts.keys().map(String::as_str).collect();
            Error::new(ErrorKind::NotFound, format!("the lab has no host {name}"))
                .with_hint(format!("it has {}", names.join(", ")))
        })
    }
}
