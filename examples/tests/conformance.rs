//! The backend of one's own keeps the contract of its trait.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arpanet_core::Discovery;
use arpanet_core::admission::Membership;
use arpanet_core::conformance::{self, DiscoveryRig};
use arpanet_core::memory::World;
use async_trait::async_trait;
use examples::directory::DirectoryDiscovery;

/// A directory of this test's own, removed in the end.
struct Rig {
    directory: PathBuf,
    memberships: Vec<Membership>,
    nodes: Vec<Arc<dyn Discovery>>,
}

impl Rig {
    async fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("arpanet-directory-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        // The memberships of three nodes that know each other; nothing else of the simulated world is used.
        let memberships = World::new(1).memberships(3).await.unwrap();
        let node = |_| Arc::new(DirectoryDiscovery::new(&directory)) as Arc<dyn Discovery>;
        let nodes = (0..3).map(node).collect();
        Self {
            directory,
            memberships,
            nodes,
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[async_trait]
impl DiscoveryRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
        Arc::clone(&self.nodes[node])
    }

    async fn kill(&self, node: usize) {
        // Its page stays, and stands still.
        self.nodes[node].stop().await.unwrap();
    }

    async fn restart(&self, _: usize) {}
}

#[tokio::test(start_paused = true)]
async fn a_shared_directory_is_a_discovery() {
    let report = conformance::discovery(Rig::new).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert!(skipped.contains(&"an_admitted_node_is_in_every_roster"));
    assert!(report.checks().len() - skipped.len() > 30, "{report}");
}
