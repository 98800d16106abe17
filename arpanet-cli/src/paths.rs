//! Where a node keeps what.

use std::path::{Path, PathBuf};

/// The folders of a node.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    state: PathBuf,
    run: PathBuf,
}

/// Where both are unless told.
impl Default for Paths {
    fn default() -> Self {
        Self::new(
            PathBuf::from("/var/lib/arpanet2"),
            PathBuf::from("/run/arpanet2"),
        )
    }
}

impl Paths {
    pub(crate) fn new(state: PathBuf, run: PathBuf) -> Self {
        Self { state, run }
    }

    /// What survives a reboot: `/var/lib/arpanet2`.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// What does not: `/run/arpanet2`.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.state.join("identity.json")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.state.join("node.json")
    }

    pub(crate) fn gossip(&self) -> PathBuf {
        self.state.join("gossip.json")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.state.join("ledger.jsonl")
    }

    /// Instances that were registered by hand.
    pub(crate) fn registrations(&self) -> PathBuf {
        self.state.join("registrations.json")
    }

    /// Planes that were hidden by hand.
    pub(crate) fn hidden(&self) -> PathBuf {
        self.state.join("hidden.json")
    }

    /// What docker's network driver has promised to the engine.
    pub(crate) fn driver(&self) -> PathBuf {
        self.state.join("driver.json")
    }

    /// The networks that every engine of the cluster has.
    pub(crate) fn docker_networks(&self) -> PathBuf {
        self.state.join("docker-networks.json")
    }

    /// What docker ended while no agent was there.
    pub(crate) fn driver_journal(&self) -> PathBuf {
        self.state.join("driver-journal.jsonl")
    }

    /// Where the agent answers what docker asks its driver.
    pub(crate) fn driver_socket(&self) -> PathBuf {
        self.run.join("driver.sock")
    }

    /// Where the router's namespace is pinned.
    pub(crate) fn router(&self) -> PathBuf {
        self.run.join("router")
    }

    /// The weave router's database, its log, and what is known of its process.
    pub(crate) fn weave(&self) -> PathBuf {
        self.state.join("weave")
    }

    /// Where the weave router answers the agent.
    pub(crate) fn weave_socket(&self) -> PathBuf {
        self.run.join("weave.sock")
    }

    /// Everything of consul that survives a reboot.
    pub(crate) fn consul(&self) -> PathBuf {
        self.state.join("consul")
    }

    /// Where consul answers the agent.
    pub(crate) fn consul_socket(&self) -> PathBuf {
        self.run.join("consul.sock")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// Labels of docker's containers that were changed.
    pub(crate) fn labels(&self) -> PathBuf {
        self.state.join("labels.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("agent.log")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.run.join("agent.lock")
    }
}
