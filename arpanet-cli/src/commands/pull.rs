//! `arpanet2 pull IMAGE`

use arpanet_core::runtime::{PullPolicy, PullRequest, PulledImage};
use arpanet_core::{Error, ErrorKind, Result};
use clap::Args;
use reqwest::Method;

use super::{Context, lines};
use crate::agent::images::PullNews;
use crate::client::Agent;
use crate::layers::Layers;
use crate::output::say;
use crate::registry_login;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image, as in nginx:1 or registry.example:5000/team/web:1
    image: String,
}

pub(crate) async fn run(context: &Context, args: PullArgs) -> Result<()> {
    let request = PullRequest::new(args.image).policy(PullPolicy::Always);
    let image = pull(&context.agent()?, request).await?;
    if !image.is_new {
        say(format!("{} is as it was", image.image));
    }
    context.printer.result(&image, |image| image.id.clone())
}

/// Has the agent make an image present, with the credentials that docker's client would use, and shows how far it is.
pub(super) async fn pull(agent: &Agent, request: PullRequest) -> Result<PulledImage> {
    if request.policy == PullPolicy::Missing {
        // Whoever keeps credentials is not asked for what is here.
        let here = request.clone().policy(PullPolicy::Never);
        match attempt(agent, &here).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            known => return known,
        }
    }
    let credentials = match request.policy {
        PullPolicy::Never => None,
        _ => match registry_login::find(request.registry()).await {
            Ok(credentials) => credentials,
            Err(error) => {
                say(format!("warning: pulling without credentials: {error}"));
                None
            }
        },
    };
    attempt(agent, &request.credentials(credentials)).await
}

async fn attempt(agent: &Agent, request: &PullRequest) -> Result<PulledImage> {
    let asked = agent.request(Method::POST, "/v1/images/pull").json(request);
    let mut told = lines::of(agent.send(asked).await?);
    let mut layers = Layers::begin(&request.image);
    while let Some(news) = told.next().await? {
        match news {
            PullNews::Layer(progress) => layers.show(&progress),
            PullNews::Done(image) => return Ok(image),
            PullNews::Failed(failure) => {
                layers.end();
                return Err(failure.into());
            }
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "the agent did not tell how the pull ended",
    ))
}

#[cfg(test)]
mod tests {
    use arpanet_core::Cluster;
    use arpanet_core::memory::World;
    use arpanet_core::runtime::Runtime;
    use std::sync::Arc;

    use super::*;
    use crate::paths::Paths;

    /// An agent that pulls in a simulated world, and does nothing else.
    struct Scene {
        world: World,
        agent: Agent,
        server: tokio::task::JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    async fn scene() -> Scene {
        let world = World::with_nodes(1).await;
        let cluster = Cluster::builder()
            .node("0.1".parse().unwrap())
            .overlay(Arc::new(world.overlay("0.1")))
            .discovery(Arc::new(world.discovery("0.1")))
            .admission(Arc::new(world.admission("0.1")))
            .runtime(Arc::new(world.runtime("0.1")))
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("state"), folder.path().to_owned());
        let listener = tokio::net::UnixListener::bind(paths.socket()).unwrap();
        let routes = axum::Router::new().nest("/v1/images", crate::agent::images::routes(cluster));
        Scene {
            world,
            agent: Agent::new(&paths).unwrap(),
            server: tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }),
            _folder: folder,
        }
    }

    #[tokio::test]
    async fn an_image_comes_with_its_layers_and_is_there() {
        let scene = scene().await;
        let request = PullRequest::new("web:1");
        let asked = scene.agent.request(Method::POST, "/v1/images/pull");
        let mut told = lines::of(scene.agent.send(asked.json(&request)).await.unwrap());
        let mut news = Vec::new();
        while let Some(one) = told.next::<PullNews>().await.unwrap() {
            news.push(one);
        }
        let (end, layers) = news.split_last().unwrap();
        assert!(matches!(end, PullNews::Done(image) if image.is_new));
        assert!(layers.len() >= 2, "{news:?}");
        for layer in layers {
            assert!(matches!(layer, PullNews::Layer(_)), "{layer:?}");
        }
        let again = attempt(&scene.agent, &request).await.unwrap();
        assert!(!again.is_new);
        let never = request.policy(PullPolicy::Never);
        let pull = scene.world.runtime("0.1").pull(&never).await.unwrap();
        pull.done().await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_kind_on_the_way() {
        let scene = scene().await;
        for (image, policy, kind) in [
            ("nonexistent", PullPolicy::Always, ErrorKind::NotFound),
            ("web", PullPolicy::Never, ErrorKind::NotFound),
            (
                "private/web",
                PullPolicy::Missing,
                ErrorKind::Unauthenticated,
            ),
            ("", PullPolicy::Missing, ErrorKind::InvalidInput),
        ] {
            let request = PullRequest::new(image).policy(policy);
            let error = attempt(&scene.agent, &request).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{image} {policy}: {error}");
        }
    }
}
