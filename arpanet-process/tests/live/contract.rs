//! The suite that every runtime keeps.

use std::sync::{Arc, Mutex};

use arpanet_core::Runtime;
use arpanet_core::conformance::{self, RuntimeRig};
use arpanet_process::ProcessRuntime;
use async_trait::async_trait;

use tokio::time::Instant;

use crate::scene::{BOUND, Scene, on_this_thread};

pub(crate) const TESTS: &[(&str, fn())] = &[("the_contract_is_kept", the_contract_is_kept)];

struct Rig {
    scene: Scene,
    runtime: Mutex<Option<Arc<ProcessRuntime>>>,
}

#[async_trait]
impl RuntimeRig for Rig {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let runtime = self.runtime.lock().unwrap();
        Arc::clone(runtime.as_ref().unwrap()) as Arc<dyn Runtime>
    }

    fn can_crash(&self) -> bool {
        true
    }

    /// Dropping it tells its containers no more than a kill does; that is tried with a process in `survival`.
    async fn crash(&self) {
        self.runtime.lock().unwrap().take();
        let due = Instant::now() + BOUND;
        let runtime = loop {
            match ProcessRuntime::open(self.scene.config()).await {
                Ok(runtime) => break runtime,
                // What still went on in the dropped one holds the folder to its end.
                Err(error) => assert!(Instant::now() < due, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        self.runtime.lock().unwrap().replace(Arc::new(runtime));
    }
}

fn the_contract_is_kept() {
    on_this_thread(20 * BOUND, async {
        let report = conformance::runtime(|| async {
            let scene = Scene::new();
            let runtime = Mutex::new(Some(Arc::new(scene.open().await)));
            Rig { scene, runtime }
        })
        .await;
        report.assert_kept();
        let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
        // Its images are the host's own files, and so is whom its containers ask for names.
        let unsupported = [
            "a_running_container_asks_whom_it_is_told",
            "name_servers_of_its_maker_are_kept",
            "name_servers_are_forgotten_at_the_end",
            "only_running_containers_are_told_whom_to_ask",
            "an_image_that_is_present_is_not_pulled_again",
            "a_pull_tells_its_progress_and_its_end",
            "a_pull_that_is_given_up_is_finished_by_the_next",
            "an_image_that_is_nowhere_is_not_found",
            "what_is_never_to_be_pulled_is_not",
            "a_container_is_made_by_the_policy_of_its_spec",
            "what_names_no_image_is_refused",
        ];
        assert_eq!(skipped, unsupported);
    });
}
