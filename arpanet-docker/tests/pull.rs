//! Pulls of a real engine from a registry of the test's own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod engines;
mod registry;

use std::error::Error as _;
use std::time::Duration;

use arpanet_core::runtime::{
    ContainerSpec, ContainerState, PullPhase, PullPolicy, PullRequest, PulledImage,
    RegistryCredentials, Runtime,
};
use arpanet_core::{Error, ErrorKind};
use arpanet_docker::{DockerConfig, DockerRuntime};
use arpanet_lab::{Ending, Engine};
use tokio::time::timeout;

use self::engines::have;
use self::registry::Registry;

const BOUND: Duration = Duration::from_secs(60);

struct Scene {
    engine: Engine,
    runtime: DockerRuntime,
    registry: Registry,
}

/// Docker's engine, and a registry beside it.
async fn scene() -> Option<Scene> {
    if !have("docker", "/usr/sbin/dockerd") {
        return None;
    }
    Some(Scene::of(Engine::start().await.unwrap()).await)
}

impl Scene {
    async fn of(engine: Engine) -> Self {
        let config = DockerConfig::default().socket(engine.socket());
        Self {
            runtime: DockerRuntime::connect(config).await.unwrap(),
            registry: Registry::serve(&engine.namespace().unwrap()).await,
            engine,
        }
    }

    async fn pull(&self, request: &PullRequest) -> Result<PulledImage, Error> {
        let pull = self.runtime.pull(request).await?;
        timeout(BOUND, pull.done()).await.expect("it does not end")
    }

    /// Why a pull fails: its sentence, the engine's words, the way out.
    async fn refused(&self, request: &PullRequest, kind: ErrorKind) -> String {
        let error = self.pull(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}: {:?}", error.source());
        let words = error.source().unwrap().to_string();
        assert!(words.starts_with("the engine says: "), "{words}");
        format!("{error} ({})", error.hint().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_with_their_bytes_and_the_image_runs() {
    let Some(scene) = scene().await else { return };
    let request = PullRequest::new(scene.registry.image("team/web:1"));
    scene.registry.hold(true);
    let mut pull = scene.runtime.pull(&request).await.unwrap();
    let halfway = async {
        loop {
            let progress = pull.next().await.unwrap();
            if progress.phase == PullPhase::Downloading && progress.current > 0 {
                return progress;
            }
        }
    };
    let halfway = timeout(BOUND, halfway).await.expect("no bytes were told");
    assert!(halfway.current < halfway.total.unwrap(), "{halfway:?}");
    scene.registry.hold(false);
    let mut ended = 0;
    while let Some(progress) = pull.next().await {
        ended += usize::from(progress.phase == PullPhase::Done);
    }
    assert_eq!(ended, 3, "busybox, and two of its own");
    let image = pull.done().await.unwrap();
    assert!(image.is_new && image.id.starts_with("sha256:"), "{image:?}");
    let mut spec = ContainerSpec::image(&request.image).named("w1".parse().unwrap());
    spec.command = ["sh", "-c", "exit 7"].map(str::to_owned).to_vec();
    let made = scene.runtime.create(&spec).await.unwrap();
    scene.runtime.start(&made.name).await.unwrap();
    assert_eq!(scene.runtime.stop(&made.name).await.unwrap(), 7);
    let state = scene.runtime.inspect(&made.name).await.unwrap().state;
    assert_eq!(state, ContainerState::Exited { code: 7 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_dropped_is_given_up_by_the_engine_too() {
    let Some(scene) = scene().await else { return };
    let request = PullRequest::new(scene.registry.image("team/web:1"));
    scene.registry.hold(true);
    let mut pull = scene.runtime.pull(&request).await.unwrap();
    let begun = async { while pull.next().await.unwrap().phase != PullPhase::Downloading {} };
    timeout(BOUND, begun).await.expect("nothing came");
    drop(pull);
    // The engine reads on until the next bytes come; that it gives up is only in its log.
    let log = scene.engine.log();
    let given_up = async {
        let said = || std::fs::read_to_string(&log).unwrap();
        while !said().contains("context canceled") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, given_up).await.expect("it goes on");
    scene.registry.hold(false);
    scene.registry.idle().await;
    let never = request.clone().policy(PullPolicy::Never);
    let error = scene.pull(&never).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(scene.pull(&request).await.unwrap().is_new);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_what_it_is_and_what_to_do() {
    if let Some(scene) = scene().await {
        refuses(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_refuses_in_words_that_are_known() {
    if have("podman", "/usr/bin/podman") {
        refuses(&Scene::of(Engine::start_podman().await.unwrap()).await).await;
    }
}

async fn refuses(scene: &Scene) {
    let registry = &scene.registry;
    let missing = PullRequest::new(registry.image("nonexistent:1"));
    let told = scene.refused(&missing, ErrorKind::NotFound).await;
    assert!(told.contains("its registry does not have it"), "{told}");

    let free = scene.engine.namespace().unwrap();
    let free = free.run(|| std::net::TcpListener::bind("127.0.0.1:0"));
    let free = free.unwrap().unwrap().local_addr().unwrap();
    let nobody = PullRequest::new(format!("{free}/web:1"));
    let told = scene.refused(&nobody, ErrorKind::Unavailable).await;
    assert!(told.contains("out of reach"), "{told}");
    let elsewhere = PullRequest::new("registry.invalid/web:1");
    let told = scene.refused(&elsewhere, ErrorKind::Unavailable).await;
    assert!(told.contains("registry.invalid"), "{told}");

    // Characters that are told in two ways in base64.
    let password = "Pears?>~";
    registry.admit_only("jane", password);
    let wanted = PullRequest::new(registry.image("team/web:1"));
    let told = scene.refused(&wanted, ErrorKind::Unauthenticated).await;
    assert!(told.contains("docker login 127.0.0.1"), "{told}");
    let with = |password| {
        let credentials = RegistryCredentials::password("jane", password);
        wanted.clone().credentials(Some(credentials))
    };
    let wrong = with("Apples?>~");
    let told = scene.refused(&wrong, ErrorKind::Unauthenticated).await;
    assert!(told.contains("does not take these"), "{told}");
    assert!(!told.contains("Apples"), "{told}");
    let image = scene.pull(&with(password)).await.unwrap();
    assert!(image.is_new);

    // What is here needs nobody's leave, unless the registry is asked again.
    let again = scene.pull(&wanted).await.unwrap();
    assert_eq!((again.id, again.is_new), (image.id, false));
    let always = wanted.clone().policy(PullPolicy::Always);
    scene.refused(&always, ErrorKind::Unauthenticated).await;
    let always = with(password).policy(PullPolicy::Always);
    assert!(!scene.pull(&always).await.unwrap().is_new);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_away_or_is_not_there_is_told() {
    let Some(mut scene) = scene().await else {
        return;
    };
    scene.registry.hold(true);
    let request = PullRequest::new(scene.registry.image("team/web:1"));
    let mut pull = scene.runtime.pull(&request).await.unwrap();
    let begun = async { while pull.next().await.unwrap().phase != PullPhase::Downloading {} };
    timeout(BOUND, begun).await.expect("nothing came");
    scene.engine.end(Ending::AtOnce).await.unwrap();
    let ended = timeout(BOUND, pull.done()).await.expect("it goes on");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = scene.pull(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().is_some());
}
