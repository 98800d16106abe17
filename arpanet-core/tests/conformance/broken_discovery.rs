//! A backend that keeps the contract but for one sentence.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::{Credential, Keys, Membership};
use arpanet_core::discovery::{
    DiscoveryCapabilities, Instance, Member, Record, RecordKey, Selector, ServiceSummary, Spread,
};
use arpanet_core::roster::{Roster, RosterEntry};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{Discovery, Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName};
use async_trait::async_trait;
use bytes::Bytes;

/// Which sentence is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    AnswersBeforeTheStart,
    StartsEmpty,
    RestartsOnASecondStart,
    TakesForeignInstances,
    ForgetsTags,
    KeepsWhatIsDeregistered,
    RefusesToDeregisterTwice,
    LooksUpTheSick,
    AnswersUnsorted,
    WatchesNothing,
    WatchesEveryService,
    TakesLongRecords,
    TakesBadKeys,
    RetractsNothing,
    IgnoresPrefixes,
    LeavesSilently,
    ForgetsTheLiving,
    FailsToForgetTwice,
    AdmitsAlone,
    ForgetsTheNewKey,
    KeepsTheKeyOfTheDeparted,
}

impl Breach {
    pub(crate) const ALL: &[(Self, &str)] = &[
        (
            Self::AnswersBeforeTheStart,
            "nothing_answers_before_the_start",
        ),
        (Self::StartsEmpty, "a_started_node_is_filled"),
        (Self::RestartsOnASecondStart, "a_second_start_does_nothing"),
        (
            Self::TakesForeignInstances,
            "an_instance_of_another_node_is_refused",
        ),
        (Self::ForgetsTags, "an_instance_travels_whole"),
        (
            Self::KeepsWhatIsDeregistered,
            "what_is_deregistered_is_gone_everywhere",
        ),
        (
            Self::RefusesToDeregisterTwice,
            "what_is_deregistered_is_gone_everywhere",
        ),
        (
            Self::LooksUpTheSick,
            "lookups_are_sorted_and_only_of_what_gets_traffic",
        ),
        (
            Self::AnswersUnsorted,
            "lookups_are_sorted_and_only_of_what_gets_traffic",
        ),
        (Self::WatchesNothing, "a_watch_begins_with_all_there_is"),
        (
            Self::WatchesEveryService,
            "a_watch_of_one_service_tells_of_no_other",
        ),
        (Self::TakesLongRecords, "records_have_limits"),
        (Self::TakesBadKeys, "records_have_limits"),
        (
            Self::RetractsNothing,
            "records_are_published_replaced_and_retracted",
        ),
        (
            Self::IgnoresPrefixes,
            "records_are_watched_by_prefix_and_owner",
        ),
        (
            Self::LeavesSilently,
            "a_node_that_leaves_is_gone_everywhere",
        ),
        (
            Self::ForgetsTheLiving,
            "who_lives_or_was_never_there_is_not_forgotten",
        ),
        (
            Self::FailsToForgetTwice,
            "a_dead_member_is_forgotten_for_good",
        ),
        (
            Self::AdmitsAlone,
            "what_is_taken_is_refused_and_its_holder_named",
        ),
        (Self::ForgetsTheNewKey, "a_new_key_is_everybodys"),
        (
            Self::KeepsTheKeyOfTheDeparted,
            "a_departure_turns_the_key_over",
        ),
    ];
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Discovery>,
    breach: Breach,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Discovery>, breach: Breach) -> Self {
        Self { inner, breach }
    }

    fn is(&self, breach: Breach) -> bool {
        self.breach == breach
    }
}

#[async_trait]
impl Discovery for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        self.inner.capabilities()
    }

    async fn start(&self, membership: &Membership) -> Result<()> {
        if self.is(Breach::StartsEmpty) && self.inner.members().await.is_err() {
            let _ = tokio::time::timeout(Duration::ZERO, self.inner.start(membership)).await;
            return Ok(());
        }
        if self.is(Breach::RestartsOnASecondStart) {
            self.inner.stop().await?;
        }
        self.inner.start(membership).await
    }

    async fn start_on_overlay(&self, returning: bool) -> Result<()> {
        self.inner.start_on_overlay(returning).await
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        match self.inner.register(instance.clone()).await {
            Err(error)
                if self.is(Breach::TakesForeignInstances)
                    && error.kind() == ErrorKind::InvalidInput =>
            {
                Ok(Spread::default())
            }
            Ok(_) if self.is(Breach::ForgetsTags) => {
                let mut poorer = instance;
                poorer.tags.clear();
                self.inner.register(poorer).await
            }
            answer => answer,
        }
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        if self.is(Breach::KeepsWhatIsDeregistered) {
            return self.inner.services().await.map(drop);
        }
        if self.is(Breach::RefusesToDeregisterTwice) {
            let mut watch = self.inner.watch(Selector::All).await?;
            if let Some(arpanet_core::watch::Change::Snapshot(all)) = watch.next().await
                && !all.contains_key(id)
            {
                return Err(Error::new(ErrorKind::NotFound, "no such instance"));
            }
        }
        self.inner.deregister(id).await
    }

    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>> {
        match self.inner.lookup(service).await {
            Err(_) if self.is(Breach::AnswersBeforeTheStart) => Ok(Vec::new()),
            Ok(mut found) if self.is(Breach::AnswersUnsorted) => {
                found.reverse();
                Ok(found)
            }
            Ok(_) if self.is(Breach::LooksUpTheSick) => {
                let mut watch = self.inner.watch(Selector::Service(service.clone())).await?;
                match watch.next().await {
                    Some(arpanet_core::watch::Change::Snapshot(all)) => {
                        Ok(all.into_values().collect())
                    }
                    _ => Ok(Vec::new()),
                }
            }
            answer => answer,
        }
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        self.inner.services().await
    }

    async fn members(&self) -> Result<Vec<Member>> {
        self.inner.members().await
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        match self.breach {
            Breach::WatchesNothing => {
                self.inner.watch(selector).await?;
                let hub = WatchHub::new();
                let watch = hub.watch();
                // Held, so that nothing but the changes is missing.
                std::mem::forget(hub);
                Ok(watch)
            }
            Breach::WatchesEveryService => self.inner.watch(Selector::All).await,
            _ => self.inner.watch(selector).await,
        }
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        self.inner.watch_members().await
    }

    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        let long = value.len() > 16 * 1024;
        match self.inner.publish(key, value).await {
            Err(_) if self.is(Breach::TakesLongRecords) && long => Ok(Spread::default()),
            Err(error)
                if self.is(Breach::TakesBadKeys) && error.kind() == ErrorKind::InvalidInput =>
            {
                Ok(Spread::default())
            }
            answer => answer,
        }
    }

    async fn retract(&self, key: &str) -> Result<()> {
        if self.is(Breach::RetractsNothing) {
            return self.inner.services().await.map(drop);
        }
        self.inner.retract(key).await
    }

    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        let prefix = match self.breach {
            Breach::IgnoresPrefixes => "",
            _ => prefix,
        };
        self.inner.watch_records(prefix).await
    }

    async fn admit(&self, entry: RosterEntry) -> Result<()> {
        match self.inner.admit(entry).await {
            Err(error)
                if self.is(Breach::AdmitsAlone) && error.kind() == ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    async fn roster(&self) -> Result<Roster> {
        self.inner.roster().await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        if self.is(Breach::FailsToForgetTwice)
            && let Some(entry) = self.inner.roster().await?.entry(node)
            && entry.forgotten
        {
            return Err(Error::new(ErrorKind::NotFound, "no such member"));
        }
        match self.inner.forget(node).await {
            Err(error)
                if self.is(Breach::ForgetsTheLiving) && error.kind() == ErrorKind::Conflict =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        if self.is(Breach::ForgetsTheNewKey) {
            return self.inner.services().await.map(|_| Spread::default());
        }
        self.inner.turn_over(credential).await
    }

    async fn watch_keys(&self) -> Result<tokio::sync::watch::Receiver<Keys>> {
        let keys = self.inner.watch_keys().await?;
        if self.is(Breach::KeepsTheKeyOfTheDeparted) {
            let departed = self.inner.roster().await?.departures() > 0;
            if departed {
                let mut before = keys.borrow().clone();
                before.key.covers = 0;
                return Ok(tokio::sync::watch::channel(before).1);
            }
        }
        Ok(keys)
    }

    async fn leave(&self, limit: Duration) -> Result<()> {
        if self.is(Breach::LeavesSilently) {
            return self.inner.stop().await;
        }
        self.inner.leave(limit).await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }
}
