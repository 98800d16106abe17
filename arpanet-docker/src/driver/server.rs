//! The socket at which the driver answers.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arpanet_core::{Error, ErrorKind, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::journal::Journal;
use super::protocol::CONTENT_TYPE;
use super::{Answer, NetworkDriver};

/// Where engines look for it.
pub const SOCKET: &str = "/run/docker/plugins/arpanet.sock";

/// The driver while it answers. Dropped, it answers no more, and its socket is gone.
#[derive(Debug)]
pub struct DriverServer {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl DriverServer {
    /// Brings back what was promised to the engine before, does what is in the journal of the [`keeper`](super::keep), and
    /// answers at a socket, which only root may open: the engine's, where there is no keeper, or the one that the keeper
    /// hands on to. What an earlier process left there is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the socket can't be made, [`ErrorKind::Internal`] when the journal can't be read.
    pub async fn start(
        driver: Arc<NetworkDriver>,
        socket: impl Into<PathBuf>,
        journal: Option<&Path>,
    ) -> Result<Self> {
        let socket = socket.into();
        let listener = listen(&socket)?;
        // Listening from here on: who finds nobody any more writes to the journal before we have its lock, or never.
        if let Some(journal) = journal {
            let mut journal = Journal::lock(journal).await?;
            for ended in journal.read()? {
                driver.answer(&ended.method, ended.body.as_bytes()).await;
            }
            journal.clear()?;
        }
        driver.restore().await;
        let task = tokio::spawn(serve(listener, move |method, body| {
            let driver = Arc::clone(&driver);
            async move { driver.answer(&method, &body).await }
        }));
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
pub(super) fn listen(socket: &Path) -> Result<UnixListener> {
    let bind = || -> io::Result<UnixListener> {
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
    };
    bind().map_err(|source| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the socket {} can't be made", socket.display()),
        )
        .with_source(source)
    })
}

/// Answers for ever.
pub(super) async fn serve<F>(
    listener: UnixListener,
    answer: impl Fn(String, Bytes) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let handler = move |uri: Uri, body: Bytes| {
        let method = uri.path().trim_start_matches('/').to_owned();
        // To its end, also when the engine hangs up: what was begun is kept, and found again when it asks again.
        let done = tokio::spawn(answer(method, body));
        async move {
            match done.await {
                Ok(answer) => write(answer),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    if let Err(error) = axum::serve(listener, Router::new().fallback(handler)).await {
        tracing::error!(%error, "the network driver answers no more");
    }
}

fn write(answer: Answer) -> Response {
    let status = match answer.known {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], answer.body).into_response()
}
