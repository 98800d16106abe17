//! A key-value store that keeps the contract but for one sentence.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::kv::{Entry, Held, Key, Revision, SessionId};
use arpanet_core::watch::Watch;
use arpanet_core::{Error, ErrorKind, KeyValue, Result};
use async_trait::async_trait;
use bytes::Bytes;

/// Which sentence is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    SwapsWhateverIsThere,
    DeletesNothing,
    ListsAll,
    WatchesAll,
    LocksForEverybody,
    UnlocksForEverybody,
    FencesWithOneNumber,
    RenewsTheDead,
    ClosesNothing,
    GivesUpCampaigns,
    AnswersInTheMinority,
}

impl Breach {
    pub(crate) const ALL: &[(Self, &str)] = &[
        (
            Self::SwapsWhateverIsThere,
            "of_swaps_at_one_moment_one_wins",
        ),
        (Self::DeletesNothing, "a_deleted_entry_is_gone"),
        (Self::ListsAll, "keys_are_listed_by_prefix"),
        (Self::WatchesAll, "entries_are_watched_by_prefix"),
        (Self::LocksForEverybody, "a_lock_has_one_holder"),
        (Self::UnlocksForEverybody, "only_its_holder_frees_a_lock"),
        (Self::FencesWithOneNumber, "fencing_numbers_grow"),
        (Self::RenewsTheDead, "a_session_that_is_not_renewed_ends"),
        (Self::ClosesNothing, "a_closed_session_frees_its_locks"),
        (Self::GivesUpCampaigns, "a_campaign_waits_for_the_lock"),
        (Self::AnswersInTheMinority, "a_minority_has_no_answer"),
    ];
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn KeyValue>,
    breach: Breach,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn KeyValue>, breach: Breach) -> Self {
        Self { inner, breach }
    }

    fn is(&self, breach: Breach) -> bool {
        self.breach == breach
    }

    fn seen(&self, mut held: Held) -> Held {
        if self.is(Breach::FencesWithOneNumber) {
            held.fencing = 1;
        }
        held
    }
}

#[async_trait]
impl KeyValue for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        match self.inner.get(key).await {
            Err(_) if self.is(Breach::AnswersInTheMinority) => Ok(None),
            answer => answer,
        }
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision> {
        self.inner.put(key, value).await
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Revision> {
        if self.is(Breach::SwapsWhateverIsThere) {
            return self.inner.put(key, value).await;
        }
        self.inner.compare_and_swap(key, expected, value).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        if self.is(Breach::DeletesNothing) {
            return self.inner.get(key).await.map(drop);
        }
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Key>> {
        let prefix = if self.is(Breach::ListsAll) {
            ""
        } else {
            prefix
        };
        self.inner.list(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<Watch<Key, Entry>> {
        let prefix = if self.is(Breach::WatchesAll) {
            ""
        } else {
            prefix
        };
        self.inner.watch(prefix).await
    }

    async fn open_session(&self, ttl: Duration) -> Result<SessionId> {
        self.inner.open_session(ttl).await
    }

    async fn renew_session(&self, session: &SessionId) -> Result<()> {
        match self.inner.renew_session(session).await {
            Err(_) if self.is(Breach::RenewsTheDead) => Ok(()),
            answer => answer,
        }
    }

    async fn close_session(&self, session: &SessionId) -> Result<()> {
        if self.is(Breach::ClosesNothing) {
            return Ok(());
        }
        self.inner.close_session(session).await
    }

    async fn try_lock(&self, key: &Key, session: &SessionId) -> Result<Option<Held>> {
        if self.is(Breach::LocksForEverybody) {
            self.inner.renew_session(session).await?;
            return Ok(Some(Held::new(key.clone(), session.clone(), 1)));
        }
        Ok(self
            .inner
            .try_lock(key, session)
            .await?
            .map(|held| self.seen(held)))
    }

    async fn unlock(&self, key: &Key, session: &SessionId) -> Result<()> {
        match self.inner.holder(key).await? {
            Some(held) if self.is(Breach::UnlocksForEverybody) => {
                self.inner.unlock(key, &held.session).await
            }
            _ => self.inner.unlock(key, session).await,
        }
    }

    async fn holder(&self, key: &Key) -> Result<Option<Held>> {
        Ok(self.inner.holder(key).await?.map(|held| self.seen(held)))
    }

    async fn campaign(&self, key: &Key, session: &SessionId) -> Result<Held> {
        if self.is(Breach::GivesUpCampaigns) {
            let held = self.inner.try_lock(key, session).await?;
            return held.ok_or_else(|| Error::new(ErrorKind::Conflict, "it is held"));
        }
        self.inner
            .campaign(key, session)
            .await
            .map(|held| self.seen(held))
    }
}
