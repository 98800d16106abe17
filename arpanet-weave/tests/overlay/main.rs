//! The overlay between hosts in namespaces, each with a router of its own: the tests' one, or the real one where
//! `ARPANET_WEAVER` names it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod contract;
#[path = "../fake/mod.rs"]
mod fake;
mod faults;
mod real;
mod shapes;
mod site;
mod traps;
mod underlay;
