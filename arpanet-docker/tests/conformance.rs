//! The suite that every runtime keeps, on a real engine, and what is the engine's own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod registry;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arpanet_core::Runtime;
use arpanet_core::conformance::{self, RuntimeRig};
use arpanet_docker::{DockerConfig, DockerRuntime};
use arpanet_lab::{Engine, IMAGE};
use async_trait::async_trait;

use self::registry::Registry;

/// Skips where there is no engine, and fails instead where one is promised.
macro_rules! require_docker {
    () => {
        if !nix::unistd::geteuid().is_root() || !Path::new("/usr/sbin/dockerd").exists() {
            let promised = std::env::var("ARPANET_LIVE").unwrap_or_default();
            assert!(
                !promised.split(',').any(|name| name == "docker"),
                "ARPANET_LIVE promises docker"
            );
            eprintln!("skipped: it needs root, and Debian's package docker.io");
            return;
        }
    };
}

struct Rig {
    registry: Arc<Registry>,
    number: usize,
    config: DockerConfig,
    runtime: Mutex<Option<Arc<DockerRuntime>>>,
}

impl Rig {
    fn new(socket: PathBuf, folder: &Path, registry: &Arc<Registry>, number: usize) -> Self {
        let config = DockerConfig::default()
            .socket(socket)
            .labels(folder.join("labels.json"));
        let runtime = DockerRuntime::open(config.clone()).unwrap();
        Self {
            registry: Arc::clone(registry),
            number,
            config,
            runtime: Mutex::new(Some(Arc::new(runtime))),
        }
    }
}

#[async_trait]
impl RuntimeRig for Rig {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let runtime = self.runtime.lock().unwrap();
        Arc::clone(runtime.as_ref().unwrap()) as Arc<dyn Runtime>
    }

    fn image(&self) -> Option<String> {
        Some(IMAGE.to_owned())
    }

    fn remote_image(&self) -> Option<String> {
        Some(
            self.registry
                .image(&format!("conformance-{}:1", self.number)),
        )
    }

    fn unknown_image(&self) -> Option<String> {
        Some(self.registry.image("nonexistent:1"))
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self) {
        let runtime = DockerRuntime::open(self.config.clone()).unwrap();
        self.runtime.lock().unwrap().replace(Arc::new(runtime));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    require_docker!();
    let engine = Engine::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::serve(&engine.namespace().unwrap()).await);
    let rigs = AtomicUsize::new(0);
    let report = conformance::runtime(|| async {
        let number = rigs.fetch_add(1, Ordering::Relaxed);
        Rig::new(engine.socket(), folder.path(), &registry, number)
    })
    .await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, [""; 0]);
}
