//! Secrets that a host keeps, and whether a text tells one.

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde_json::Value;

/// Keys and hashes are as long as this, and kept as numbers.
const LENGTH: usize = 32;

/// All that is kept as bytes of a key's length.
pub(super) fn kept_in(value: &Value) -> Vec<Vec<u8>> {
    match value {
        Value::Object(fields) => fields.values().flat_map(kept_in).collect(),
        Value::Array(values) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            match values.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) if bytes.len() == LENGTH => vec![bytes],
                _ => values.iter().flat_map(kept_in).collect(),
            }
        }
        _ => Vec::new(),
    }
}

/// Whether a text has these bytes in it, in one of the ways in which bytes are written.
pub(super) fn is_told(secret: &[u8], text: &str) -> bool {
    let numbers: Vec<String> = secret.iter().map(ToString::to_string).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let lower = text.to_ascii_lowercase();
    [
        numbers.join(","),
        numbers.join(", "),
        BASE64_STANDARD_NO_PAD.encode(secret),
    ]
    .iter()
    .any(|form| text.contains(form))
        || lower.contains(&hex)
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let key: Vec<u8> = (100..132).collect();
    let short: Vec<u8> = (0..16).collect();
    let kept =
        serde_json::json!({"me": {"key": {"id": 1, "key": key}, "salt": short}, "all": [[key]]});
    assert_eq!(kept_in(&kept), [key.clone(), key.clone()]);
    for text in [
        kept.to_string(),
        format!("{key:?}"),
        key.iter().map(|byte| format!("{byte:02X}")).collect(),
        format!("key={}", BASE64_STANDARD_NO_PAD.encode(&key)),
    ] {
        assert!(is_told(&key, &text), "{text}");
    }
    assert!(!is_told(&key, &format!("{:?}", &key[1..])));
}
