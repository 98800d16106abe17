//! The cluster logic on mocks: which calls it makes, in what order, and what it takes back when one of them fails.
#![allow(clippy::unwrap_used)]

mod away;
mod departures;
mod journal;
mod order;
mod rig;
mod rollback;
mod run;
