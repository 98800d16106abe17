//! In-memory backends in one simulated world: clusters of a hundred nodes in a test, without root, docker or a network.
//!
//! A [`World`] has hosts, and each host all backends: they obey the same contracts as the real ones, their words travel
//! over a simulated underlay that a test can cut, heal and slow down, and hosts lose their power when a test says so.
//! Time is tokio's: in a test with `start_paused = true` seconds pass in microseconds, and the same seed gives the same
//! world.
//!
//! ```
//! use arpanet_core::discovery::{Discovery, Instance};
//! use arpanet_core::memory::World;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), arpanet_core::Error> {
//! let world = World::with_nodes(3).await;
//! let node = "0.2".parse()?;
//! let web = Instance::new("web-1".parse()?, "web".parse()?, "10.1.0.5".parse().unwrap(), 80, node);
//! world.discovery("0.2").register(web).await?;
//! assert_eq!(world.lookup("0.1", "web").len(), 1);
//!
//! world.cut("0.2");
//! world.settle().await;
//! assert!(world.lookup("0.1", "web").is_empty()); // suspended, not forgotten
//!
//! world.heal("0.2");
//! world.settle().await;
//! assert_eq!(world.lookup("0.1", "web").len(), 1);
//! # Ok(())
//! # }
//! ```

mod admission;
mod catalogue;
mod containers;
mod discovery;
mod election;
mod form;
mod images;
mod key_value;
mod keys;
mod network;
mod observe;
mod overlay;
mod ping;
mod place;
mod power;
mod prober;
mod router;
mod runtime;
mod spread;
mod state;
mod underlay;
mod world;

pub use self::admission::{MemoryAdmission, MemoryStore};
pub use self::discovery::MemoryDiscovery;
pub use self::key_value::MemoryKeyValue;
pub use self::overlay::MemoryOverlay;
pub use self::place::{Origin, Place};
pub use self::prober::{Ailment, MemoryProber};
pub use self::runtime::MemoryRuntime;
pub use self::world::{Host, World};
