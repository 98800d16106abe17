//! Whether a network of the engine's is one of the overlay's.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::driver::DRIVER;

/// An engine that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const LONGEST: u64 = 4 << 20;

/// Asks the engine. One that does not know it, or does not answer, says no.
pub(super) async fn is_on_overlay(engine: &Path, network: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !network.bytes().all(plain) {
        return false;
    }
    let answer = timeout(PATIENCE, ask(engine, network)).await;
    matches!(answer, Ok(Ok(driver)) if driver == DRIVER)
}

/// The driver of a network. By HTTP/1.0, which ends the answer with the connection.
async fn ask(engine: &Path, network: &str) -> std::io::Result<String> {
    let mut engine = UnixStream::connect(engine).await?;
    let request = format!("GET /networks/{network} HTTP/1.0\r\nHost: docker\r\n\r\n");
    engine.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    engine.take(LONGEST).read_to_end(&mut answer).await?;
    let body = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .map(|at| &answer[at + 4..]);
    let network: Value = serde_json::from_slice(body.unwrap_or_default())?;
    Ok(network["Driver"].as_str().unwrap_or_default().to_owned())
}
