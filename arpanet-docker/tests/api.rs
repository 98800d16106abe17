//! The docker API on the overlay, before an engine that says what the test wants, and before a real one.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod engines;
#[path = "api/real.rs"]
mod real;
#[path = "api/scripted.rs"]
mod scripted;
#[path = "api/speed.rs"]
mod speed;
