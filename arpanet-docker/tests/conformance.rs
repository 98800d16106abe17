//! The suite that every runtime keeps, on a real engine, and what is the engine's own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod engines;
mod registry;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::Runtime;
use arpanet_core::conformance::{self, RuntimeRig};
use arpanet_core::runtime::{ContainerSpec, ContainerState, RestartPolicy};
use arpanet_docker::{DockerConfig, DockerRuntime};
use arpanet_lab::{Engine, IMAGE};
use async_trait::async_trait;

use self::engines::have;
use self::registry::Registry;

/// A host with an engine, and a registry that it reaches.
struct Host {
    registry: Registry,
    config: DockerConfig,
    /// Of the present process. Podman takes a second to tell its version, which each process asks for once.
    runtime: Mutex<Arc<DockerRuntime>>,
    rigs: AtomicUsize,
}

impl Host {
    async fn new(engine: &Engine, folder: &Path) -> Self {
        let config = DockerConfig::default()
            .socket(engine.socket())
            .labels(folder.join("labels.json"));
        let runtime = DockerRuntime::open(config.clone()).unwrap();
        Self {
            registry: Registry::serve(&engine.namespace().unwrap()).await,
            config,
            runtime: Mutex::new(Arc::new(runtime)),
            rigs: AtomicUsize::new(0),
        }
    }
}

struct Rig {
    host: Arc<Host>,
    number: usize,
}

#[async_trait]
impl RuntimeRig for Rig {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let runtime = self.host.runtime.lock().unwrap();
        Arc::clone(&*runtime) as Arc<dyn Runtime>
    }

    fn image(&self) -> Option<String> {
        Some(IMAGE.to_owned())
    }

    fn remote_image(&self) -> Option<String> {
        let name = format!("conformance-{}:1", self.number);
        Some(self.host.registry.image(&name))
    }

    fn unknown_image(&self) -> Option<String> {
        Some(self.host.registry.image("nonexistent:1"))
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self) {
        let runtime = DockerRuntime::open(self.host.config.clone()).unwrap();
        *self.host.runtime.lock().unwrap() = Arc::new(runtime);
    }
}

/// All of the suite, with nothing skipped.
async fn keeps_the_contract(engine: &Engine) {
    let folder = tempfile::tempdir().unwrap();
    let host = Arc::new(Host::new(engine, folder.path()).await);
    let report = conformance::runtime(|| async {
        let number = host.rigs.fetch_add(1, Ordering::Relaxed);
        let host = Arc::clone(&host);
        Rig { host, number }
    })
    .await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_keeps_the_contract() {
    if have("docker", "/usr/sbin/dockerd") {
        keeps_the_contract(&Engine::start().await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_keeps_the_contract() {
    if have("podman", "/usr/bin/podman") {
        keeps_the_contract(&Engine::start_podman().await.unwrap()).await;
    }
}

/// Podman before 5 can't be told by which policy a container is started again once it was made.
#[tokio::test(flavor = "multi_thread")]
async fn podman_stops_what_is_to_run_always_and_starts_it_again() {
    if !have("podman", "/usr/bin/podman") {
        return;
    }
    let engine = Engine::start_podman().await.unwrap();
    let config = DockerConfig::default().socket(engine.socket());
    let runtime = DockerRuntime::connect(config).await.unwrap();
    let mut spec = ContainerSpec::default();
    spec.name = Some("always".parse().unwrap());
    spec.image = Some(IMAGE.to_owned());
    spec.command = ["sleep", "600"].map(str::to_owned).into();
    spec.restart = RestartPolicy::Always;
    spec.stop_grace = Some(Duration::ZERO);
    let name = runtime.create(&spec).await.unwrap().name;
    for _ in 0..2 {
        runtime.start(&name).await.unwrap();
        let running = runtime.inspect(&name).await.unwrap().state;
        assert_eq!(running, ContainerState::Running);
        for _ in 0..2 {
            assert_eq!(runtime.stop(&name).await.unwrap(), 137);
        }
    }
    runtime.remove(&name).await.unwrap();
}
