#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
pub mod admission;
pub mod claim;
pub mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod discovery;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod health;
pub mod kv;
pub mod label;
pub mod memory;
#[cfg(feature = "mock")]
pub mod mock;
pub mod name;
pub mod overlay;
mod random;
pub mod roster;
pub mod runtime;
pub mod transport;
pub mod watch;
pub mod why;

#[doc(inline)]
pub use self::addr::{AppAddr, AppNet, NodeAddr, Plane};
#[doc(inline)]
pub use self::claim::Claim;
#[doc(inline)]
pub use self::cluster::Cluster;
#[doc(inline)]
pub use self::discovery::Discovery;
pub use self::error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use self::health::Prober;
#[doc(inline)]
pub use self::kv::KeyValue;
#[doc(inline)]
pub use self::name::{ContainerName, EndpointId, InstanceId, NodeName, ServiceName, Tag};
#[doc(inline)]
pub use self::overlay::Overlay;
#[doc(inline)]
pub use self::roster::{Roster, RosterEntry};
#[doc(inline)]
pub use self::runtime::Runtime;
#[doc(inline)]
pub use self::transport::Datagrams;
