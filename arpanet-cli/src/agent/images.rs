//! Pulls on the agent's API. What is told comes as lines of JSON.

use arpanet_core::Cluster;
use arpanet_core::runtime::{Pull, PullProgress, PullRequest, PulledImage};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::api::ApiError;
use super::kv::line;
use crate::failure::Failure;

/// What is told of a pull, line by line; the last is its end. It is given up when the client stops to listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PullNews {
    /// How far a layer is.
    Layer(PullProgress),
    /// The image is here.
    Done(PulledImage),
    /// Why it is not.
    Failed(Failure),
}

pub(crate) fn routes<S>(cluster: Cluster) -> Router<S> {
    Router::new().route("/pull", post(pull)).with_state(cluster)
}

async fn pull(
    State(cluster): State<Cluster>,
    Json(request): Json<PullRequest>,
) -> Result<Response, ApiError> {
    let pull = cluster.runtime()?.pull(&request).await?;
    Ok(follow(pull).into_response())
}

fn follow(pull: Pull) -> Body {
    let lines = stream::unfold(Some(pull), async |pull| {
        let mut pull = pull?;
        if let Some(progress) = pull.next().await {
            return Some((line(&PullNews::Layer(progress)), Some(pull)));
        }
        let end = match pull.done().await {
            Ok(image) => PullNews::Done(image),
            Err(error) => PullNews::Failed(Failure::from(&error)),
        };
        Some((line(&end), None))
    });
    Body::from_stream(Box::pin(lines))
}

#[cfg(test)]
mod tests {
    use arpanet_core::runtime::PullPhase;
    use futures_util::StreamExt;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_pull_that_nobody_listens_to_is_given_up() {
        let (held, mut gone) = mpsc::channel::<()>(1);
        let pull = Pull::spawn(async move |reporter| {
            let _held = held;
            reporter.tell(PullProgress::new("a", PullPhase::Downloading));
            std::future::pending().await
        });
        let mut told = follow(pull).into_data_stream();
        let first = told.next().await.unwrap().unwrap();
        let first: PullNews = serde_json::from_slice(&first).unwrap();
        assert!(matches!(first, PullNews::Layer(layer) if layer.layer == "a"));
        drop(told);
        assert_eq!(gone.recv().await, None);
    }
}
