//! The suite for runtimes.

use std::sync::Arc;

use arpanet_core::Runtime;
use arpanet_core::conformance::{self, Outcome, Program, Report, RuntimeRig};
use arpanet_core::memory::World;
use arpanet_core::runtime::RuntimeCapabilities;
use async_trait::async_trait;

use crate::broken_runtime::{Breach, Broken};

struct Rig {
    world: World,
    capabilities: RuntimeCapabilities,
    breach: Option<Breach>,
}

#[async_trait]
impl RuntimeRig for Rig {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let runtime = self.world.runtime("0.1");
        let runtime = Arc::new(runtime.with_capabilities(self.capabilities));
        match self.breach {
            Some(breach) => Arc::new(Broken::new(runtime, breach)),
            None => runtime,
        }
    }

    fn image(&self) -> Option<String> {
        self.capabilities.images.then(|| "busybox".to_owned())
    }

    fn remote_image(&self) -> Option<String> {
        self.capabilities.images.then(|| "nginx:1".to_owned())
    }

    fn unknown_image(&self) -> Option<String> {
        self.capabilities.images.then(|| "nonexistent:1".to_owned())
    }

    fn command(&self, program: Program<'_>) -> Vec<String> {
        match program {
            Program::Wait => vec!["wait".to_owned()],
            Program::IgnoreTerm => vec!["ignore-term".to_owned()],
            Program::Exit(code) => vec!["exit".to_owned(), code.to_string()],
            Program::Print(out, err) => {
                vec!["print-both".to_owned(), out.to_owned(), err.to_owned()]
            }
            Program::Lines(count) => vec!["lines".to_owned(), count.to_string()],
            Program::Env(name) => vec!["env".to_owned(), name.to_owned()],
            Program::Cat => vec!["cat".to_owned()],
            Program::Servers => vec!["servers".to_owned()],
            Program::Missing => vec!["/nonexistent/program".to_owned()],
            _ => unreachable!("no other programs are known"),
        }
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self) {
        self.world.crash("0.1");
    }
}

async fn report(capabilities: RuntimeCapabilities, breach: Option<Breach>) -> Report {
    conformance::runtime(|| async move {
        Rig {
            world: World::new(1),
            capabilities,
            breach,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_all_of_it() {
    let report = report(RuntimeCapabilities::all(), None).await;
    report.assert_kept();
    assert_eq!(report.skipped().count(), 0, "{report}");
    assert!(report.checks().len() > 30);
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_can_not_do_is_skipped_and_told() {
    let less = RuntimeCapabilities::all()
        .without_images()
        .without_exec()
        .without_relabel()
        .without_resolver();
    let report = report(less, None).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert!(skipped.contains(&"a_missing_command_is_told"), "{report}");
    assert!(
        skipped.contains(&"an_image_that_is_present_is_not_pulled_again"),
        "{report}"
    );
    assert!(!skipped.contains(&"what_it_can_not_do_answers_unsupported"));
}

#[tokio::test(start_paused = true)]
async fn every_breach_is_found_by_its_check() {
    for (breach, name) in Breach::ALL {
        let report = report(RuntimeCapabilities::all(), Some(*breach)).await;
        let check = report
            .broken()
            .find(|check| check.name() == *name)
            .unwrap_or_else(|| panic!("{breach:?} was not found by {name}: {report}"));
        assert!(matches!(check.outcome(), Outcome::Broken(seen) if !seen.is_empty()));
        assert!(
            report.broken().count() < report.checks().len() / 2,
            "{breach:?}: {report}"
        );
    }
}
