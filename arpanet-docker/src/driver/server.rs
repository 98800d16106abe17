//! The socket at which the engine finds the driver.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arpanet_core::{Error, ErrorKind, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::NetworkDriver;
use super::protocol::CONTENT_TYPE;

/// Where engines look for it.
pub const SOCKET: &str = "/run/docker/plugins/arpanet.sock";

/// The driver while it answers. Dropped, it answers no more, and its socket is gone.
#[derive(Debug)]
pub struct DriverServer {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl DriverServer {
    /// Answers at a socket, which only root may open. What an earlier process left there is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the socket can't be made.
    pub fn start(driver: Arc<NetworkDriver>, socket: impl Into<PathBuf>) -> Result<Self> {
        let socket = socket.into();
        let listener = listen(&socket).map_err(|source| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the socket {} can't be made", socket.display()),
            )
            .with_source(source)
        })?;
        let router = Router::new().fallback(answer).with_state(driver);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the network driver answers no more");
            }
        });
        Ok(Self { socket, task })
    }
}

impl Drop for DriverServer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Never without a socket: a new one takes the old one's place.
pub(super) fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    // Engines take what ends in `.sock` or `.spec` for a plugin.
    let beside = socket.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&beside, socket)?;
    Ok(listener)
}

async fn answer(State(driver): State<Arc<NetworkDriver>>, uri: Uri, body: Bytes) -> Response {
    let method = uri.path().trim_start_matches('/').to_owned();
    // To its end, also when the engine hangs up: what was begun is kept, and found again when it asks again.
    let done = tokio::spawn(async move { driver.answer(&method, &body).await });
    match done.await {
        Ok(answer) => {
            let status = match answer.known {
                true => StatusCode::OK,
                false => StatusCode::NOT_FOUND,
            };
            (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], answer.body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
