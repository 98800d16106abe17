//! What the engine tells while it pulls: an object of JSON for each step. Pure.

use arpanet_core::runtime::{PullPhase, PullProgress};
use serde::Deserialize;

/// The longest object that is waited for, in bytes.
const LONGEST: usize = 1 << 20;

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// How far a layer is.
    Layer(PullProgress),
    /// Why there will be no image, in the engine's words.
    Failed(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    status: Option<String>,
    id: Option<String>,
    #[serde(rename = "progressDetail")]
    detail: Option<Detail>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    message: Option<String>,
}

impl Step {
    /// `None` for what is of the image as a whole, and for what later engines may tell.
    fn read(self) -> Option<Told> {
        let failed = self.error_detail.and_then(|detail| detail.message);
        if let Some(words) = failed.or(self.error) {
            return Some(Told::Failed(words));
        }
        let phase = phase(self.status.as_deref()?)?;
        let progress = PullProgress::new(self.id.filter(|id| !id.is_empty())?, phase);
        let detail = self.detail.unwrap_or_default();
        let count = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let total = count(detail.total).filter(|total| *total > 0);
        // Some engines count what is on the wire, and end beyond the total.
        let current = count(detail.current).unwrap_or(0);
        let current = total.map_or(current, |total| current.min(total));
        Some(Told::Layer(progress.bytes(current, total)))
    }
}

fn phase(status: &str) -> Option<PullPhase> {
    Some(match status {
        "Pulling fs layer" | "Waiting" => PullPhase::Waiting,
        "Downloading" => PullPhase::Downloading,
        "Verifying Checksum" => PullPhase::Verifying,
        "Download complete" => PullPhase::Downloaded,
        "Extracting" => PullPhase::Extracting,
        "Pull complete" => PullPhase::Done,
        "Already exists" => PullPhase::Present,
        _ if status.starts_with("Retrying in ") => PullPhase::Waiting,
        _ => return None,
    })
}

/// Cuts the stream into steps.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<u8>);

impl Steps {
    /// What the next piece of the stream completes.
    ///
    /// # Errors
    /// What can't be read.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<Told>, serde_json::Error> {
        self.0.extend_from_slice(piece);
        let mut told = Vec::new();
        let mut read = 0;
        // Engines differ in whether they end an object with a line.
        let mut steps = serde_json::Deserializer::from_slice(&self.0).into_iter::<Step>();
        while let Some(step) = steps.next() {
            match step {
                Ok(step) => told.extend(step.read()),
                Err(error) if error.is_eof() && self.0.len() - read < LONGEST => break,
                Err(error) => return Err(error),
            }
            read = steps.byte_offset();
        }
        self.0.drain(..read);
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As docker 20.10 tells it, shortened.
    const STREAM: &str = concat!(
        "{\"status\":\"Pulling from team/web\",\"id\":\"1\"}\r\n",
        "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"83ec\"}\r\n",
        "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":32303,\"total\":3145728},\"progress\":\"[> ]\",\"id\":\"83ec\"}\r\n",
        "{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"00aa\"}\r\n",
        "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"83ec\"}\r\n",
        "{\"status\":\"Digest: sha256:0011\"}\r\n",
        "{\"status\":\"Status: Downloaded newer image for 127.0.0.1:5000/team/web:1\"}\r\n",
    );

    fn wanted() -> Vec<Told> {
        [
            PullProgress::new("83ec", PullPhase::Waiting),
            PullProgress::new("83ec", PullPhase::Downloading).bytes(32_303, Some(3_145_728)),
            PullProgress::new("00aa", PullPhase::Present),
            PullProgress::new("83ec", PullPhase::Done),
        ]
        .map(Told::Layer)
        .into()
    }

    #[test]
    fn layers_are_told_however_the_stream_is_cut() {
        for size in [1, 7, 100, STREAM.len()] {
            let mut steps = Steps::default();
            let pieces = STREAM.as_bytes().chunks(size);
            let told: Vec<Told> = pieces
                .flat_map(|piece| steps.take(piece).unwrap())
                .collect();
            assert_eq!(told, wanted(), "{size} bytes at a time");
        }
    }

    #[test]
    fn an_error_in_the_stream_is_the_engine_s_words() {
        for (line, words) in [
            (
                r#"{"errorDetail":{"message":"no space"},"error":"no space left"}"#,
                "no space",
            ),
            (r#"{"error":"manifest unknown"}"#, "manifest unknown"),
        ] {
            let told = Steps::default().take(line.as_bytes()).unwrap();
            assert_eq!(told, [Told::Failed(words.to_owned())]);
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_none() {
        let line = r#"{"status":"Downloading","progressDetail":{"current":9,"total":-1},"id":"a"}
            {"status":"Downloading","progressDetail":{"current":12,"total":9},"id":"a"}"#;
        let told = Steps::default().take(line.as_bytes()).unwrap();
        let at = |current, total| {
            Told::Layer(PullProgress::new("a", PullPhase::Downloading).bytes(current, total))
        };
        assert_eq!(told, [at(9, None), at(9, Some(9))]);
    }

    #[test]
    fn what_is_no_stream_of_objects_is_refused() {
        assert!(Steps::default().take(b"<html>").is_err());
        let endless = vec![b' '; 10];
        assert!(Steps::default().take(&endless).unwrap().is_empty());
        let long = [b"{\"status\":\"".to_vec(), vec![b'a'; LONGEST]].concat();
        assert!(Steps::default().take(&long).is_err());
    }
}
