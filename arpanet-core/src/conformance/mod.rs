//! Suites that say whether a backend keeps the contract of its trait: for everyone who writes one.
//!
//! Behind the feature `conformance`, which belongs into `[dev-dependencies]`. A backend's author implements the rig of
//! the layer, [`DiscoveryRig`], [`OverlayRig`], [`RuntimeRig`] or [`KeyValueRig`]: a few nodes that the suite may start, kill, restart and, where the rig is able to, cut off.
//! Each check stands for one sentence of the trait's documentation and runs on a rig of its own; what neither the backend
//! (by its capabilities) nor the rig can do is skipped, and the [`Report`] lists it.
//!
//! The suites wait for conditions, never for a time: on a paused clock they take milliseconds.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arpanet_core::Discovery;
//! use arpanet_core::admission::Membership;
//! use arpanet_core::conformance::{self, DiscoveryRig};
//! use arpanet_core::memory::World;
//! use arpanet_core::roster::RosterEntry;
//! use async_trait::async_trait;
//!
//! /// Three nodes of the simulated world, which form a cluster.
//! struct Rig(World, Vec<Membership>);
//!
//! #[async_trait]
//! impl DiscoveryRig for Rig {
//!     fn memberships(&self) -> &[Membership] {
//!         &self.1
//!     }
//!     fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
//!         Arc::new(self.0.discovery(self.1[node].me.node))
//!     }
//!     async fn kill(&self, node: usize) {
//!         self.0.kill(self.1[node].me.node);
//!     }
//!     async fn restart(&self, node: usize) {
//!         self.0.start(self.1[node].me.node);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let report = conformance::discovery(|| async {
//!     let world = World::new(1);
//!     let memberships = world.memberships(3).await.unwrap();
//!     Rig(world, memberships)
//! })
//! .await;
//! report.assert_kept();
//! assert!(report.skipped().any(|check| check.name() == "a_cut_node_is_suspended_and_back_by_itself"));
//! # }
//! ```

pub mod bytes;
mod check;
mod discovery;
mod key_value;
pub mod live;
mod overlay;
mod report;
mod runtime;
pub mod seeds;

pub use self::discovery::{DiscoveryRig, discovery};
pub use self::key_value::{KeyValueRig, key_value};
pub use self::overlay::{OverlayRig, Ping, PingFrom, overlay};
pub use self::report::{CheckReport, Outcome, Report};
pub use self::runtime::{Program, RuntimeRig, runtime};
