//! The in-memory backends keep the contracts, and backends that break one sentence are found out.
#![allow(clippy::unwrap_used)]

mod broken_discovery;
mod broken_key_value;
mod broken_overlay;
mod broken_runtime;
mod discovery;
mod key_value;
mod overlay;
mod runtime;
