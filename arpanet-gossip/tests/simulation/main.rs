//! The protocol in virtual time, as a user would see it. The same seed does the same.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod chaos;
mod failures;
mod hostile;
mod keys;
mod large;
mod spreading;
mod world;
