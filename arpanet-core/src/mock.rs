//! Mocks of all traits, made by [mockall]: for tests that say which calls are made, in what order, with what answers.
//!
//! Behind the feature `mock`, which belongs into `[dev-dependencies]`:
//! `arpanet-core = { version = "0.1", features = ["mock"] }`. A test that wants a whole cluster to behave is better served by
//! the simulated [world](crate::memory); a mock is for the calls themselves, and for failures that no world would have.
//!
//! A mock answers only what it was told to: every other call panics, and so does one that was expected and did not come.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arpanet_core::discovery::{Discovery, Instance};
//! use arpanet_core::mock::{self, MockDiscovery};
//! use arpanet_core::{Error, ErrorKind, Result};
//!
//! /// What is tested: it tries twice.
//! async fn backends(discovery: &dyn Discovery) -> Result<Vec<Instance>> {
//!     let web = "web".parse()?;
//!     match discovery.lookup(&web).await {
//!         Err(error) if error.is_retryable() => discovery.lookup(&web).await,
//!         answer => answer,
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let mut discovery = MockDiscovery::new();
//! let mut order = mock::Sequence::new();
//! discovery.expect_lookup().times(1).in_sequence(&mut order)
//!     .returning(|_| Err(Error::new(ErrorKind::Unavailable, "the agent restarts")));
//! discovery.expect_lookup().times(1).in_sequence(&mut order)
//!     .returning(|service| Ok(vec![Instance::new(
//!         "web-1".parse()?, service.clone(), "10.1.0.5".parse().unwrap(), 80, "0.2".parse()?,
//!     )]));
//! let discovery: Arc<dyn Discovery> = Arc::new(discovery);
//! assert_eq!(backends(&*discovery).await?.len(), 1);
//! # Ok(())
//! # }
//! ```

pub use mockall::{Sequence, predicate};

pub use crate::admission::{MockAdmission, MockGatekeeper, MockMembershipStore};
pub use crate::cluster::MockFacility;
pub use crate::discovery::MockDiscovery;
pub use crate::health::MockProber;
pub use crate::kv::MockKeyValue;
pub use crate::overlay::MockOverlay;
pub use crate::runtime::MockRuntime;
pub use crate::transport::MockDatagrams;
