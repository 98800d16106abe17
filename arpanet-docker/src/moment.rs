//! Docker's times: RFC 3339, to the nanosecond.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment; `None` for what is none, and for docker's zero, the year 1.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (moment.unix_timestamp() > 0).then(|| moment.into())
}

/// As docker reads one.
pub(crate) fn seconds(moment: SystemTime) -> String {
    let since = moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_read_to_the_nanosecond() {
        for (text, wanted) in [
            ("2000-02-29T12:00:00Z", (951_825_600, 0)),
            (
                "2026-11-24T21:45:29.850278257Z",
                (1_795_556_729, 850_278_257),
            ),
            ("2026-11-24T22:45:29.5+01:00", (1_795_556_729, 500_000_000)),
        ] {
            let wanted = SystemTime::UNIX_EPOCH + Duration::new(wanted.0, wanted.1);
            assert_eq!(parse(text), Some(wanted), "{text}");
        }
        for text in ["", "now", "0001-01-01T00:00:00Z", "2026-11-24T21:45:29"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn moments_are_told_to_the_nanosecond() {
        let moment = SystemTime::UNIX_EPOCH + Duration::new(12, 34);
        assert_eq!(seconds(moment), "12.000000034");
    }
}
