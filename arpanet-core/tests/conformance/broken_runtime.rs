//! A runtime that keeps the contract but for one sentence.

use std::net::Ipv4Addr;
use std::sync::Arc;

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, Exec, ExecSpec, LogOptions, Output, Pull, PullPhase,
    PullPolicy, PullProgress, PullRequest, PulledImage, Resolver, RuntimeCapabilities,
};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{ContainerName, Error, ErrorKind, Result, Runtime};
use async_trait::async_trait;
use tokio::sync::mpsc;

/// Which sentence is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    NamespaceOnlyOnceStarted,
    TakesAnySpecOfOneName,
    ReplacesOnCreate,
    AnswersInternalToTheUnknown,
    StartsAnew,
    AnswersStopWithZero,
    FailsToRemoveTwice,
    ListsBackwards,
    WatchesOnlyTheBeginning,
    IgnoresTail,
    FollowsNothing,
    RunsCommandsInTheDead,
    ForgetsTheEnvironment,
    ForgetsLabels,
    TellsNobodyWhomToAsk,
    PullsWhatIsPresent,
    PullsAgainstTheWill,
    TellsNoProgress,
    FindsEveryImage,
    CreatesAgainstTheWill,
}

impl Breach {
    pub(crate) const ALL: &[(Self, &str)] = &[
        (
            Self::NamespaceOnlyOnceStarted,
            "a_created_container_is_whole",
        ),
        (Self::TakesAnySpecOfOneName, "another_spec_is_a_conflict"),
        (Self::ReplacesOnCreate, "creating_again_finds_the_first"),
        (
            Self::AnswersInternalToTheUnknown,
            "unknown_ones_are_not_found",
        ),
        (Self::StartsAnew, "a_started_container_runs"),
        (Self::AnswersStopWithZero, "stop_answers_with_the_exit_code"),
        (Self::FailsToRemoveTwice, "a_removed_container_is_gone"),
        (Self::ListsBackwards, "all_are_listed_by_name"),
        (Self::WatchesOnlyTheBeginning, "every_state_is_told"),
        (Self::IgnoresTail, "the_tail_is_the_last_lines"),
        (Self::FollowsNothing, "following_goes_on_until_the_removal"),
        (
            Self::RunsCommandsInTheDead,
            "only_running_containers_run_commands",
        ),
        (Self::ForgetsTheEnvironment, "the_environment_is_passed_on"),
        (Self::ForgetsLabels, "labels_can_be_changed"),
        (
            Self::TellsNobodyWhomToAsk,
            "a_running_container_asks_whom_it_is_told",
        ),
        (
            Self::PullsWhatIsPresent,
            "an_image_that_is_present_is_not_pulled_again",
        ),
        (
            Self::PullsAgainstTheWill,
            "what_is_never_to_be_pulled_is_not",
        ),
        (
            Self::TellsNoProgress,
            "a_pull_tells_its_progress_and_its_end",
        ),
        (
            Self::FindsEveryImage,
            "an_image_that_is_nowhere_is_not_found",
        ),
        (
            Self::CreatesAgainstTheWill,
            "a_container_is_made_by_the_policy_of_its_spec",
        ),
    ];
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Runtime>,
    breach: Breach,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Runtime>, breach: Breach) -> Self {
        Self { inner, breach }
    }

    fn is(&self, breach: Breach) -> bool {
        self.breach == breach
    }

    fn seen(&self, mut container: Container) -> Container {
        if self.is(Breach::NamespaceOnlyOnceStarted) && container.state == ContainerState::Created {
            container.namespace = None::<NetNamespace>;
        }
        container
    }
}

#[async_trait]
impl Runtime for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        self.inner.capabilities()
    }

    async fn pull(&self, request: &PullRequest) -> Result<Pull> {
        let mut request = request.clone();
        match (self.breach, request.policy) {
            (Breach::PullsWhatIsPresent, PullPolicy::Missing)
            | (Breach::PullsAgainstTheWill, PullPolicy::Never) => {
                request = request.policy(PullPolicy::Always);
            }
            (Breach::TellsNoProgress, _) => {
                let inner = self.inner.pull(&request).await?;
                return Ok(Pull::spawn(async move |_| inner.done().await));
            }
            (Breach::FindsEveryImage, _) => {
                let inner = self.inner.pull(&request).await?;
                return Ok(Pull::spawn(async move |reporter| {
                    reporter.tell(PullProgress::new("all", PullPhase::Done));
                    let found = PulledImage::new(&request.image, "any", false);
                    Ok(inner.done().await.unwrap_or(found))
                }));
            }
            _ => {}
        }
        self.inner.pull(&request).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let mut spec = spec.clone();
        if self.is(Breach::ForgetsTheEnvironment) {
            spec.env.0.clear();
        }
        if self.is(Breach::CreatesAgainstTheWill) {
            spec.pull = PullPolicy::Missing;
        }
        if let Some(name) = &spec.name {
            match self.breach {
                Breach::ReplacesOnCreate => self.inner.remove(name).await?,
                Breach::TakesAnySpecOfOneName => {
                    if let Ok(held) = self.inner.inspect(name).await {
                        return Ok(held);
                    }
                }
                _ => {}
            }
        }
        self.inner.create(&spec).await.map(|one| self.seen(one))
    }

    async fn start(&self, name: &ContainerName) -> Result<()> {
        if self.is(Breach::StartsAnew)
            && let Ok(held) = self.inner.inspect(name).await
            && held.state == ContainerState::Running
        {
            self.inner.remove(name).await?;
            self.inner.create(&held.spec).await?;
        }
        self.inner.start(name).await
    }

    async fn stop(&self, name: &ContainerName) -> Result<i32> {
        let code = self.inner.stop(name).await?;
        Ok(if self.is(Breach::AnswersStopWithZero) {
            0
        } else {
            code
        })
    }

    async fn remove(&self, name: &ContainerName) -> Result<()> {
        if self.is(Breach::FailsToRemoveTwice) {
            self.inner.inspect(name).await?;
        }
        self.inner.remove(name).await
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Container> {
        match self.inner.inspect(name).await {
            Err(_) if self.is(Breach::AnswersInternalToTheUnknown) => {
                Err(Error::new(ErrorKind::Internal, "the engine says 404"))
            }
            answer => answer.map(|one| self.seen(one)),
        }
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let mut all = self.inner.list().await?;
        if self.is(Breach::ListsBackwards) {
            all.reverse();
        }
        Ok(all.into_iter().map(|one| self.seen(one)).collect())
    }

    async fn watch(&self) -> Result<Watch<ContainerName, Container>> {
        if self.is(Breach::WatchesOnlyTheBeginning) {
            let hub = WatchHub::new();
            for container in self.inner.list().await? {
                hub.upsert(container.name.clone(), container);
            }
            return Ok(hub.watch());
        }
        self.inner.watch().await
    }

    async fn logs(
        &self,
        name: &ContainerName,
        mut options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>> {
        if self.is(Breach::IgnoresTail) {
            options.tail = None;
        }
        if self.is(Breach::FollowsNothing) {
            options.follow = false;
        }
        self.inner.logs(name, options).await
    }

    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        match self.inner.exec(name, spec).await {
            Err(error)
                if self.is(Breach::RunsCommandsInTheDead)
                    && error.kind() == ErrorKind::Unavailable =>
            {
                Ok(Exec::new(mpsc::channel(1).0, mpsc::channel(1).1))
            }
            answer => answer,
        }
    }

    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        if self.is(Breach::ForgetsLabels) {
            return self.inner.inspect(name).await.map(drop);
        }
        self.inner.set_label(name, label, value).await
    }

    async fn set_resolver(&self, name: &ContainerName, resolver: Option<Resolver>) -> Result<bool> {
        if self.is(Breach::TellsNobodyWhomToAsk) {
            let asks = resolver.is_some();
            return self.inner.set_resolver(name, None).await.map(|_| asks);
        }
        self.inner.set_resolver(name, resolver).await
    }

    async fn bridge_address(&self) -> Result<Option<Ipv4Addr>> {
        self.inner.bridge_address().await
    }
}
