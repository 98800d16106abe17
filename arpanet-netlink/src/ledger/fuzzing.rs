//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use super::journal::parse;

/// Any bytes as a ledger: what stands in it does not depend on a last line that was not finished, and what was read of it
/// once is read again.
pub fn ledger(bytes: &[u8]) {
    let Ok((records, whole)) = parse(bytes) else {
        return;
    };
    assert!(whole <= bytes.len());
    let (again, all) = parse(&bytes[..whole]).unwrap();
    assert_eq!((&again, all), (&records, whole));
    let unfinished = [&bytes[..whole], b"{\"change"].concat();
    assert_eq!(parse(&unfinished).unwrap(), (records, whole));
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn any_bytes_are_a_ledger_or_none() {
        hold(seeds("ledger"), 10_000, super::ledger);
    }
}
